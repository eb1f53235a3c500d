"""How time and memory of a training step grow with frames, pixels, clips and weights of the space-time U-Net.

    python -m benchmarks.growth [--picture FILE]

One of the four grows at a time, from a clip of 8x32x32 on. Each figure is fitted by a power of what grows, over the
upper half of its range, where what a step costs by itself no longer counts: an exponent of 1 is growth in proportion.
Memory is what a step takes beside weights and gradients, in a process of its own.
"""

import argparse
import math
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.figures import Figure, record
from benchmarks.side_by_side import Run, best_in_turns, peak_in_own_process, resident_mib
from vdm.models.space_time_unet import SpaceTimeUNet
from vdm.types import Conditioning

NUM_ROUNDS = 3


@dataclass(frozen=True)
class Size:
    """Clips and a network, whose level widths are ``width``, twice and four times as much."""

    clips: int = 1
    frames: int = 8
    side: int = 32
    width: int = 64


START = Size()
AXES = {
    "frames": [replace(START, frames=frames) for frames in (8, 16, 32, 64)],
    "clips": [replace(START, clips=clips) for clips in (1, 2, 4, 8)],
    "pixels": [replace(START, side=side) for side in (32, 48, 64, 96)],
    "pixels, no spatial attention": [replace(START, side=side) for side in (32, 48, 64, 96)],
    "weights": [replace(START, width=width) for width in (32, 64, 96, 128)],
}


class OnClips(Run):
    """The network on clips of noise."""

    def __init__(self, size: Size, attention: bool) -> None:
        torch.manual_seed(0)
        channels = (size.width, 2 * size.width, 4 * size.width)
        levels = [2] if attention else []
        self.network = SpaceTimeUNet(channels, attention_levels=levels, temporal_levels=[0, 1, 2], head_channels=32)
        self.xt = torch.randn(size.clips, 3, size.frames, size.side, size.side)

    def forward(self) -> Tensor:
        """Return the prediction."""
        return self.network(self.xt, torch.full((len(self.xt),), 0.3), Conditioning())


def amount(axis: str, size: Size) -> float:
    """Return what grows: frames, clips, pixels of a frame, or weights of a network."""
    if axis == "weights":
        with torch.device("meta"):
            return sum(weight.numel() for weight in OnClips(size, True).network.parameters())
    return {"frames": size.frames, "clips": size.clips}.get(axis, size.side**2)


def exponent(amounts: Sequence[float], values: Sequence[float]) -> float:
    """Return the power that fits the upper half of the range, by least squares of logarithms."""
    x, y = ([math.log(value) for value in each[len(each) // 2 - 1 :]] for each in (amounts, values))
    return statistics.linear_regression(x, y).slope


def peak(size: Size, attention: bool) -> float:
    """Return the MiB that a step takes beside weights and gradients, in a process of its own."""
    arguments = (str(each) for each in (size.clips, size.frames, size.side, size.width, int(attention)))
    return peak_in_own_process(__file__, *arguments)


def print_peak(*arguments: str) -> None:
    """Print the peak of a step above weights and gradients."""
    *size, attention = map(int, arguments)
    run = OnClips(Size(*size), bool(attention))
    OnClips(replace(Size(*size), frames=1, side=8, clips=1), bool(attention)).step()  # loads libraries
    before = resident_mib("VmRSS")
    run.step()
    print(resident_mib("VmHWM") - before - sum(weight.nbytes for weight in run.network.parameters()) / 2**20)


def draw(file: Path, found: dict[str, tuple[list[float], list[float], list[float]]]) -> None:
    """Draw time and memory over what grows, both relative to the smallest size."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
    for axis, (amounts, *values) in found.items():
        for panel, each in zip(panels, values, strict=True):
            relative = [value / each[0] for value in each]
            panel.plot(
                [x / amounts[0] for x in amounts], relative, marker="o", label=f"{axis}: {exponent(amounts, each):.2f}"
            )
    for panel, title in zip(panels, ("time of a step", "memory of a step, but for weights"), strict=True):
        panel.set(xscale="log", yscale="log", xlabel="growth of frames, clips, pixels or weights", title=title)
        panel.legend(title="exponent")
        panel.grid(alpha=0.3)
    figure.savefig(file, dpi=110)


def main() -> None:
    """Measure all axes; fit and draw them."""
    if sys.argv[1:2] == ["peak"]:
        print_peak(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--picture", type=Path)
    picture = parser.parse_args().picture
    found = {}
    for axis, sizes in AXES.items():
        attention = "no spatial" not in axis
        runs = {str(number): OnClips(size, attention) for number, size in enumerate(sizes)}
        times = list(best_in_turns({name: run.step for name, run in runs.items()}, NUM_ROUNDS).values())
        del runs
        amounts, peaks = [amount(axis, size) for size in sizes], [peak(size, attention) for size in sizes]
        found[axis] = amounts, times, peaks
        goal = "" if axis in ("weights", "pixels") else "<= 1.1"
        for what, values in (("time", times), ("memory", peaks)):
            record(Figure("growth", axis, f"exponent of {what}", exponent(amounts, values), goal=goal))
        print("  ".join(f"{x:.0f}: {s:.3f} s {mib:.0f} MiB" for x, s, mib in zip(amounts, times, peaks, strict=True)))
    if picture:
        draw(picture, found)


if __name__ == "__main__":
    main()
