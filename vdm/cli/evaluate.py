"""``vdm evaluate``: measures a trained model on held-out clips, or finished videos against others."""

import logging
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from vdm.assembly.model import VideoDiffusionModel
from vdm.checkpoints.checkout import git_version
from vdm.checkpoints.collectives import rank
from vdm.checkpoints.latest import latest_checkpoint
from vdm.checkpoints.layout import folder_for_results, run_folder
from vdm.checkpoints.run_config import RunConfig
from vdm.cli.evaluated_data import held_out_data
from vdm.cli.evaluated_export import export_videos
from vdm.cli.evaluated_metrics import measure_model, measure_videos
from vdm.cli.evaluated_model import HeldOut, measure_bits_per_dim, measure_loss, measure_prompted_digits
from vdm.cli.next_step import command, say_next
from vdm.cli.options.evaluate import EvaluateOptions
from vdm.cli.overrides import overridden_keys
from vdm.cli.sample import load_for_sampling
from vdm.cli.sample_folder import make_output_folder
from vdm.cli.sample_record import guidance_in_effect
from vdm.config import ConfigError, build
from vdm.config.options import parse
from vdm.data.datamodule import ClipDataModule
from vdm.diffusion.likelihood.base import Likelihood
from vdm.evaluation import bits_per_dim, moving_digits
from vdm.files import write_json
from vdm.objectives.base import Objective
from vdm.objectives.load import load_objective
from vdm.text import printable
from vdm.training.joined_processes import joined_processes
from vdm.types import ClipSize

_log = logging.getLogger(__name__)
_OF_FIGURES = ("bits_per_dim", "bits_per_dim_clips", "max_clips", "num_levels", "num_samples", "prompted_digits")
_OF_MODEL = frozenset(
    [*_OF_FIGURES, "ema", "export_for", "guidance", "guidance_scale", "guide", "offload_idle_expert", "sampler"]
)
"""Options that do nothing for finished videos."""
_OF_MEASURING = frozenset(
    [*_OF_FIGURES, "data_path", "keep_features", "metric", "num_threads", "output", "reference", "split", "strict"]
)
"""Options that do nothing for an export."""


def run(config: DictConfig) -> int:
    """Print each figure, and write all figures with their options to ``results.json``.

    Metrics of videos are measured by all processes together, the figures of the model itself by the first.

    Returns:
        The exit code: 2 if a metric has no figure.
    """
    plain: Any = OmegaConf.to_container(config, resolve=True)
    options = parse(EvaluateOptions, plain)
    with joined_processes(options.find_device()):
        if options.checkpoint is None:
            _refuse_unused("videos", _OF_MODEL)
            failures = _evaluate_videos(options, plain)
        elif options.export is not None:
            _refuse_unused("export", _OF_MEASURING)
            _export(options, options.checkpoint)
            failures = ()
        else:
            failures = _evaluate_model(options, options.checkpoint, plain)
        for message in failures if rank() == 0 else ():
            print(printable(message), file=sys.stderr)
    return 2 if failures else 0


def _refuse_unused(key: str, unused: Collection[str]) -> None:
    """Refuse options of the command line that do nothing beside ``key``."""
    config: Any = HydraConfig.get()
    for words in overridden_keys(config.overrides.task):
        if words[0] in unused:
            raise ConfigError(f"{'.'.join(words)}: does nothing with {key}=")


def _evaluate_videos(options: EvaluateOptions, plain: dict[str, Any]) -> Sequence[str]:
    folder = options.output or Path("evaluation")
    if rank() == 0:
        make_output_folder(folder)
    measured = measure_videos(options)
    if rank() == 0:
        _write(folder, {"options": plain, "metrics": measured.plain()})
    return list(measured.failed.values())


@dataclass(frozen=True)
class _Trained:
    """A trained model and what is needed to measure it."""

    checkpoint: Path
    config: RunConfig
    model: VideoDiffusionModel
    data: ClipDataModule
    objective: Objective | None
    likelihood: Likelihood | None
    with_digits: bool


def _evaluate_model(options: EvaluateOptions, run: Path, plain: dict[str, Any]) -> Sequence[str]:
    trained = _load(options, run)
    folder = options.output or folder_for_results(run_folder(trained.checkpoint), "evaluation")
    if rank() == 0:
        make_output_folder(folder)
    results: dict[str, Any] = {"checkpoint": str(trained.checkpoint), "options": plain}
    failures: Sequence[str] = ()
    if options.chosen_metrics:
        sampling = _sampling(options, trained.checkpoint, trained.config)
        measured = measure_model(options, trained.model, trained.data, sampling)
        results["metrics"], failures = measured.plain(), list(measured.failed.values())
    if rank() > 0:
        return failures
    held_out = HeldOut(trained.data)
    if trained.objective is not None:
        results |= measure_loss(trained.model, trained.objective, held_out, options, folder)
    if trained.likelihood is not None:
        results |= measure_bits_per_dim(trained.model, trained.likelihood, trained.data, options)
    if trained.with_digits:
        results |= measure_prompted_digits(trained.model, trained.data, held_out, options, folder)
    _write(folder, results)
    of_run = run_folder(trained.checkpoint)
    say_next(command("vdm export", checkpoint=trained.checkpoint, to=of_run.with_name(f"{of_run.name}-export")))
    return failures


def _export(options: EvaluateOptions, run: Path) -> None:
    checkpoint = latest_checkpoint(run)
    config = RunConfig.read(checkpoint, options.allow_own_code)
    size = ClipSize(config.clip.num_frames, config.clip.height, config.clip.width)
    made = {**_sampling(options, checkpoint, config), "checkpoint": str(checkpoint.resolve())}
    export_videos(options, load_for_sampling(checkpoint, options, config), size, config.clip.fps, made)


def _sampling(options: EvaluateOptions, checkpoint: Path, config: RunConfig) -> dict[str, Any]:
    """Return how videos are sampled, as a part of protocols."""
    return {
        "checkpoint": str(checkpoint),
        "sampler": options.sampler,
        "guidance": guidance_in_effect(options, config),
        "guide": None if options.guide is None else str(options.guide),
        "ema": options.ema,
        "seed": options.seed,
    }


def _load(options: EvaluateOptions, run: Path) -> _Trained:
    checkpoint = latest_checkpoint(run)
    config = RunConfig.read(checkpoint, options.allow_own_code)
    data = held_out_data(options, config)
    model = load_for_sampling(checkpoint, options, config)
    data.add_image_conditions(model.conditioner.needs_pixels, model.conditioner.needs_motion)
    likelihood: Likelihood | None = build(options.bits_per_dim, "bits_per_dim") or None
    wanted = options.prompted_digits
    with_digits = wanted is True or (wanted == "auto" and data.label_names == moving_digits.LABEL_NAMES)
    objective = None
    if config.objective is None and (with_digits or options.chosen_metrics or likelihood is not None):
        _log.warning("The held-out loss is left out: %s", config.objective_fault)
    else:
        objective = load_objective(config, checkpoint, model, options.ema)
    if likelihood is not None:
        bits_per_dim.check(model)
    return _Trained(checkpoint, config, model, data, objective, likelihood, with_digits)


def _write(folder: Path, results: dict[str, Any]) -> None:
    write_json(folder / "results.json", {**results, "code": git_version()}, indent=1)
    print(f"Wrote {folder / 'results.json'}")
