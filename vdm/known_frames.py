"""Known frames: which frames of a clip a model is given, drawn in training, and chosen by the user in sampling.

A model learns to make videos from given frames by being given some frames of each clip. They may be its first ones
(image to video, extension), its last ones, both ends, every k-th one (interpolation), or any. Where the network sees
them clean in their places, these are latent frames (``vdm.diffusion.frame_levels``); where it is told them in further
channels, they are frames of the clip (``vdm.models.known_frames_conditioner``).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Protocol

import torch
from annotated_types import Ge, Len
from jaxtyping import Bool, Float
from torch import Tensor

from vdm.ranges import Size

Draw = Callable[[str], Float[Tensor, " b"]]
"""Draws one number a clip for a purpose; numbers of different purposes are independent."""
IsKnown = Bool[Tensor, "b t"]
"""True for known frames."""


class FrameChoice(Protocol):
    """A distribution of known frames."""

    def __call__(self, draw_uniform: Draw, num_frames: int) -> IsKnown:
        """Draw the known frames of each clip; at least one frame of a clip stays unknown.

        Args:
            draw_uniform: Draws numbers in [0, 1).
            num_frames: Number of frames of each clip.
        """
        ...

    def may_be(self, known: Sequence[int], num_frames: int) -> bool:
        """Return whether these frames of a clip, in ascending order, can be drawn."""
        ...

    @property
    def is_first_frame(self) -> bool:
        """Whether no other frame than the first is ever known."""
        ...


@dataclass(frozen=True)
class SomeFrames:
    """A number of frames, which is uniform from ``min_frames`` to ``max_frames``; at least one frame stays unknown.

    Args:
        min_frames: Smallest number of known frames.
        max_frames: Largest number of known frames.
    """

    min_frames: Size = 1
    max_frames: Size = 1

    def __post_init__(self) -> None:
        if not 1 <= self.min_frames <= self.max_frames:
            raise ValueError(
                "min_frames and max_frames must be at least 1, min_frames not above max_frames, but are "
                f"{self.min_frames} and {self.max_frames}"
            )

    def _number(self, draw_uniform: Draw, num_frames: int) -> Float[Tensor, "b 1"]:
        """Draw the number for each clip."""
        choices = self.max_frames - self.min_frames + 1
        number = self.min_frames + (draw_uniform("number of clean frames") * choices).floor()
        return number.clamp(max=num_frames - 1)[:, None]

    def _may_be_so_many(self, known: Sequence[int]) -> bool:
        return self.min_frames <= len(known) <= self.max_frames


@dataclass(frozen=True)
class FirstFrames(SomeFrames):
    """The first frames; see ``SomeFrames``."""

    def __call__(self, draw_uniform: Draw, num_frames: int) -> IsKnown:
        """Draw their number."""
        return torch.arange(num_frames) < self._number(draw_uniform, num_frames)

    def may_be(self, known: Sequence[int], num_frames: int) -> bool:
        """Return whether these frames of a clip can be drawn."""
        return list(known) == list(range(len(known))) and self._may_be_so_many(known)

    @property
    def is_first_frame(self) -> bool:
        """Whether no other frame than the first is ever known."""
        return self.max_frames == 1


@dataclass(frozen=True)
class LastFrames(SomeFrames):
    """The last frames; see ``SomeFrames``."""

    is_first_frame = False

    def __call__(self, draw_uniform: Draw, num_frames: int) -> IsKnown:
        """Draw their number."""
        return torch.arange(num_frames) >= num_frames - self._number(draw_uniform, num_frames)

    def may_be(self, known: Sequence[int], num_frames: int) -> bool:
        """Return whether these frames of a clip can be drawn."""
        return list(known) == list(range(num_frames - len(known), num_frames)) and self._may_be_so_many(known)


@dataclass(frozen=True)
class AnyFrames(SomeFrames):
    """Any frames, of which all choices are equally likely; see ``SomeFrames``."""

    is_first_frame = False

    def __call__(self, draw_uniform: Draw, num_frames: int) -> IsKnown:
        """Draw their number, and which they are."""
        number = self._number(draw_uniform, num_frames)
        priority = torch.stack([draw_uniform(f"priority of known frame {frame}") for frame in range(num_frames)], dim=1)
        return priority.argsort(1).argsort(1) < number

    def may_be(self, known: Sequence[int], num_frames: int) -> bool:
        """Return whether these frames of a clip can be drawn."""
        return self._may_be_so_many(known)


class SameFrames(ABC):
    """The same frames of every clip."""

    is_first_frame = False

    @abstractmethod
    def _known(self, num_frames: int) -> list[int]:
        """Return them in ascending order; at least one frame stays unknown."""

    def __call__(self, draw_uniform: Draw, num_frames: int) -> IsKnown:
        """Return the same frames for every clip."""
        is_known = torch.zeros(num_frames, dtype=torch.bool)
        is_known[self._known(num_frames)] = True
        return is_known.expand(len(draw_uniform("number of clean frames")), -1)

    def may_be(self, known: Sequence[int], num_frames: int) -> bool:
        """Return whether these are the frames."""
        return list(known) == self._known(num_frames)


@dataclass(frozen=True)
class BothEnds(SameFrames):
    """The first and the last frame; of a clip of two frames, the first."""

    def _known(self, num_frames: int) -> list[int]:
        return [0, num_frames - 1] if num_frames > 2 else list(range(num_frames - 1))


@dataclass(frozen=True)
class EveryKthFrame(SameFrames):
    """Every k-th frame, from the first.

    Args:
        every: Distance of known frames.
    """

    every: Annotated[Size, Ge(2)] = 4

    def __post_init__(self) -> None:
        if self.every < 2:
            raise ValueError(f"every must be at least 2, but is {self.every}")

    def _known(self, num_frames: int) -> list[int]:
        return list(range(0, num_frames, self.every)) if num_frames > 1 else []


@dataclass(frozen=True)
class OneOf:
    """One of several distributions, drawn for each clip; all are equally likely.

    Args:
        choices: The distributions.
    """

    choices: Annotated[Sequence[FrameChoice], Len(1, 100)]

    def __call__(self, draw_uniform: Draw, num_frames: int) -> IsKnown:
        """Draw a distribution, and from it the frames."""
        which = (draw_uniform("distribution of known frames") * len(self.choices)).long()
        drawn = torch.stack([choice(draw_uniform, num_frames) for choice in self.choices], dim=1)
        return drawn[torch.arange(len(which)), which]

    def may_be(self, known: Sequence[int], num_frames: int) -> bool:
        """Return whether one of the distributions may draw these frames of a clip."""
        return any(choice.may_be(known, num_frames) for choice in self.choices)

    @property
    def is_first_frame(self) -> bool:
        """Whether no other frame than the first is ever known."""
        return all(choice.is_first_frame for choice in self.choices)
