"""Conditions that are left out in training."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import Len
from jaxtyping import Bool
from torch import Tensor

from vdm import randomness
from vdm.prompts import Prompts
from vdm.ranges import Name, Share

ALL = "all"
Shares = Annotated[Mapping[Name, Share], Len(0, 1000)]
"""Shares of clips that lose a condition, by its name; ``all`` is the share that loses every one."""


@dataclass(frozen=True)
class ConditionDropout:
    """Shares of clips trained without conditions, so that guidance has an unconditional model to start from.

    Args:
        shares: ``all``: share of clips that lose every condition. The name of a condition: share of the rest that loses
            that one. What is not named is 0.
    """

    shares: Shares = field(default_factory=dict[str, float])

    def __post_init__(self) -> None:
        for name, share in self.shares.items():
            if not 0 <= share <= 1:
                raise ValueError(f"{name} must lie in [0, 1], but is {share}")

    def apply(self, prompts: Prompts, seed: int, positions: Iterable[int]) -> Prompts:
        """Drop conditions as a function of (seed, position)."""
        positions = list(positions)

        def dropped(name: str) -> Bool[Tensor, " b"]:
            return randomness.uniform(seed, f"drop {name}", positions) < self.shares.get(name, 0.0)

        everything = dropped(ALL)
        return prompts.drop({name: everything | dropped(name) for name in prompts.conditions})
