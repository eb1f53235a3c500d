"""``vdm evaluate``: measures a trained model on held-out clips, or finished videos against others."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from vdm.cli.sample import load_for_sampling
from vdm.cli.sample_folder import make_output_folder
from vdm.cli.sample_record import guidance_in_effect
from vdm.config import build
from vdm.config.options import parse
from vdm.data.datamodule import ClipDataModule
from vdm.diffusion.likelihood.base import Likelihood
from vdm.evaluation import bits_per_dim, moving_digits
from vdm.files import write_json
from vdm.objectives.base import Objective
from vdm.objectives.load import load_objective
from vdm.training.joined_processes import joined_processes
from vdm.types import ClipSize

_log = logging.getLogger(__name__)


def run(config: DictConfig) -> None:
    """Print each figure, and write all figures with their options to ``results.json``.

    Metrics of videos are measured by all processes together, the figures of the model itself by the first.
    """
    plain: Any = OmegaConf.to_container(config, resolve=True)
    options = parse(EvaluateOptions, plain)
    with joined_processes(options.find_device()):
        if options.checkpoint is None:
            _evaluate_videos(options, plain)
        else:
            _evaluate_model(options, options.checkpoint, plain)


def _evaluate_videos(options: EvaluateOptions, plain: dict[str, Any]) -> None:
    folder = options.output or Path("evaluation")
    if rank() == 0:
        make_output_folder(folder)
    metrics = measure_videos(options)
    if rank() == 0:
        _write(folder, {"options": plain, "metrics": metrics})


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


def _evaluate_model(options: EvaluateOptions, run: Path, plain: dict[str, Any]) -> None:
    if options.export is not None:
        _export(options, run)
        return
    trained = _load(options, run)
    folder = options.output or folder_for_results(run_folder(trained.checkpoint), "evaluation")
    if rank() == 0:
        make_output_folder(folder)
    results: dict[str, Any] = {"checkpoint": str(trained.checkpoint), "options": plain}
    if options.metric:
        sampling = {
            "checkpoint": str(trained.checkpoint),
            "sampler": options.sampler,
            "guidance": guidance_in_effect(options, trained.config),
            "ema": options.ema,
            "seed": options.seed,
        }
        results["metrics"] = measure_model(options, trained.model, trained.data, sampling)
    if rank() > 0:
        return
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


def _export(options: EvaluateOptions, run: Path) -> None:
    checkpoint = latest_checkpoint(run)
    config = RunConfig.read(checkpoint, options.allow_own_code)
    size = ClipSize(config.clip.num_frames, config.clip.height, config.clip.width)
    export_videos(options, load_for_sampling(checkpoint, options, config), size, config.clip.fps)


def _load(options: EvaluateOptions, run: Path) -> _Trained:
    checkpoint = latest_checkpoint(run)
    config = RunConfig.read(checkpoint, options.allow_own_code)
    data = held_out_data(options, config)
    model = load_for_sampling(checkpoint, options, config)
    if model.conditioner.needs_pixels:
        data.add_image_conditions()
    likelihood: Likelihood | None = build(options.bits_per_dim, "bits_per_dim") or None
    wanted = options.prompted_digits
    with_digits = wanted is True or (wanted == "auto" and data.label_names == moving_digits.LABEL_NAMES)
    objective = None
    if config.objective is None and (with_digits or options.metric or likelihood is not None):
        _log.warning("The held-out loss is left out: %s", config.objective_fault)
    else:
        objective = load_objective(config, checkpoint, model, options.ema)
    if likelihood is not None:
        bits_per_dim.check(model)
    return _Trained(checkpoint, config, model, data, objective, likelihood, with_digits)


def _write(folder: Path, results: dict[str, Any]) -> None:
    write_json(folder / "results.json", {**results, "code": git_version()}, indent=1)
    print(f"Wrote {folder / 'results.json'}")
