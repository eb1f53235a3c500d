"""``vdm ema``: post-hoc EMA weights of any length (Karras et al. 2024, section 3.2)."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from tqdm import tqdm

from vdm.checkpoints.folder import verify_folder
from vdm.checkpoints.latest import latest_checkpoint
from vdm.checkpoints.layout import checkpoint_folder, ema_snapshots_of, folder_for_results, run_folder, step_of
from vdm.checkpoints.pieces import PieceFiles
from vdm.checkpoints.run_config import RunConfig
from vdm.checkpoints.run_record import record_run
from vdm.checkpoints.snapshot import SavedCheckpoint, save_weights
from vdm.checkpoints.weights import is_of_objective
from vdm.cli.next_step import command, say_next
from vdm.cli.options.ema import EmaOptions
from vdm.cli.options.paths import check_new
from vdm.config import ConfigError
from vdm.config.options import parse
from vdm.files import appearing
from vdm.training.ema import PowerFunctionEMA
from vdm.training.power_functions import PostHocEMA, PowerFunction, reconstruct

NOTABLE_ERROR = 0.1
"""Difference of profiles above which there is a warning."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Source:
    """EMA weights that were saved in training."""

    profile: PowerFunction
    weights: PieceFiles


def run(config: DictConfig) -> None:
    """Write a run with the post-hoc EMA as its weights, and a plot of its profile."""
    plain: Any = OmegaConf.to_container(config, resolve=True)
    options = parse(EmaOptions, plain)
    sigma_rel = options.sigma_rel
    checkpoint = latest_checkpoint(options.checkpoint)
    output = options.output or folder_for_results(run_folder(checkpoint), "ema", f"sigma_rel_{sigma_rel:.10g}")
    check_new(output, "output")
    saved = SavedCheckpoint(checkpoint)
    target = PowerFunction(sigma_rel, step_of(checkpoint))
    trained = RunConfig.read(checkpoint, allow_own_code=True)  # nothing is built from it
    sources = list(_sources(saved, trained.sigma_rels, target.step))
    found = reconstruct(target, [source.profile for source in sources])

    with appearing(output) as partial:
        save_weights(checkpoint_folder(partial, target.step), _combined(saved, sources, found))
        record_run(partial, trained.plain())
        plot_profile(found, partial / "profile.png")
    steps = {source.profile.step for source in sources}
    print(f"Made of averages at {len(steps)} steps; their combined profile differs from the one asked for by", end=" ")
    print(f"{found.error:.2%} of its norm: see {output / 'profile.png'}")
    if found.error > NOTABLE_ERROR:
        _log.warning("A rough average: snapshots were too few (callbacks.averages.every_steps) for so short a one")
    print(f"Wrote {output}")
    say_next(command("vdm sample", checkpoint=output), command("vdm evaluate", checkpoint=output))


def _sources(saved: SavedCheckpoint, sigma_rels: Sequence[float], last_step: int) -> Iterator[_Source]:
    """Yield the EMAs in the checkpoint, and those in whole snapshots of earlier steps."""
    if not sigma_rels:
        raise ConfigError(
            f"checkpoint={saved.folder}: trained without power-function averages; train with averages=post_hoc"
        )
    names = {PowerFunctionEMA(sigma_rel).name: sigma_rel for sigma_rel in sigma_rels}
    for name, sigma_rel in names.items():
        yield _Source(PowerFunction(sigma_rel, last_step), saved.named_ema(name))
    for folder in ema_snapshots_of(run_folder(saved.folder)):
        if (
            step_of(folder) >= last_step
        ):  # left by a run that resumed from an earlier checkpoint, or the checkpoint's own
            continue
        try:
            verify_folder(folder)
        except ValueError as error:
            _log.warning("Passing over a snapshot: %s", error)
            continue
        for name, sigma_rel in names.items():
            yield _Source(PowerFunction(sigma_rel, step_of(folder)), PieceFiles(folder, name))


def _combined(saved: SavedCheckpoint, sources: list[_Source], found: PostHocEMA) -> dict[str, Tensor]:
    """Return the post-hoc EMA of each weight that has one, and the other weights unchanged."""
    weights: dict[str, Tensor] = {}
    of_model = [name for name in saved.weights.shapes if not is_of_objective(name)]
    for name in tqdm(of_model, desc="averaging", unit="tensor"):
        if name not in sources[0].weights:
            weights[name] = saved.weights.whole(name)
            continue
        total = torch.zeros(saved.weights.shapes[name], dtype=torch.float64)
        for source, share in zip(sources, found.shares, strict=True):
            total += share * source.weights.whole(name)
        weights[name] = total.float()
    return weights


def plot_profile(found: PostHocEMA, path: Path) -> None:
    """Plot the weight of each step in the requested and in the reconstructed EMA."""
    steps = np.linspace(0, found.target.step, 2000)
    made = sum(share * source.density(steps) for source, share in zip(found.sources, found.shares, strict=True))
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(steps, made, label=f"made of {len(found.sources)} averages", linewidth=2.5)
    axes.plot(steps, found.target.density(steps), "k--", label=f"sigma_rel={found.target.sigma_rel:g}", linewidth=1)
    axes.set(xlabel="optimizer step", ylabel="weight in the average")
    axes.legend()
    figure.savefig(path, dpi=120)
