"""Our network of Stable Video Diffusion against diffusers': a training step and a forward pass, their time and memory.

Both have the same weights and inputs and run in turns in one process; memory is measured in a process for each. Run
with ``make bench``, or ``python benchmarks/svd.py [small|base|full_forward ...]``: ``small`` (20 M parameters) and
``base`` (69 M) train; ``full_forward`` runs the published size (1.5 G parameters) forward, which takes some 8 GB. The
processor decides what bfloat16 is worth: the rate of a matrix product in both precisions is printed first.
"""

import sys
from dataclasses import dataclass

import torch
from diffusers import UNetSpatioTemporalConditionModel
from diffusers.utils import logging
from torch import Tensor, nn

from benchmarks.figures import Figure, record
from benchmarks.side_by_side import (
    PRECISIONS,
    Run,
    best_in_turns,
    peak_in_own_process,
    print_product_rates,
    resident_mib,
)
from vdm.models.svd.unet import ADDED_TIME_IDS, SVDUNet
from vdm.training.block_options import BlockOptions
from vdm.types import Conditioning

NUM_ROUNDS = 3
KINDS = ("diffusers", "ours")
GOALS = {"fp32": ">= 1.3", "bf16": ">= 1.8"}
"""Times as fast as diffusers."""


@dataclass(frozen=True)
class Size:
    """A network, with attention at every level but the last, and a clip of latents (frames, height, width)."""

    channels: tuple[int, ...]
    num_heads: tuple[int, ...]
    clip: tuple[int, int, int]
    context_channels: int = 1024


SIZES = {
    "small": Size((64, 128, 128), (2, 4, 4), (14, 16, 16)),
    "base": Size((128, 256, 256), (4, 8, 8), (14, 32, 32)),
    "full_forward": Size((320, 640, 1280, 1280), (5, 10, 20, 20), (2, 16, 16)),
}


def build(kind: str, size: Size) -> nn.Module:
    """Return one of the networks, with the weights that PyTorch draws for it."""
    torch.manual_seed(0)
    levels = len(size.channels)
    if kind == "ours":
        return SVDUNet(
            size.channels,
            num_heads=size.num_heads,
            context_channels=size.context_channels,
            attention_levels=range(levels - 1),
        )
    attends, plain = "CrossAttn{}BlockSpatioTemporal", "{}BlockSpatioTemporal"
    return UNetSpatioTemporalConditionModel(
        down_block_types=tuple(name.format("Down") for name in (*[attends] * (levels - 1), plain)),
        up_block_types=tuple(name.format("Up") for name in (plain, *[attends] * (levels - 1))),
        block_out_channels=size.channels,
        num_attention_heads=size.num_heads,
        cross_attention_dim=size.context_channels,
    )


class OnClip(Run):
    """One network on one clip."""

    def __init__(self, kind: str, size: Size, network: nn.Module, precision: str) -> None:
        self.kind, self.network = kind, network
        self.autocast = precision == "bf16"
        random = torch.Generator().manual_seed(1)
        self.xt, self.image = (torch.randn(1, 4, *size.clip, generator=random) for _ in range(2))
        self.token = torch.randn(1, 1, size.context_channels, generator=random)
        self.c_noise, self.ids = torch.tensor([0.3]), torch.tensor([[6.0, 127.0, 0.02]])

    def forward(self) -> Tensor:
        """Return the prediction, in our layout."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.autocast):
            if self.kind == "ours":
                condition = Conditioning(text=self.token, image=self.image, extra={ADDED_TIME_IDS: self.ids})
                return self.network(self.xt, self.c_noise, condition)
            sample = torch.cat([self.xt, self.image], dim=1).transpose(1, 2)
            return self.network(sample, self.c_noise, self.token, self.ids).sample.transpose(1, 2)


def compare_time(name: str, precision: str) -> None:
    """Print the times of both networks, and their ratios."""
    size = SIZES[name]
    networks = {kind: build(kind, size) for kind in KINDS}
    networks["ours"].load_state_dict(networks["diffusers"].state_dict())
    runs = {kind: OnClip(kind, size, network, precision) for kind, network in networks.items()}
    difference = (runs["ours"].forward_alone().float() - runs["diffusers"].forward_alone().float()).abs().max()
    for what in ("step", "forward_alone"):
        best = best_in_turns({kind: getattr(run, what) for kind, run in runs.items()}, NUM_ROUNDS)
        theirs, ours = (best[kind] for kind in KINDS)
        goal = GOALS[precision] if what == "step" else ""
        record(Figure("svd", f"{name} {precision}", f"seconds, {what}", ours, theirs, theirs / ours, goal))
    print(f"{name} {precision} outputs differ by at most {difference:.1e}", flush=True)


def print_peak(kind: str, name: str, precision: str, what: str) -> None:
    """Print by how much the peak exceeds what was resident before there was a network."""
    torch.ones(64, 64) @ torch.ones(64, 64)
    before = resident_mib("VmRSS")
    network = build(kind, SIZES[name])
    if what == "recomputed":
        BlockOptions(recompute="all").apply(network)
    run = OnClip(kind, SIZES[name], network, precision)
    run.forward_alone() if what == "forward_alone" else run.step()
    print(resident_mib("VmHWM") - before)


def compare_memory(name: str, precision: str) -> None:
    """Print the peaks of both networks, and their ratios."""
    for what in ("step", "forward_alone"):
        theirs, ours = (peak_in_own_process(__file__, kind, name, precision, what) for kind in KINDS)
        case, goal = f"{name} {precision}", "<= 0.6" if what == "step" else ""
        record(Figure("svd", case, f"peak, MiB, {what}", ours, theirs, ours / theirs, goal))
        if what == "step":
            lean = peak_in_own_process(__file__, "ours", name, precision, "recomputed")
            record(Figure("svd", f"{case} recomputed", f"peak, MiB, {what}", lean, theirs, lean / theirs))


def full_forward() -> None:
    """Print how far both networks are, at the published size, from what diffusers' gives in float32."""
    size, outputs = SIZES["full_forward"], {}
    for precision, dtype in PRECISIONS.items():
        torch.set_default_dtype(dtype)
        for kind in KINDS:
            network = build(kind, size)
            fill(network)
            run = OnClip(kind, size, network, precision)
            run.xt, run.image, run.token = (x.to(dtype) for x in (run.xt, run.image, run.token))
            outputs[kind, precision] = run.forward_alone().float()
            number = sum(p.numel() for p in network.parameters())
            difference = (outputs[kind, precision] - outputs["diffusers", "fp32"]).norm()
            relative = difference / outputs["diffusers", "fp32"].norm()
            print(f"{kind:9} {precision}, {number:,} parameters: relative difference {relative:.1e}", flush=True)
            del network, run


@torch.no_grad()
def fill(network: nn.Module) -> None:
    """Give the weights values that depend on nothing but their names, and keep signals at about unit variance."""
    for index, (name, parameter) in enumerate(sorted(network.named_parameters())):
        if parameter.ndim > 1:
            random = torch.Generator().manual_seed(index)
            values = torch.randn(parameter.shape, generator=random, dtype=torch.float32)
            parameter.copy_(values * parameter[0].numel() ** -0.5)
        else:
            parameter.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.1)


def main() -> None:
    """Print the figures of the sizes that were asked for."""
    logging.set_verbosity_error()
    if sys.argv[1:2] == ["peak"]:
        print_peak(*sys.argv[2:])
        return
    print_product_rates()
    for name in sys.argv[1:] or ["small", "base"]:
        if name == "full_forward":
            full_forward()
            continue
        for precision in PRECISIONS:
            compare_time(name, precision)
        for precision in PRECISIONS:
            compare_memory(name, precision)


if __name__ == "__main__":
    main()
