"""How Fréchet-TransNet grows as real videos get worse, and what it does not see.

Each video is cut into an earlier and a later part, and a clip is left out between them. For a split, a coin decides for
each video which of its parts belongs to the reference; the clips of the other parts are damaged, ever more, and
compared with the reference. So no frame is on both sides, but the scenes are the same, as for a model that has learnt
them well. Within a split only the damage differs from one distance to the next. The same splits serve all damages.

    VDM_VIDEOS=FOLDER python benchmarks/frechet_transnet.py
    VDM_VIDEOS=FOLDER python benchmarks/frechet_transnet.py --picture docs/frechet_transnet.png

About twenty minutes on one core.
"""

import argparse
import io
import os
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import av
import matplotlib
import numpy as np
import torch
from av.bitstream import BitStreamFilterContext
from einops import rearrange
from matplotlib import pyplot as plt
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from vdm.evaluation.base import EvaluatedClip, Features
from vdm.evaluation.extractors.transnet import TransNet
from vdm.evaluation.statistics.frechet import FrechetDistance

FRAMES, EVERY, SIZE = 16, 8, 64
"""Frames of a clip; frames from the start of one to that of the next; height and width."""
SPLITS = 20
TICKS = (0.2, 0.5, 1, 2, 4)
"""Of the picture."""


@dataclass(frozen=True)
class Damage:
    """What is done to clips."""

    name: str
    strength: object
    """Its text is what the table says, once the clips are damaged."""
    apply: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Part:
    """The clips of the earlier or the later part of a video."""

    clips: list[EvaluatedClip]


def main() -> None:
    """Print a table, and draw it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--picture", type=Path, help="PNG file to draw")
    arguments = parser.parse_args()
    videos = os.environ.get("VDM_VIDEOS")
    if videos is None:
        print("not measured: VDM_VIDEOS names no folder of videos")
        return
    parts = list(read_parts(Path(videos)))
    num_clips = sum(len(part.clips) for part in parts) // 2
    print(f"{num_clips} clips of {FRAMES} frames against {num_clips}, from {len(parts) // 2} videos, {SPLITS} splits\n")
    extractor = TransNet()
    described = [described_parts(extractor, parts, damage) for damage in tqdm(DAMAGES, unit="damage")]
    rows = [distances(described[0], damaged) for damaged in described]
    print("| damage | strength | Fréchet-TransNet | times that of no damage |\n| --- | --- | --- | --- |")
    for damage, row in zip(DAMAGES, rows, strict=True):
        print(table_row(damage, row, rows[0]))
    if arguments.picture is not None:
        draw(rows, arguments.picture)


def described_parts(extractor: TransNet, parts: Sequence[Part], damage: Damage) -> list[Features]:
    """Return the features of the damaged clips of each part."""
    clips = [replace(clip, video=damage.apply(clip.video)) for part in parts for clip in part.clips]
    return list(extractor.describe(clips).split([len(part.clips) for part in parts]))


def read_parts(folder: Path) -> Iterator[Part]:
    """Yield the earlier and the later part of each video, which have equally many clips."""
    paths = [path for path in sorted(folder.iterdir()) if path.suffix in (".mp4", ".mkv")]
    for path in paths:
        with av.open(str(path)) as container:
            frames = [
                torch.from_numpy(frame.to_ndarray(format="rgb24", width=SIZE, height=SIZE, interpolation="AREA"))
                for frame in container.decode(video=0)
            ]
        video = rearrange(torch.stack(frames), "t h w c -> c t h w")
        length = (len(frames) - FRAMES) // 2
        for start in (0, len(frames) - length):
            starts = range(start, start + length - FRAMES + 1, EVERY)
            yield Part([EvaluatedClip(video[:, first : first + FRAMES], f"{path.name} {first}") for first in starts])


def distances(real: Sequence[Features], damaged: Sequence[Features]) -> list[float]:
    """Return the distance of the damaged clips from the reference in each split.

    Args:
        real: Features of the clips of each part: the earlier and the later one of the first video, and so on.
        damaged: Those of the same clips, damaged.
    """
    found = []
    for split in range(SPLITS):
        coins = torch.randint(2, (len(real) // 2,), generator=torch.Generator().manual_seed(split)).tolist()
        reference = torch.cat([real[2 * number + coin] for number, coin in enumerate(coins)])
        others = torch.cat([damaged[2 * number + 1 - coin] for number, coin in enumerate(coins)])
        found.append(FrechetDistance().value(others, reference))
    return found


def table_row(damage: Damage, found: Sequence[float], undamaged: Sequence[float]) -> str:
    """Return the means over splits, and the ranges in which nine of ten splits lie."""
    ratios = [one / other for one, other in zip(found, undamaged, strict=True)]
    cells = [f"{statistics.mean(of):.2f} ({low(of):.2f} to {high(of):.2f})" for of in (found, ratios)]
    return f"| {damage.name} | {damage.strength} | {cells[0]} | {cells[1]} |"


def low(values: Sequence[float]) -> float:
    """Return what 5% of the values lie below."""
    return float(np.quantile(values, 0.05))


def high(values: Sequence[float]) -> float:
    """Return what 95% of the values lie below."""
    return float(np.quantile(values, 0.95))


def draw(rows: Sequence[Sequence[float]], path: Path) -> None:
    """Draw the distances of each damage, from weak to strong: means over splits, and the range of nine of ten."""
    matplotlib.use("agg")
    found = list(zip(DAMAGES, rows, strict=True))
    groups = [(name, list(group)) for name, group in groupby(found[1:], lambda one: one[0].name)]
    figure, axes = plt.subplots(2, 4, figsize=(10, 5), sharey=True, layout="constrained")
    for axis, (name, group) in zip(axes.flat, groups, strict=True):
        places = range(len(group))
        means = [statistics.mean(row) for _, row in group]
        reach = [[mean - low(row), high(row) - mean] for mean, (_, row) in zip(means, group, strict=True)]
        axis.axhspan(low(rows[0]), high(rows[0]), color="0.85", label="no damage")
        axis.errorbar(places, means, np.transpose(reach), marker="o", capsize=3)
        axis.set(title=name, yscale="log", xlim=(-0.5, len(group) - 0.5))
        axis.set_yticks(TICKS, map(str, TICKS))
        axis.minorticks_off()
        axis.set_xticks(places, [str(damage.strength).replace(", ", "\n") for damage, _ in group], fontsize=7)
    for axis in axes[:, 0]:
        axis.set_ylabel("Fréchet-TransNet")
    axes[0, 0].legend(loc="upper left")
    figure.savefig(path, dpi=80)


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


def shuffle(num_frames: int) -> Callable[[Tensor], Tensor]:
    """Return a damage: groups of successive frames, each in random order."""

    def damage(video: Tensor) -> Tensor:
        generator = random_numbers(video)
        orders = [first + torch.randperm(num_frames, generator=generator) for first in range(0, FRAMES, num_frames)]
        return video[:, torch.cat(orders)]

    return damage


def freeze(num_moving: int) -> Callable[[Tensor], Tensor]:
    """Return a damage: the video stands still after a number of frames."""
    return lambda video: video[:, torch.arange(FRAMES).clamp(max=num_moving - 1)]


def hold(num_frames: int) -> Callable[[Tensor], Tensor]:
    """Return a damage: each picture stays for a number of frames."""
    return lambda video: video[:, torch.arange(FRAMES) // num_frames * num_frames]


class Compressed:
    """A damage: compression by H.264.

    Args:
        crf: Constant rate factor of x264, 0 to 51.
    """

    FPS = 25

    def __init__(self, crf: int) -> None:
        self.crf, self.num_bytes, self.num_clips = crf, 0, 0

    def __str__(self) -> str:
        rate = 8 * self.num_bytes * self.FPS / FRAMES / max(1, self.num_clips)
        return f"crf {self.crf}, {rate / 1000:.0f} kbit/s"

    def __call__(self, video: Tensor) -> Tensor:
        """Encode a clip in memory, and decode it."""
        file = io.BytesIO()
        with av.open(file, "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=self.FPS, options={"crf": str(self.crf), "threads": "1"})
            stream.width, stream.height, stream.pix_fmt = SIZE, SIZE, "yuv420p"
            for picture in rearrange(video, "c t h w -> t h w c").contiguous().numpy():
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())
        file.seek(0)
        with av.open(file) as container:
            stream = container.streams.video[0]
            without_notes = BitStreamFilterContext("filter_units=remove_types=6", stream)
            packets = list(container.demux(stream))
            frames = [frame for packet in packets for frame in stream.decode(packet)]
            self.num_bytes += sum(part.size for packet in packets for part in without_notes.filter(packet))
        self.num_clips += 1
        pictures = [torch.from_numpy(frame.to_ndarray(format="rgb24")) for frame in frames]
        return rearrange(torch.stack(pictures), "t h w c -> c t h w")


def random_numbers(video: Tensor) -> torch.Generator:
    """Return random numbers of a clip, the same for every strength of a damage."""
    return torch.Generator().manual_seed(int(video.long().sum()))


def as_bytes(video: Tensor) -> Tensor:
    """Round to bytes."""
    return video.round().clamp(0, 255).byte()


DAMAGES: list[Damage] = [
    Damage("none", "", lambda video: video),
    *(Damage("noise", f"{deviation} of 255", noise(deviation)) for deviation in (8, 16, 32)),
    *(Damage("blur", f"{pixels} pixels", blur(pixels)) for pixels in (3, 5, 9)),
    *(Damage("frozen", f"after {frames} of {FRAMES}", freeze(frames)) for frames in (8, 4, 1)),
    *(Damage("shuffled in groups", f"of {frames}", shuffle(frames)) for frames in (4, 8, 16)),
    *(Damage("compressed", one, one) for one in map(Compressed, (27, 35, 43, 51))),
    *(Damage("flicker", f"{share:.0%}", flicker(share)) for share in (0.05, 0.1)),
    *(Damage("frames held", f"for {frames}", hold(frames)) for frames in (2, 8)),
    Damage("reversed", "", lambda video: video.flip(1)),
]

if __name__ == "__main__":
    main()
