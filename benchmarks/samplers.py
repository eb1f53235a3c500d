"""Quality of sampled clips against calls of the network, for every sampler, with a run of moving digits.

Quality is the Fréchet distance of clips sampled for the captions of held-out clips from those clips, of the features of
a classifier of digits that is trained here, on the run's training clips. All samplers start from the same noise.

    python benchmarks/samplers.py runs/demo
    python benchmarks/samplers.py runs/demo --clips 256 --calls 5 10 20 50 100 --picture docs/samplers.png
    python benchmarks/samplers.py runs/demo --samplers ddim unipc --calls 20 --guidance-scale 4 --spacing trailing
"""

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from hydra import compose, initialize_config_dir
from jaxtyping import Float, UInt8
from matplotlib import pyplot as plt
from omegaconf import OmegaConf
from torch import Tensor, nn

from vdm.assembly.model import VideoDiffusionModel
from vdm.checkpoints.run_record import load_config
from vdm.cli.run_folder import register_run_folder
from vdm.config import build
from vdm.config.conf_dir import conf_dir
from vdm.data.datamodule import ClipDataModule
from vdm.diffusion.guidance import Extrapolation
from vdm.evaluation.moving_digits import DigitClassifier, train_classifier
from vdm.evaluation.statistics.frechet import FrechetDistance
from vdm.generation.generate import generate
from vdm.types import ClipSize

matplotlib.use("Agg")  # no screen is needed to write a picture

REFERENCE = ("ddim", "num_steps=250")
"""What the others are compared with."""
CALLS_PER_STEP = {"heun": 2, "predictor_corrector": 2}
TOLERANCES = (1e-1, 1e-2, 1e-3)
"""Of the sampler that chooses its steps."""
LARGEST_DRAWN = 4.0
"""Of the reference's distance: what lies above would make all others look alike."""
EDM_LEVELS = ("spacing.sigma_min=0.002", "spacing.sigma_max=80")
"""Of spacings between two noise levels (Karras et al. 2022); the ends of the run's schedule may lie far beyond."""


@dataclass(frozen=True)
class Result:
    """One point of the picture."""

    sampler: str
    settings: str
    num_calls: float
    """Calls of the network for each clip."""
    distance: float
    seconds: float
    """For all clips."""


@dataclass
class Benchmark:
    """What all samplers have in common."""

    model: VideoDiffusionModel
    captions: tuple[str, ...]
    size: ClipSize
    classifier: DigitClassifier
    reference: UInt8[Tensor, "b c t h w"]
    batch_size: int

    def measure(self, sampler: str, settings: str, spacing: str | None) -> Result:
        """Sample a clip for each caption and compare."""
        self.model.sampler = build(sampler_node(sampler, settings, spacing), "sampler")
        num_rows = 0

        def count(network: nn.Module, arguments: tuple[Any, ...], output: object) -> None:
            nonlocal num_rows
            num_rows += len(arguments[0])

        hook = self.model.network.register_forward_hook(count)
        start = time.perf_counter()
        clips = generate(self.model, self.model.prompts(self.captions), self.size, batch_size=self.batch_size)
        seconds = time.perf_counter() - start
        hook.remove()
        return Result(sampler, settings, num_rows / len(clips), self.distance(clips), seconds)

    def distance(self, clips: UInt8[Tensor, "b c t h w"]) -> float:
        """Return the Fréchet distance from the reference."""
        features: list[Float[Tensor, "b d"]] = [self.classifier.describe(video) for video in (clips, self.reference)]
        return FrechetDistance(ddof=1).value(*(rows[:, None] for rows in features))


def main() -> None:
    """Print a table and write a picture."""
    options = parse_options()
    model = VideoDiffusionModel.from_checkpoint(options.run).requires_grad_(False)
    model.guidance = Extrapolation(options.guidance_scale)
    path = options.data or load_config(options.run)["data"]["path"]
    data = ClipDataModule(path, global_batch_size=32, micro_batch_size=32, num_workers=0)
    held_out = data.held_out_clips(2 * options.clips)
    assert held_out is not None
    print(f"Training a classifier on the clips of {path} ...", file=sys.stderr)
    classifier = train_classifier(data.train_dataloader())
    # Every second held-out clip is asked for and compared with; those between show how near real clips come.
    size = ClipSize(*data.clip_shape)
    bench = Benchmark(model, held_out.captions[::2], size, classifier, held_out.video[::2], options.batch_size)

    print("| sampler | settings | calls | Fréchet distance | of the reference's | seconds |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    print(f"| real clips | | | {bench.distance(held_out.video[1::2]):.3f} | | |", flush=True)
    results: list[Result] = []
    for sampler, settings in plan(options):
        result = bench.measure(sampler, settings, options.spacing if results else None)
        results.append(result)
        share = result.distance / results[0].distance
        figures = f"{result.num_calls:.0f} | {result.distance:.3f} | {share:.1%} | {result.seconds:.0f}"
        print(f"| {sampler} | {settings} | {figures} |", flush=True)
        plot(results, options.picture)
    print(f"Wrote {options.picture}", file=sys.stderr)


def parse_options() -> argparse.Namespace:
    """Read the command line; without a run, say how to give one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?", help="folder of a run, e.g. that of make demo")
    parser.add_argument("--data", help="folder of its shard set, if it is no longer where it was")
    parser.add_argument("--clips", type=int, default=128, help="clips sampled by each sampler")
    parser.add_argument("--calls", type=int, nargs="+", default=[5, 10, 20], help="calls of the network for a clip")
    samplers = sorted(path.stem for path in (conf_dir() / "sampler").glob("*.yaml"))
    parser.add_argument("--samplers", nargs="+", default=samplers, help="by default all of conf/sampler")
    parser.add_argument("--spacing", help="one of conf/sampler/spacing; by default each sampler's own")
    parser.add_argument("--guidance-scale", type=float, default=1.0, help="1 takes the model as it was trained")
    parser.add_argument("--batch-size", type=int, default=32, help="clips sampled at once")
    parser.add_argument("--picture", type=Path, default=Path("samplers.png"), help="file of the picture")
    options = parser.parse_args()
    if options.run is None:
        parser.print_usage()
        sys.exit(0)
    return options


def plan(options: argparse.Namespace) -> list[tuple[str, str]]:
    """Return each sampler with its settings, the reference first."""
    pairs = [REFERENCE]
    for name in options.samplers:
        if name == "probability_flow":
            pairs += [(name, f"solver.rtol={tolerance:g} solver.atol={tolerance:g}") for tolerance in TOLERANCES]
        else:
            steps = sorted({max(1, calls // CALLS_PER_STEP.get(name, 1)) for calls in options.calls})
            pairs += [(name, f"num_steps={count}") for count in steps]
    return pairs


def sampler_node(sampler: str, settings: str, spacing: str | None) -> Any:
    """Return the configuration of a sampler of conf/sampler; a spacing is for those that have one."""
    register_run_folder()
    chosen = [f"sampler={sampler}"]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        if spacing is not None and "spacing" in compose("sample", chosen).sampler:
            chosen.append(f"sampler/spacing={spacing}")
        node = compose("sample", chosen).sampler
        is_between_levels = "sigma_max" in node.get("spacing", {})
        changes = [*settings.split(), *(EDM_LEVELS if is_between_levels else ())]
        node = compose("sample", [*chosen, *(f"sampler.{change}" for change in changes)]).sampler
    return OmegaConf.to_container(node)


def plot(results: list[Result], path: Path) -> None:
    """Draw the distance over the number of calls, a line for each sampler."""
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    reference, *others = results
    axes.axhline(reference.distance, color="black", lw=0.8, label=f"{reference.sampler}, {reference.num_calls:.0f}")
    colors = plt.get_cmap("tab20").colors  # type: ignore[attr-defined]
    for number, name in enumerate(dict.fromkeys(result.sampler for result in others)):
        points = sorted((result.num_calls, result.distance) for result in others if result.sampler == name)
        axes.plot(*zip(*points, strict=True), marker="o", ms=4, label=name, color=colors[number % len(colors)])
    axes.set(xscale="log", yscale="log", xlabel="calls of the network for a clip", ylabel="Fréchet distance")
    axes.set_ylim(top=LARGEST_DRAWN * reference.distance)
    axes.grid(alpha=0.3, which="both")
    figure.legend(fontsize=8, loc="outside right center")
    figure.savefig(path, dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    main()
