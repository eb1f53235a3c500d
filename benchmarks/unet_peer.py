"""A training step of the space-time U-Net against PyPI's ``video-diffusion-pytorch``: time, rate and peak memory.

Run with ``make bench``, or ``python -m benchmarks.unet_peer [8x32x32 8x64x64 16x64x64]``: frames, height, width. Both
networks have the same widths and do the same work to 5%, counted by PyTorch; ours has more weights for it, since it
attends over space at the coarsest level alone. Each runs forward and backward on the same clips, in turns in one
process; memory is measured in a process for each. The rate is that of the step over that of a matrix product measured
in the same turns. ``python -m benchmarks.unet_peer profile [SIZE ...]`` prints which operations take our step's time.
"""

import sys
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.figures import Figure, record
from benchmarks.peers import video_diffusion_pytorch
from benchmarks.side_by_side import (
    PRECISIONS,
    PRODUCT_FLOPS,
    Run,
    best_in_turns,
    flops,
    matrix_product,
    peak_in_own_process,
    print_product_rates,
    resident_mib,
)
from vdm.models.space_time_unet import SpaceTimeUNet
from vdm.types import Conditioning

NUM_ROUNDS = 3
KINDS = ("peer", "ours")
GOALS = {"fp32": (">= 5.3", ">= 0.75"), "bf16": (">= 6.5", ">= 0.6")}
"""Times as fast as the peer, and share of a product's rate."""
OPERATIONS = {
    "convolutions": ("aten::convolution_backward", "aten::mkldnn_convolution"),
    "matrix products": ("aten::mm", "aten::bmm", "aten::addmm", "aten::addmm_", "aten::baddbmm"),
    "copies and casts": ("aten::copy_", "aten::cat", "aten::fill_"),
    "softmax": ("aten::_softmax", "aten::_softmax_backward_data"),
    "normalization": (
        "aten::native_group_norm",
        "aten::native_layer_norm",
        "aten::native_layer_norm_backward",
        "aten::addcmul",
        "aten::addcmul_",
        "aten::silu_",
        "aten::silu_backward",
        "aten::mul_",
        "aten::sum",
        "_ConvolveNormalized",
        "_ConvolveNormalizedBackward",
    ),
}
"""What the profile calls the operations that take more than a percent of a step."""


SIZES = {"8x32x32": (8, 8, 32, 32), "8x64x64": (2, 8, 64, 64), "16x64x64": (2, 16, 64, 64)}
"""Clips: their number, frames, height and width."""
WIDTHS = (32, 64, 128, 256)
"""Channels of each level, of both networks."""


def build(kind: str) -> nn.Module:
    """Return one of the networks, with random weights."""
    torch.manual_seed(0)
    if kind == "peer":
        return video_diffusion_pytorch().Unet3D(WIDTHS[0], dim_mults=[width // WIDTHS[0] for width in WIDTHS])
    levels = range(len(WIDTHS))
    return SpaceTimeUNet(WIDTHS, attention_levels=levels[-1:], temporal_levels=levels, head_channels=WIDTHS[0])


class OnClips(Run):
    """One network on its clips."""

    def __init__(self, kind: str, size: str, precision: str) -> None:
        self.kind, self.network = kind, build(kind)
        self.autocast = precision == "bf16"
        batch, *clip = SIZES[size]
        self.xt = torch.randn(batch, 3, *clip, generator=torch.Generator().manual_seed(1))
        self.timestep = torch.full((batch,), 300)

    def forward(self) -> Tensor:
        """Return the prediction."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.autocast):
            if self.kind == "peer":
                return self.network(self.xt, self.timestep)
            return self.network(self.xt, self.timestep / 1000, Conditioning())


def compare_time(name: str, precision: str) -> None:
    """Measure time, work and rate of both networks."""
    runs = {kind: OnClips(kind, name, precision) for kind in KINDS}
    work = {kind: flops(run.step) / 1e9 for kind, run in runs.items()}
    weights = {kind: sum(weight.numel() for weight in run.network.parameters()) / 1e6 for kind, run in runs.items()}
    steps = {kind: run.step for kind, run in runs.items()}
    times = best_in_turns({**steps, "product": matrix_product(PRECISIONS[precision])}, NUM_ROUNDS)
    rate = PRODUCT_FLOPS / times["product"]
    shares = {kind: work[kind] * 1e9 / times[kind] / rate for kind in KINDS}
    case, goals = f"{name} {precision}", GOALS[precision]

    def compare(what: str, of: dict[str, float], **rest: Any) -> None:
        record(Figure("unet_peer", case, what, of["ours"], of["peer"], **rest))

    compare("weights, million", weights)
    compare("work of a step, GFLOP", work)
    compare("seconds a step", times, ratio=times["peer"] / times["ours"], goal=goals[0])
    compare("share of a product's rate", shares, ratio=shares["ours"], goal=goals[1])


def print_peak(kind: str, name: str, precision: str) -> None:
    """Print by how much the peak exceeds what was resident before there was a network."""
    torch.ones(64, 64) @ torch.ones(64, 64)
    before = resident_mib("VmRSS")
    OnClips(kind, name, precision).step()
    print(resident_mib("VmHWM") - before)


def compare_memory(name: str, precision: str) -> None:
    """Measure the peaks of both networks."""
    theirs, ours = (peak_in_own_process(__file__, kind, name, precision) for kind in KINDS)
    ratio = ours / theirs
    record(Figure("unet_peer", f"{name} {precision}", "peak of a step, MiB", ours, theirs, ratio, "<= 0.5"))


def print_profile(name: str) -> None:
    """Print which operations take our step's time, as shares of it."""
    for precision in PRECISIONS:
        run = OnClips("ours", name, precision)
        run.step()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
            run.step()
        found = {each.key: each.self_cpu_time_total for each in profiler.key_averages()}
        total = sum(found.values())
        shares: dict[str, float] = {}
        for operation, time in found.items():
            kind = next((kind for kind, names in OPERATIONS.items() if operation in names), "all else")
            shares[kind] = shares.get(kind, 0.0) + time / total
        for kind, share in sorted(shares.items(), key=lambda item: -item[1]):
            record(Figure("unet_profile", f"{name} {precision}", f"{kind}, share of a step", share))


def main() -> None:
    """Measure the sizes that were asked for."""
    if sys.argv[1:2] == ["peak"]:
        print_peak(*sys.argv[2:])
        return
    if sys.argv[1:2] == ["profile"]:
        for name in sys.argv[2:] or SIZES:
            print_profile(name)
        return
    print_product_rates()
    for name in sys.argv[1:] or SIZES:
        for precision in PRECISIONS:
            compare_time(name, precision)
            compare_memory(name, precision)


if __name__ == "__main__":
    main()
