"""Conditions that are left out in training."""

from collections.abc import Iterable
from dataclasses import dataclass

from jaxtyping import Bool
from torch import Tensor

from vdm import randomness
from vdm.ranges import Share
from vdm.types import Prompts


@dataclass(frozen=True)
class ConditionDropout:
    """Shares of clips trained without conditions, so that guidance has an unconditional model to start from.

    Args:
        all: Share that loses every condition.
        text: Share of the rest that loses its caption.
        label: Share of the rest that loses its class.
        image: Share of the rest that loses its first frame's latents.
        image_token: Share of the rest that loses the embedding of what its first frame shows.
    """

    all: Share = 0.1
    text: Share = 0.0
    label: Share = 0.0
    image: Share = 0.0
    image_token: Share = 0.0

    def __post_init__(self) -> None:
        for name in ("all", "text", "label", "image", "image_token"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], but is {getattr(self, name)}")

    def apply(self, prompts: Prompts, seed: int, positions: Iterable[int]) -> Prompts:
        """Drop conditions as a function of (seed, position)."""
        positions = list(positions)

        def dropped(name: str) -> Bool[Tensor, " b"]:
            return randomness.uniform(seed, f"drop {name}", positions) < getattr(self, name)

        everything = dropped("all")
        return prompts.drop(*(everything | dropped(name) for name in ("text", "label", "image", "image_token")))
