"""Exponential moving average of the weights: what videos are made with."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class EMA:
    """A running average of a module's trainable weights, kept beside them.

    The average is warmed up, ``decay = min(decay, (1 + n) / (10 + n))`` after n updates, so that the first weights are
    soon forgotten.

    Args:
        module: The module whose weights are averaged.
        decay: Share of the old average kept by an update, once warmed up.
    """

    def __init__(self, module: nn.Module, decay: float = 0.9999) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"ema_decay must lie in [0, 1), but is {decay}")
        self.decay = decay
        self.num_updates = 0
        self.averages = {name: parameter.detach().clone() for name, parameter in _trainable(module)}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Take in the module's present weights."""
        self.num_updates += 1
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        averages, weights = zip(
            *[(self.averages[name], weight.detach()) for name, weight in _trainable(module)], strict=True
        )
        torch._foreach_lerp_(averages, weights, 1 - decay)  # pyright: ignore[reportPrivateImportUsage]

    @contextmanager
    def swapped_in(self, module: nn.Module) -> Iterator[None]:
        """Exchange the module's weights for the averages while the context lasts."""
        self.swap(module)
        try:
            yield
        finally:
            self.swap(module)

    @torch.no_grad()
    def swap(self, module: nn.Module) -> None:
        """Exchange the module's weights with the averages."""
        for name, weight in _trainable(module):
            average = self.averages[name]
            kept = weight.detach().clone()
            weight.copy_(average)
            average.copy_(kept)

    def to(self, device: torch.device) -> None:
        """Move the averages."""
        self.averages = {name: average.to(device) for name, average in self.averages.items()}

    @torch.no_grad()
    def load(self, averages: Mapping[str, Tensor], num_updates: int) -> None:
        """Go on from saved averages."""
        for name, average in self.averages.items():
            average.copy_(averages[name])
        self.num_updates = num_updates


def _trainable(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return ((name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad)
