"""Frame blocks: a video longer than the training clips is sampled block by block, and blocks overlap."""

from collections.abc import Collection
from dataclasses import dataclass

from vdm.models.autoencoder import Compression


@dataclass(frozen=True)
class BlockSize:
    """Size of a frame block.

    Args:
        num_frames: Frames of a block, best as many as in training.
        overlap: Frames at the beginning of a block that are known from earlier blocks or from the input.
    """

    num_frames: int
    overlap: int = 1

    def __post_init__(self) -> None:
        if self.num_frames < 1:
            raise ValueError(f"block_frames={self.num_frames}: must be at least 1")
        if self.num_frames > 1 and not 1 <= self.overlap < self.num_frames:
            raise ValueError(
                f"overlap={self.overlap}: must be at least 1 and below the {self.num_frames} frames of a block"
            )


def block_size(
    compression: Compression, trained_frames: int, num_frames: int | None = None, overlap: int | None = None
) -> BlockSize:
    """Return the size of a block: by default that of a training clip, half of which overlaps the block before.

    Args:
        compression: Compression of the autoencoder.
        trained_frames: Frames of a clip in training.
        num_frames: Frames of a block; None for the default.
        overlap: Frames known from earlier blocks; None for the default.

    Raises:
        ValueError: If the autoencoder takes no clips of this length, or an overlap of this length is impossible.
    """
    num_frames = trained_frames if num_frames is None else num_frames
    half = max(1, (num_frames // 2 - 1) // compression.frames * compression.frames + 1)
    overlap = half if overlap is None else overlap
    compression.latent_frames(num_frames, "block_frames")
    compression.latent_frames(overlap, "overlap")
    return BlockSize(num_frames, overlap)


@dataclass(frozen=True)
class Block:
    """Frames that are sampled together."""

    start: int
    stop: int
    """The frame after its last."""
    known: tuple[int, ...]
    """Frames from ``start`` to ``stop`` that are part of the input, or of an earlier block."""
    new: tuple[int, ...]
    """Frames that this block adds to the video."""


def plan_blocks(num_frames: int, size: BlockSize, given: Collection[int] = ()) -> list[Block]:
    """Return the blocks of a video, in order.

    All have one length, that of the video if it is shorter; the last one may overlap more than the others.

    Args:
        num_frames: Frames of the video.
        size: Size of the blocks.
        given: Frames of the input, known from the start.

    Raises:
        ValueError: If a block of one frame would have to overlap another.
    """
    if size.num_frames < min(num_frames, 2):
        raise ValueError(f"block_frames={size.num_frames}: must be at least 2 for a video of {num_frames} frames")
    length = min(size.num_frames, num_frames)
    blocks: list[Block] = []
    known = set(given)
    while unknown := [frame for frame in range(num_frames) if frame not in known]:
        start = min(_start(unknown[0], length, size.overlap, given), num_frames - length)
        stop = start + length
        # Frames after the last given one of this block are better sampled by a block that sees the next given one.
        until = max((frame for frame in given if unknown[0] < frame < stop), default=stop)
        if all(frame < stop for frame in given):
            until = stop
        window = range(start, stop)
        block = Block(
            start,
            stop,
            known=tuple(frame for frame in window if frame in known),
            new=tuple(frame for frame in window if frame not in known and frame < until),
        )
        blocks.append(block)
        known.update(block.new)
    return blocks


def _start(first_unknown: int, length: int, overlap: int, given: Collection[int]) -> int:
    """Return the start of a block: early enough to overlap, late enough to include the next given frame."""
    start = max(first_unknown - overlap, 0)
    reaching = min((frame + 1 - length for frame in given if frame > first_unknown), default=start)
    return max(start, reaching) if reaching < first_unknown else start
