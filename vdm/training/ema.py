"""Exponential moving averages (EMA) of the weights, with which videos are made."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

import torch
from annotated_types import Len
from torch import Tensor

from vdm.ranges import NotNegative, Positive
from vdm.training.power_functions import SigmaRel, gamma_of


class EMAProfile(Protocol):
    """The weighting of past steps in an EMA."""

    @property
    def name(self) -> str:
        """Name of the EMA in checkpoints and commands."""
        ...

    def decay(self, step: int, clips_per_step: int) -> float:
        """Return the factor of the old average in an optimizer step; steps count from 1."""
        ...


@dataclass(frozen=True)
class HalfLife:
    """An exponential average with a half-life.

    Args:
        clips: Half-life, in trained clips.
        warm_up: Upper bound of the half-life, as a share of the clips trained on so far: it makes the first weights
            fade quickly (Karras et al. 2022).
    """

    clips: float
    warm_up: float

    @property
    def name(self) -> str:
        """Name in checkpoints."""
        return f"half_life_{self.clips:.10g}"

    def decay(self, step: int, clips_per_step: int) -> float:
        """Return the factor of the old average in a step."""
        half_life = min(self.clips, self.warm_up * step * clips_per_step)
        return 0.5 ** (clips_per_step / half_life) if half_life > 0 else 0.0


@dataclass(frozen=True)
class PowerFunctionEMA:
    """An average whose profile is a power function of the step: its length grows with the run.

    Args:
        sigma_rel: Standard deviation of the profile, as a share of the steps so far.
    """

    sigma_rel: float

    @property
    def name(self) -> str:
        """Name in checkpoints."""
        return f"sigma_rel_{self.sigma_rel:.10g}"

    def decay(self, step: int, clips_per_step: int) -> float:
        """Return the factor of the old average in a step (Karras et al. 2024, section 3.1)."""
        return (1 - 1 / step) ** (gamma_of(self.sigma_rel) + 1)


def count_emas(ema: Mapping[str, Any]) -> int:
    """Return how many EMAs a configuration asks for."""
    return len(ema["half_lives"]) + len(ema["sigma_rels"])


class EMA:
    """Averages of the weights that this process updates, sharded and placed as the weights are.

    Validation and sampling use the first one: that of the first half-life, if there is any.

    Args:
        half_lives: Half-life of each exponential average, in trained clips.
        warm_up: Upper bound of the half-lives, as a share of the clips trained on so far.
        sigma_rels: Standard deviation of each power-function average, as a share of the run's length. From snapshots of
            two of them, ``vdm ema`` makes the average of any other length.
    """

    def __init__(
        self,
        half_lives: Annotated[Sequence[Positive], Len(0, 64)] = (110_000,),
        warm_up: NotNegative = 0.05,
        sigma_rels: Annotated[Sequence[SigmaRel], Len(0, 64)] = (),
    ) -> None:
        if any(half_life <= 0 for half_life in half_lives):
            raise ValueError(f"half_lives must be above 0, but are {list(half_lives)}")
        if not warm_up >= 0:
            raise ValueError(f"warm_up must be at least 0, but is {warm_up}")
        for sigma_rel in sigma_rels:
            gamma_of(sigma_rel)
        exponential = [HalfLife(half_life, warm_up) for half_life in half_lives]
        self.power_functions = [PowerFunctionEMA(sigma_rel) for sigma_rel in sigma_rels]
        self.kinds: list[EMAProfile] = [*exponential, *self.power_functions]
        names = [kind.name for kind in self.kinds]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"half_lives, sigma_rels: at least one, and each once, but they are {names}")
        self.num_updates = 0
        """Optimizer steps so far."""
        self.num_updates_of: dict[str, int] = {}
        """Steps so far of each of two experts, by name."""
        self.weights: dict[str, dict[str, Tensor]] = {name: {} for name in names}
        """EMA weights by name of the EMA and of the weight."""

    @property
    def first(self) -> dict[str, Tensor]:
        """The EMA weights with which the model is validated and sampled, by name."""
        return self.weights[self.kinds[0].name]

    def follow(
        self,
        weights: Mapping[str, Tensor],
        clips_per_step: int,
        update_copies: Callable[[], None] = lambda: None,
        owners: Mapping[str, str | None] | None = None,
    ) -> None:
        """Start all averages at the present weights.

        Args:
            weights: Views of the weights that this process updates, by name.
            clips_per_step: Clips in an optimizer step, over all processes.
            update_copies: Copies changed weights to wherever else they are kept.
            owners: The expert to which a weight belongs, by the weight's name, if the network consists of two.
        """
        self._trained = dict(weights)
        self._parts: dict[str | None, list[str]] = {}
        for name in weights:
            self._parts.setdefault((owners or {}).get(name), []).append(name)
        self.num_updates_of = {owner: 0 for owner in set((owners or {}).values()) if owner is not None}
        self._clips_per_step = clips_per_step
        self._update_copies = update_copies
        for name in self.weights:
            self.weights[name] = {name: weight.clone() for name, weight in weights.items()}

    def move(self, weights: Mapping[str, Tensor]) -> None:
        """Take new views of weights that were moved to another device, and move their averages there."""
        self._trained.update(weights)
        for of_kind in self.weights.values():
            of_kind.update({name: of_kind[name].to(weight.device) for name, weight in weights.items()})

    @torch.no_grad()
    def update(self, idle: str | None = None) -> None:
        """Add the present weights to the averages, after an optimizer step.

        Args:
            idle: The expert that the step left alone, whose averages don't change. Averages of an expert count its own
                steps.
        """
        self.num_updates += 1
        for expert in self.num_updates_of:
            self.num_updates_of[expert] += expert != idle
        for owner, names in self._parts.items():
            if owner is not None and owner == idle:
                continue
            weights = [self._trained[name] for name in names]
            num_updates = self.num_updates if owner is None else self.num_updates_of[owner]
            for kind in self.kinds:
                ema_weights = [self.weights[kind.name][name] for name in names]
                new = 1 - kind.decay(num_updates, self._clips_per_step)
                torch._foreach_lerp_(ema_weights, weights, new)  # pyright: ignore[reportPrivateImportUsage]

    def decays(self) -> dict[str, float]:
        """Return, by name of the EMA, the factor of the old average in the latest update."""
        return {kind.name: kind.decay(max(1, self.num_updates), self._clips_per_step) for kind in self.kinds}

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Exchange the weights and their EMA while the context lasts; all processes enter and leave it together."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the weights and the first EMA, in all processes together."""
        for name, weight in self._trained.items():
            kept = weight.clone()
            weight.copy_(self.first[name])
            self.first[name].copy_(kept)
        self._update_copies()

    def load_state(self, checkpoint: Mapping[str, Any]) -> None:
        """Restore EMA weights and counts of updates from a checkpoint of training; errors are those of ``load``."""
        self.load(checkpoint["ema"], checkpoint["ema_updates"], checkpoint.get("ema_updates_of", {}))

    @torch.no_grad()
    def load(
        self,
        saved: Mapping[str, Mapping[str, Tensor]],
        num_updates: int,
        num_updates_of: Mapping[str, int] | None = None,
    ) -> None:
        """Restore saved EMA weights.

        Raises:
            ValueError: If the names of the saved EMAs are not those of this run.
        """
        if list(saved) != list(self.weights):
            raise ValueError(f"ema: the checkpoint has {', '.join(saved)}, but the run {', '.join(self.weights)}")
        for kind, of_kind in self.weights.items():
            for name, weight in of_kind.items():
                weight.copy_(saved[kind][name])
        self.num_updates = num_updates
        self.num_updates_of |= num_updates_of or {}
