"""Exponential moving average of the weights: what videos are made with."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor


class EMA:
    """A running average of the weights that this process updates, kept where they are: sharded as they are.

    The average is warmed up, ``decay = min(decay, (1 + n) / (10 + n))`` after n updates, so that the first weights are
    soon forgotten.

    Args:
        decay: Share of the old average kept by an update, once warmed up.
    """

    def __init__(self, decay: float = 0.9999) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"ema_decay must lie in [0, 1), but is {decay}")
        self.decay = decay
        self.num_updates = 0
        self.averages: dict[str, Tensor] = {}

    def follow(self, weights: Mapping[str, Tensor], spread: Callable[[], None] = lambda: None) -> None:
        """Begin with the present weights.

        Args:
            weights: Views of the weights that this process updates, by name.
            spread: Brings changes of them to wherever else the weights are kept.
        """
        self._weights = weights
        self._spread = spread
        self.averages = {name: weight.clone() for name, weight in weights.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the present weights."""
        self.num_updates += 1
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        averages, weights = list(self.averages.values()), list(self._weights.values())
        torch._foreach_lerp_(averages, weights, 1 - decay)  # pyright: ignore[reportPrivateImportUsage]

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Exchange the weights for the averages while the context lasts; all processes enter and leave it together."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the weights with the averages, in all processes together."""
        for name, weight in self._weights.items():
            kept = weight.clone()
            weight.copy_(self.averages[name])
            self.averages[name].copy_(kept)
        self._spread()

    @torch.no_grad()
    def load(self, averages: Mapping[str, Tensor], num_updates: int) -> None:
        """Go on from saved averages."""
        for name, average in self.averages.items():
            average.copy_(averages[name])
        self.num_updates = num_updates
