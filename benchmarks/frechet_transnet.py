"""How Fréchet-TransNet grows as real videos get worse, and what it does not see.

Clips of a folder of videos are split at random into two halves. One half is the reference; the other is damaged, ever
more, and compared with it. The distance of the undamaged halves is what chance alone makes of so few clips.

    VDM_VIDEOS=FOLDER python benchmarks/frechet_transnet.py
    VDM_VIDEOS=FOLDER python benchmarks/frechet_transnet.py --clips 1000 --size 128
"""

import argparse
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import av
import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from vdm.evaluation.base import EvaluatedClip
from vdm.evaluation.extractors.transnet import TransNet
from vdm.evaluation.statistics.frechet import FrechetDistance

FRAMES, EVERY = 16, 2
"""Frames of a clip, and how many frames of the video one of them stands for."""


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=400, help="clips at most, in both halves together")
    parser.add_argument("--size", type=int, default=64, help="height and width of clips")
    arguments = parser.parse_args()
    videos = os.environ.get("VDM_VIDEOS")
    if videos is None:
        print("not measured: VDM_VIDEOS names no folder of videos")
        return

    clips = list(read_clips(Path(videos), arguments.size))
    order = torch.randperm(len(clips), generator=torch.Generator().manual_seed(0))[: arguments.clips].tolist()
    half = len(order) // 2
    reference, others = ([clips[index] for index in part] for part in (order[:half], order[half : 2 * half]))
    extractor = TransNet()
    described = extractor.describe(reference)
    frechet = FrechetDistance()
    print(f"{half} clips against {half}, of {FRAMES} frames of {arguments.size}x{arguments.size}\n")
    print("| damage | strength | Fréchet-TransNet |\n| --- | --- | --- |")
    for name, strength, damage in DAMAGES:
        damaged = [replace(clip, video=damage(clip.video)) for clip in others]
        distance = frechet.value(extractor.describe(damaged), described)
        print(f"| {name} | {strength} | {distance:.3f} |", flush=True)


def read_clips(folder: Path, size: int) -> Iterator[EvaluatedClip]:
    """Yield clips, which follow each other without overlap."""
    for path in sorted(folder.glob("*.m*")):
        if path.suffix not in (".mp4", ".mkv"):
            continue
        frames: list[Tensor] = []
        with av.open(str(path)) as container:
            for number, frame in enumerate(container.decode(video=0)):
                if number % EVERY == 0:
                    pixels = frame.to_ndarray(format="rgb24", width=size, height=size, interpolation="AREA")
                    frames.append(torch.from_numpy(pixels))
                if len(frames) == FRAMES:
                    yield EvaluatedClip(rearrange(torch.stack(frames), "t h w c -> c t h w"), path.name)
                    frames = []


def noise(deviation: float) -> Callable[[Tensor], Tensor]:
    """Return a damage: noise of each pixel, in bytes."""
    return lambda video: as_bytes(video + deviation * torch.randn(video.shape, generator=random_numbers(video)))


def blur(pixels: int) -> Callable[[Tensor], Tensor]:
    """Return a damage: the mean over squares of pixels."""
    return lambda video: as_bytes(F.avg_pool2d(video.float(), pixels, 1, pixels // 2, count_include_pad=False))


def flicker(deviation: float) -> Callable[[Tensor], Tensor]:
    """Return a damage: each frame brighter or darker by a random share."""
    return lambda video: as_bytes(
        video * (1 + deviation * torch.randn(1, FRAMES, 1, 1, generator=random_numbers(video)))
    )


def shuffle(share: float) -> Callable[[Tensor], Tensor]:
    """Return a damage: a share of the frames exchanged with each other."""

    def damage(video: Tensor) -> Tensor:
        chosen = torch.randperm(FRAMES, generator=random_numbers(video))[: round(share * FRAMES)]
        order = torch.arange(FRAMES)
        order[chosen.sort().values] = chosen
        return video[:, order]

    return damage


def freeze(num_frames: int) -> Callable[[Tensor], Tensor]:
    """Return a damage: a picture stands still for a number of frames."""
    return lambda video: video[:, torch.arange(FRAMES) // num_frames * num_frames]


def random_numbers(video: Tensor) -> torch.Generator:
    """Return random numbers of a clip, the same for every strength of a damage."""
    return torch.Generator().manual_seed(int(video.long().sum()))


def as_bytes(video: Tensor) -> Tensor:
    """Round to bytes."""
    return video.round().clamp(0, 255).byte()


DAMAGES: list[tuple[str, str, Callable[[Tensor], Tensor]]] = [
    ("none", "", lambda video: video),
    *(("noise", f"{deviation} of 255", noise(deviation)) for deviation in (8, 16, 32, 64)),
    *(("blur", f"{pixels} pixels", blur(pixels)) for pixels in (3, 5, 9)),
    *(("flicker", f"{share:.0%}", flicker(share)) for share in (0.05, 0.1, 0.2)),
    *(("shuffled frames", f"{share:.0%}", shuffle(share)) for share in (0.25, 0.5, 1)),
    *(("frozen", f"{frames} frames", freeze(frames)) for frames in (2, 4, 8, 16)),
    ("reversed", "", lambda video: video.flip(1)),
]

if __name__ == "__main__":
    main()
