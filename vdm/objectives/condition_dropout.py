"""Condition dropout: conditions are left out at random in training, for classifier-free guidance."""

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
"""Probability of dropping each condition, by its name; ``all`` is the probability of dropping all of them."""


@dataclass(frozen=True)
class ConditionDropout:
    """Drops conditions of clips at random, so that the model also learns to predict without them (Ho & Salimans 2022).

    Args:
        shares: For ``all``, the probability that a clip loses all conditions that guidance guides towards. For the name
            of a condition, the probability that a clip that has not lost it so loses this one. 0 for names that are
            missing.
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
        return prompts.drop(
            {
                name: everything | dropped(name) if condition.is_guided_by else dropped(name)
                for name, condition in prompts.conditions.items()
            }
        )
