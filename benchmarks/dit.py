"""Our space-time transformer against diffusers' of the same weights: time and memory of a training step, and forward.

Run with ``make bench``, or ``python benchmarks/dit.py [small|wide|long ...]``. ``small`` has 31 M parameters, ``wide``
two blocks of the width of Wan 2.1 1.3B, ``long`` one of them and a clip of many tokens. Both run in turns in one
process; memory is measured in a process for each. ``recomputed`` is ours with ``blocks.recompute=all``.
"""

import sys
from dataclasses import dataclass

import torch
from diffusers import WanTransformer3DModel
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
from vdm.models.dit.transformer import SpaceTimeTransformer
from vdm.training.block_options import BlockOptions
from vdm.types import Conditioning

NUM_ROUNDS = 3
KINDS = ("diffusers", "ours", "recomputed")
GOALS = {"fp32": ">= 1.15", "bf16": ">= 1.3"}
"""Times as fast as diffusers."""
HEAD_CHANNELS = 128
TEXT_TOKENS, TEXT_CHANNELS = 512, 4096


@dataclass(frozen=True)
class Size:
    """A network, and a clip of latents (frames, height, width)."""

    num_layers: int
    num_heads: int
    hidden_channels: int
    clip: tuple[int, int, int]


SIZES = {
    "small": Size(6, 4, 2048, (5, 30, 52)),
    "wide": Size(2, 12, 8960, (5, 30, 52)),
    "long": Size(1, 12, 8960, (21, 30, 52)),
}


def build(kind: str, size: Size) -> nn.Module:
    """Return one of the networks, with weights that depend only on their names and sizes."""
    if kind == "diffusers":
        network: nn.Module = WanTransformer3DModel(
            num_layers=size.num_layers,
            num_attention_heads=size.num_heads,
            attention_head_dim=HEAD_CHANNELS,
            ffn_dim=size.hidden_channels,
            text_dim=TEXT_CHANNELS,
        )
    else:
        network = SpaceTimeTransformer(
            size.num_layers,
            size.num_heads,
            HEAD_CHANNELS,
            size.hidden_channels,
            text_channels=TEXT_CHANNELS,
            num_text_tokens=TEXT_TOKENS,
        )
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in sorted(network.named_parameters()):
            if weight.ndim > 1:
                weight.normal_(std=weight[0].numel() ** -0.5, generator=random)
            else:
                weight.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.1)
    if kind == "recomputed":
        BlockOptions(recompute="all").apply(network)
    return network


class OnClip(Run):
    """One network on one clip."""

    def __init__(self, kind: str, size: Size, precision: str) -> None:
        self.kind, self.network = kind, build(kind, size)
        self.autocast = precision == "bf16"
        random = torch.Generator().manual_seed(1)
        self.xt = torch.randn(1, 16, *size.clip, generator=random)
        self.text = torch.randn(1, TEXT_TOKENS, TEXT_CHANNELS, generator=random)
        self.c_noise = torch.tensor([700.0])

    def forward(self) -> Tensor:
        """Return the prediction."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.autocast):
            if self.kind == "diffusers":
                return self.network(self.xt, self.c_noise, self.text, return_dict=False)[0]
            return self.network(self.xt, self.c_noise, Conditioning(text=self.text))


def compare_time(name: str, precision: str) -> None:
    """Print the times of the networks, and how many times as long diffusers' takes."""
    runs = {kind: OnClip(kind, SIZES[name], precision) for kind in KINDS}
    outputs = {kind: run.forward_alone().float() for kind, run in runs.items()}
    difference = (outputs["ours"] - outputs["diffusers"]).norm() / outputs["diffusers"].norm()
    steps = best_in_turns({kind: run.step for kind, run in runs.items()}, NUM_ROUNDS)
    forward = best_in_turns({kind: runs[kind].forward_alone for kind in KINDS[:2]}, NUM_ROUNDS)
    for what, times in (("step", steps), ("forward alone", forward)):
        for kind in KINDS[1:]:
            if kind in times:
                case, goal = (
                    case_of(kind, name, precision),
                    GOALS[precision] if (kind, what) == ("ours", "step") else "",
                )
                theirs, ours = times["diffusers"], times[kind]
                record(Figure("dit", case, f"seconds, {what}", ours, theirs, theirs / ours, goal))
    print(f"{name} {precision} outputs differ by {difference:.1e} of their norm", flush=True)


def case_of(kind: str, name: str, precision: str) -> str:
    """Return the name of a case."""
    return f"{name} {precision}" + (" recomputed" if kind == "recomputed" else "")


def print_peak(kind: str, name: str, precision: str, what: str) -> None:
    """Print by how much the peak exceeds the memory of weights, or what weights and their gradients alone take."""
    torch.ones(64, 64) @ torch.ones(64, 64)
    before = resident_mib("VmRSS")
    run = OnClip(kind, SIZES[name], precision)
    if what == "step":
        run.step()
        print(resident_mib("VmHWM") - before)
        return
    print(2 * sum(weight.numel() for weight in run.network.parameters()) * 4 / 2**20)


def compare_memory(name: str, precision: str) -> None:
    """Print the peaks of the networks, with weights and gradients, and what is left of activations."""
    peaks = {kind: peak_in_own_process(__file__, kind, name, precision, "step") for kind in KINDS}
    for kind in KINDS[1:]:
        theirs, ours = peaks["diffusers"], peaks[kind]
        record(Figure("dit", case_of(kind, name, precision), "peak, MiB, step", ours, theirs, ours / theirs))
    weights = peak_in_own_process(__file__, "ours", name, precision, "weights")
    ours, lean = (peaks[kind] - weights for kind in KINDS[1:])
    saved = f"{1 - lean / ours:.0%} of what is not weights and gradients"
    print(f"{name} {precision} recomputation saves {saved}", flush=True)


def main() -> None:
    """Print the figures of the sizes that were asked for."""
    logging.set_verbosity_error()
    if sys.argv[1:2] == ["peak"]:
        print_peak(*sys.argv[2:])
        return
    print_product_rates()
    for name in sys.argv[1:] or ["small", "wide"]:
        for precision in PRECISIONS:
            compare_time(name, precision)
            compare_memory(name, precision)


if __name__ == "__main__":
    main()
