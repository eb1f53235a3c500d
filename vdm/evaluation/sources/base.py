"""Interface of a source of clips, and the split of its clips over processes."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from jaxtyping import UInt8
from torch import Tensor

from vdm import randomness
from vdm.evaluation.base import EvaluatedClip
from vdm.evaluation.clip_rule import ClipRule, TooShortError

Item = TypeVar("Item")


@dataclass(frozen=True)
class UnusableClip:
    """A clip that can't be looked at."""

    key: str
    reason: str
    is_unreadable: bool = False
    """Whether reading or decoding it failed, and might succeed another time."""


Views = Mapping[ClipRule, EvaluatedClip | UnusableClip]
"""One video as each rule sees it."""
Block = range
"""Numbers of successive videos that one process reads or samples; an empty one keeps processes in step."""


class ClipSource(Protocol):
    """Videos in a fixed order, read or made again at each call."""

    @property
    def name(self) -> str:
        """What users call it: a path, or the checkpoint that samples."""
        ...

    @property
    def identity(self) -> str | None:
        """SHA-256 of its content; None if its features can't be kept for the next time."""
        ...

    @property
    def block_size(self) -> int:
        """Videos in a block, at most."""
        ...

    def __len__(self) -> int:
        """Return the number of videos."""
        ...

    def views(self, blocks: Sequence[Block], rules: Collection[ClipRule]) -> Iterator[tuple[int, Views]]:
        """Yield the number of each video of the blocks, in order, and what each rule sees of it.

        Raises:
            ValueError: If the source as a whole can't be read, in one line.
        """
        ...


def shuffled(items: Sequence[Item]) -> list[Item]:
    """Return items in a fixed random order, so that the first of them stand for all, however they were sorted."""
    return [items[place] for place in randomness.permutation(0, "order of evaluated clips", 0, len(items))]


def view(
    video: UInt8[Tensor, "c t h w"],
    rule: ClipRule,
    key: str,
    fps: float | None,
    caption: str = "",
    label: int | None = None,
    times: Sequence[float] | None = None,
) -> EvaluatedClip | UnusableClip:
    """Return what a rule sees of a whole video, whose frames are shown at some times."""
    try:
        frames = rule.cut(video, fps, times)
    except TooShortError as error:
        return UnusableClip(key, str(error))
    return EvaluatedClip(frames, key, caption, label, rule.fps or fps)


def blocks_of_rank(num_videos: int, block_size: int, rank: int, world_size: int) -> list[Block]:
    """Return the blocks of a process: every ``world_size``-th, as many for each process."""
    starts = range(0, num_videos, block_size)
    num_blocks = -(-len(starts) // world_size)
    mine = starts[rank::world_size]
    blocks = [range(start, min(start + block_size, num_videos)) for start in mine]
    return blocks + [range(0)] * (num_blocks - len(blocks))
