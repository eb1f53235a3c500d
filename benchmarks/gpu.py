"""Training steps on a GPU: time, rate over the device's peak, and memory beside what ``vdm plan`` foretells.

Run with ``make bench-gpu``, or ``python benchmarks/gpu.py [--cases svd] [--modes plain compiled]``. ``svd`` is Stable
Video Diffusion's network at its published size, with random weights, on latents of 14 frames of 576x1024 pixels; no
autoencoder and no image encoder runs. Both train in bf16-mixed with AdamW and clipped gradients. Where more does not
fit into the device's memory by plan, clips have fewer frames, and a line says so.

The rate counts the operations of a step without recomputation, so that modes compare by it as they do by time. It is
given over that of a matrix product in the same run and over the data sheet's. Plans know nothing of compiling.

``--device cpu --tiny`` runs the same on small networks, to try the script itself.

Longer than other files: a script to run alone, in which cases, measurement and table are read together.
"""

import argparse
import gc
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from jaxtyping import Float, UInt8
from omegaconf import OmegaConf
from torch import Tensor

from vdm.assembly.build_model import build_model
from vdm.cli.run_folder import register_run_folder
from vdm.config import build
from vdm.config.conf_dir import conf_dir
from vdm.models.autoencoder import Picture
from vdm.training.planning.sharding import memory_of, single
from vdm.training.planning.step import Clips, StepMeasure, measure_step
from vdm.types import ClipSize

DATA_SHEETS = {
    ("H100", "PCIe"): 756,
    ("H100", "NVL"): 835,
    ("H100",): 989,
    ("H200",): 989,
    ("B200",): 2250,
    ("A100",): 312,
    ("L40S",): 362,
    ("RTX", "4090"): 165,
}
"""TFLOP/s of dense bf16 products with sums in fp32, by words of the device's name; the first that fits counts."""
RESERVE = 2 * 2**30
"""Bytes of memory that a plan leaves free, as ``reserve_gib`` of ``vdm plan``."""
MODES = {
    "plain": (),
    "recomputed": ("blocks.recompute=all",),
    "compiled": ("blocks.compile=true",),
    "compiled, recomputed": ("blocks.compile=true", "blocks.recompute=all"),
}
CAPTION = "a caption of usual length, of what there is to be seen in a clip"
_GIB = 2**30


class CachedLatents:
    """An autoencoder whose latents are there already: 4 channels of 8x8 pixels each."""

    channels = 4

    def encode(self, video: UInt8[Tensor, "b c t h w"]) -> Float[Tensor, "b d t h2 w2"]:
        """Return latents of the size that the clip's would have."""
        b, _, t, height, width = video.shape
        return torch.zeros(b, self.channels, t, *self.latent_size(height, width), device=video.device)

    def image_latents(self, pictures: Picture) -> Float[Tensor, "b d h2 w2"]:
        """Return latents of the size that the pictures' would have."""
        return self.encode(pictures[:, :, None].byte())[:, :, 0]

    def latent_size(self, height: int, width: int) -> tuple[int, int]:
        """Return an eighth of each."""
        return height // 8, width // 8


class CachedToken:
    """An image encoder whose embeddings are there already."""

    def __init__(self, channels: int) -> None:
        self.channels = channels

    def __call__(self, pictures: Picture) -> Float[Tensor, "b e"]:
        """Return embeddings of the width that the pictures' would have."""
        return torch.zeros(len(pictures), self.channels, device=pictures.device)


@dataclass(frozen=True)
class Case:
    """A network and what it trains on.

    Args:
        overrides: Of conf/train.yaml.
        size: Clips in pixels.
        number: Clips in a batch.
        encoder: Between pixels and latents, if it is not that of the overrides.
        token_channels: Width of the image's token, of networks that have one.
    """

    overrides: tuple[str, ...]
    size: ClipSize
    number: int
    encoder: type | None = None
    token_channels: int | None = None

    def config(self, *overrides: str) -> dict[str, Any]:
        """Return the whole configuration of a training run."""
        common = ("data.path=none", "trainer.precision=bf16-mixed", "logger=csv")
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            composed = compose("train", [*common, *self.overrides, *overrides])
        if self.encoder is not None:
            OmegaConf.update(composed, "encoder", {"_target_": _name_of(self.encoder)}, merge=False)
        if self.token_channels is not None:
            node = {"_target_": _name_of(CachedToken), "channels": self.token_channels}
            OmegaConf.update(composed, "model.conditioner.image_encoder", node, merge=False)
        plain: Any = OmegaConf.to_container(composed, resolve=True)
        return plain

    def clips(self, frames: int) -> Clips:
        """Return a batch of clips with so many of the frames."""
        return Clips(self.number, replace(self.size, num_frames=frames), latents=True, caption=CAPTION)


SVD = ("text_encoder=none", "diffusion=svd", "sampler=svd", "guidance=linear_over_frames")
CASES = {
    "unet_base": Case(("model=unet_base",), ClipSize(16, 64, 64), 8),
    "svd": Case(("model=svd", *SVD), ClipSize(14, 576, 1024), 1, CachedLatents, 1024),
}
_FEW_BLOCKS = (
    "model.network.channels=[16]",
    "model.network.attention_levels=[]",
    "model.network.temporal_levels=[0]",
    "model.network.head_channels=8",
)
"""Compiling takes a second for each of their layers on a CPU."""
TINY_CASES = {
    "unet_base": Case(_FEW_BLOCKS, ClipSize(4, 16, 16), 2),
    "svd": Case(("model=svd_tiny", *SVD), ClipSize(4, 64, 64), 1, CachedLatents, 192),
}


@dataclass(frozen=True)
class Row:
    """What was found for a network in one mode; figures are ``None`` where it ran out of memory or can't be told."""

    case: str
    mode: str
    clips: int
    frames: int
    height: int
    width: int
    work: int
    """Operations of a step, without those that recomputation adds."""
    planned_bytes: int
    peak_bytes: int | None
    seconds: tuple[float, float, float] | None
    """Quartiles of the time of a step."""

    @property
    def rate(self) -> float | None:
        """Operations a second of the median step."""
        return None if self.seconds is None else self.work / self.seconds[1]


class TrainingStep:
    """A network on a device, with its optimizer and a batch; calling it makes a step."""

    def __init__(self, config: dict[str, Any], clips: Clips, device: torch.device) -> None:
        torch.manual_seed(0)
        self.model = build_model(config, on=device)
        self.model.to(device)
        for key in ("tune", "blocks"):
            build(config[key], key).apply(self.model)
        self.weights = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer: torch.optim.Optimizer = build(config["optimizer"], "optimizer")(self.weights)
        height, width = self.model.encoder.latent_size(clips.size.height, clips.size.width)
        shape = (clips.number, self.model.encoder.channels, clips.size.num_frames, height, width)
        self.x0, self.noise = torch.randn(2, *shape, device=device)
        self.t = torch.rand(clips.number, device=device)
        frame = torch.zeros(clips.number, 3, clips.size.height, clips.size.width, dtype=torch.uint8)
        image = frame if "image" in self.model.conditioner.takes else None
        self.prompts = self.model.prompts([clips.caption] * clips.number, image=image)
        self.device = device

    def __call__(self) -> None:
        """Train on the batch."""
        with torch.autocast(self.device.type, torch.bfloat16):
            loss = self.model.denoising_loss(self.x0, self.noise, self.t, self.prompts).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.weights, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()


def times(function: Callable[[], object], device: torch.device, warm_up: int, number: int) -> list[float]:
    """Return the seconds of so many calls, after others that are not counted; on a GPU by its own clock."""
    for _ in range(warm_up):
        function()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        marks = [torch.cuda.Event(enable_timing=True) for _ in range(number + 1)]
        marks[0].record()
        for mark in marks[1:]:
            function()
            mark.record()
        torch.cuda.synchronize(device)
        return [start.elapsed_time(end) / 1000 for start, end in pairwise(marks)]
    ends = [time.perf_counter()]
    for _ in range(number):
        function()
        ends.append(time.perf_counter())
    return [end - start for start, end in pairwise(ends)]


def product_rate(device: torch.device, size: int) -> float:
    """Return the operations a second of a product of two square matrices in bf16, the best of several."""
    left, right = torch.randn(2, size, size, device=device, dtype=torch.bfloat16)
    return 2 * size**3 / min(times(lambda: left @ right, device, warm_up=3, number=20))


def data_sheet_rate(name: str) -> float | None:
    """Return the operations a second that a device's data sheet gives; none for unknown devices and parts of one."""
    words = set(name.replace("-", " ").split())
    if "MIG" in words or "Laptop" in words:
        return None
    return next((teraflops * 1e12 for needed, teraflops in DATA_SHEETS.items() if words.issuperset(needed)), None)


@cache
def measured(case: Case, frames: int, recompute: bool) -> StepMeasure:
    """Return what a step of clips of so many frames takes by plan."""
    overrides = ("blocks.recompute=all",) if recompute else ()
    return measure_step(case.config(*overrides), case.clips(frames))


def planned(case: Case, recompute: bool, memory_bytes: int) -> tuple[int, int]:
    """Return the frames of clips of which a batch fits into memory by plan, one at least, and the bytes planned."""
    frames = case.size.num_frames
    while True:
        peak = memory_of(single(), measured(case, frames, recompute), num_emas=0, several_micro_batches=False).peak
        if peak + RESERVE <= memory_bytes or frames == 1:
            return frames, peak
        frames //= 2


def measure(name: str, case: Case, mode: str, device: torch.device, warm_up: int, number: int) -> Row:
    """Train in one mode."""
    frames, peak = planned(case, "recomputed" in mode, _memory_of(device))
    clips, work = case.clips(frames), measured(case, frames, recompute=False).flops
    seconds: tuple[float, float, float] | None = None
    taken: int | None = None
    gc.collect()
    try:
        found = times(TrainingStep(case.config(*MODES[mode]), clips, device), device, warm_up, number)
        first, median, third = statistics.quantiles(found, n=4, method="inclusive")
        seconds = first, median, third
        taken = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    except torch.OutOfMemoryError:
        pass  # which the table says
    torch.compiler.reset()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    size = clips.size
    return Row(name, mode, clips.number, size.num_frames, size.height, size.width, work, peak, taken, seconds)


def _memory_of(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return 2**62


def _name_of(kind: type) -> str:
    return f"benchmarks.gpu.{kind.__qualname__}"


def _line(row: Row, of_product: float, data_sheet: float | None) -> str:
    clip = f"{row.clips} x {row.frames}x{row.height}x{row.width}"
    start = f"{row.case:10} {row.mode:21} {clip:19} {row.work / 1e12:9.3f}"
    memory = f"{row.planned_bytes / _GIB:8.2f}"
    if row.seconds is None or row.rate is None:
        return f"{start}   out of memory {'':49}{memory}"
    low, median, high = (1000 * seconds for seconds in row.seconds)
    of_sheet = "-" if data_sheet is None else f"{row.rate / data_sheet:.0%}"
    taken = "-" if row.peak_bytes is None else f"{row.peak_bytes / _GIB:.2f}"
    rates = f"{row.rate / 1e12:8.2f} {row.rate / of_product:9.0%} {of_sheet:>9}"
    return f"{start} {median:9.1f} ({low:8.1f} to {high:8.1f}) {rates} {taken:>8} {memory}"


def _head() -> str:
    columns = f"{'network':10} {'mode':21} {'clips':19} {'TFLOP':>9} {'ms (quartiles)':>32}"
    return f"{columns} {'TFLOP/s':>8} {'/product':>9} {'/sheet':>9} {'GiB':>8} {'planned':>8}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES), help="networks")
    parser.add_argument("--modes", nargs="+", choices=list(MODES), default=list(MODES))
    parser.add_argument("--steps", type=int, default=20, help="timed steps, at least 2")
    parser.add_argument("--warm-up", type=int, default=5, help="steps before these")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small networks, to try the script itself")
    parser.add_argument("--output", type=Path, default=Path("build/gpu.json"), help="the figures as JSON")
    return parser.parse_args()


def main() -> None:
    """Print the table, and write its figures."""
    options = _options()
    if options.device == "cuda" and not torch.cuda.is_available():
        print("no GPU, nothing measured")
        return
    register_run_folder()
    device = torch.device(options.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "CPU"
    of_product = product_rate(device, 512 if options.tiny else 8192)
    data_sheet = data_sheet_rate(name)
    of_sheet = "unknown" if data_sheet is None else f"{data_sheet / 1e12:.0f} TFLOP/s"
    print(f"{name}, torch {torch.__version__}")
    print(f"bf16: {of_product / 1e12:.3g} TFLOP/s in a matrix product; by data sheet {of_sheet}", flush=True)
    cases = TINY_CASES if options.tiny else CASES
    rows: list[Row] = []
    print(_head())
    for case, mode in product(options.cases, options.modes):
        row = measure(case, cases[case], mode, device, options.warm_up, options.steps)
        rows.append(row)
        print(_line(row, of_product, data_sheet), flush=True)
        if row.frames < (frames := cases[case].size.num_frames):
            print(f"  {row.frames} of {frames} frames, since by plan more do not fit")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    figures = {"device": name, "torch": torch.__version__, "product_rate": of_product, "data_sheet_rate": data_sheet}
    figures["rows"] = [{**asdict(row), "rate": row.rate} for row in rows]
    options.output.write_text(json.dumps(figures, indent=2) + "\n")
    print(f"figures: {options.output}")


if __name__ == "__main__":
    main()
