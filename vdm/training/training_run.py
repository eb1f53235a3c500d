"""A training run, built from its configuration: data, model and trainer, checked against each other."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import lightning
import torch
from lightning.pytorch.callbacks import Callback, ProgressBar

from vdm import randomness
from vdm.assembly.build_model import build_model
from vdm.assembly.load import open_weights, read_into
from vdm.assembly.model import VideoDiffusionModel
from vdm.assembly.pretrained import configured, open_pretrained, weights_of
from vdm.checkpoints.run_record import DataIdentity, record_run
from vdm.config import ConfigError, build, check, errors_at, takes
from vdm.data.datamodule import ClipDataModule
from vdm.data.order import idle_devices
from vdm.data.sets import TRAIN
from vdm.generation.video_files import DEFAULT_FPS
from vdm.models.experts import TwoExperts
from vdm.models.pretrained.published import Published
from vdm.models.pretrained.stored import WeightFiles
from vdm.objectives.base import Objective, second_optimizer, with_modules_of
from vdm.objectives.batch_randomness import NoisePrefetcher
from vdm.training.callback_order import build_callbacks
from vdm.training.callbacks.logging import BeginLogging
from vdm.training.callbacks.stopping import StopOnSignal
from vdm.training.checks import check_dropout, check_together
from vdm.training.devices import NO_EXTRAS, TRAINER_ERRORS, find_devices
from vdm.training.ema import count_emas
from vdm.training.hardware import find_hardware
from vdm.training.loggers.background import as_run_logger, close
from vdm.training.loggers.base import RunLogger
from vdm.training.loggers.metrics_file import MetricsFile
from vdm.training.module import DiffusionModule
from vdm.training.prepare import prepare, with_settled_lora, without_lora_file
from vdm.training.process_layout import cluster_environment, find_layout, with_layout
from vdm.training.step_experts import ExpertSchedule
from vdm.training.strategies.deepspeed import DeepSpeedZeRO
from vdm.training.strategies.single import SingleDevice
from vdm.training.strategies.slicewise import SlicewiseStrategy
from vdm.types import ClipSize

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingRun:
    """The parts of a training run, and its folder. ``record`` it, then ``fit``."""

    folder: Path
    module: DiffusionModule
    data: ClipDataModule
    trainer: lightning.Trainer
    stop: StopOnSignal
    config: Mapping[str, Any]
    """The whole configuration, with the sizes of a pretrained network and of the clips."""

    @property
    def strategy(self) -> SlicewiseStrategy:
        """The trainer's strategy."""
        return cast(SlicewiseStrategy, self.trainer.strategy)

    def record(self) -> None:
        """Record the configuration in the run's folder, for resuming and sampling, with versions, data and hardware."""
        if self.trainer.is_global_zero:
            record_run(self.folder, self.config, _identities(self.data), find_hardware())

    def fit(self, checkpoint: Path | None = None) -> None:
        """Train to the end, and end the loggers, whatever happens.

        Args:
            checkpoint: Checkpoint to resume from, or a run, of which the latest whole checkpoint is taken; None begins
                anew.
        """
        try:
            self.trainer.fit(self.module, datamodule=self.data, ckpt_path=checkpoint, weights_only=True)
        finally:
            close(self.trainer.loggers)


def build_training(config: Mapping[str, Any], run: Path) -> TrainingRun:
    """Build data, model and trainer, and check that they fit together, before any process group starts.

    Args:
        config: Whole configuration, as composed by ``conf/train.yaml``.
        run: Folder of the run.

    Raises:
        ConfigError: One line that names the key.
    """
    check(config["trainer"], "trainer")
    published = open_pretrained(config) if config["resume"] is None else None
    recorded = config if published is None else configured(config, published)
    recorded = with_settled_lora(recorded) if config["resume"] is None else recorded
    config = {**recorded, "trainer": with_layout(recorded["trainer"], find_layout())}
    data: ClipDataModule = build(config["data"], "data")
    with errors_at("data.path"):
        data.check()
    is_read = config["resume"] is not None or published is not None or config["init_from"] is not None
    # An objective that gets the model may copy it, and needs its weights then; without one, they are read when the
    # strategy knows which slices this process needs.
    is_read_later = is_read and not takes(config["objective"], "model", "objective")
    _seed_initial_weights(config["seed"], 0)
    model = build_model(config, is_network_read=is_read_later)
    _fit_data_to_model(data, model, config["seed"])
    initial = _open_initial_weights(model, config, published)
    if initial is not None and not is_read_later:
        read_into(model, initial)
    _seed_initial_weights(config["seed"], 1)  # so that added weights do not depend on how the network was built
    objective = prepare(model, config if config["resume"] is None else without_lora_file(config))
    module: DiffusionModule = build(
        config["training"],
        "training",
        model=model,
        objective=objective,
        seed=config["seed"],
        experts=_schedule_experts(model, data, config["seed"]),
    )
    check_dropout(module.condition_dropout, model)
    strategy = _build_strategy(config, model, objective)
    if is_read_later:
        strategy.read_weights(model, initial)
    stop = StopOnSignal()
    recorded = {**recorded, "clip": _describe_clips(data)}
    callbacks = [BeginLogging(run, recorded), *build_callbacks(config, run, stop)]
    trainer = _build_trainer(config, run, data, strategy, callbacks)
    return TrainingRun(run, module, data, trainer, stop, recorded)


def _describe_clips(data: ClipDataModule) -> dict[str, Any]:
    """Return what sampling must know about the training clips, to be recorded with the run's configuration."""
    num_frames, height, width = data.clip_shape
    size = {"num_frames": num_frames, "height": height, "width": width}
    return {**size, "fps": data.fps or DEFAULT_FPS, "label_names": list(data.label_names)}


def _identities(data: ClipDataModule) -> list[DataIdentity]:
    """Return what tells the sets of a run from others."""
    return [
        {
            "path": one.path,
            "checksum": one.index.checksum or "",
            "num_samples": int(one.shards(TRAIN).num_samples.sum()),
        }
        for one in data.sets
    ]


def _fit_data_to_model(data: ClipDataModule, model: VideoDiffusionModel, seed: int) -> None:
    """Have the data module load what the model takes, and check that it can."""
    with errors_at("model.conditioner"):
        data.add_image_conditions(model.conditioner.needs_pixels, model.conditioner.needs_motion)
    check_together(model, data)
    if "text" in model.conditioner.takes:
        data.report_captions()
    shapes = {shape: model.encoder.latent_shape(ClipSize(*shape)) for shape in data.clip_shapes}
    data.prefetch_noise(NoisePrefetcher(seed, model.diffusion.noise_prior, shapes, data.num_images_per_clip))


def _schedule_experts(model: VideoDiffusionModel, data: ClipDataModule, seed: int) -> ExpertSchedule:
    """Return which expert trains in which step, if the network consists of two.

    Raises:
        ConfigError: One line that names the key.
    """
    shapes = [model.encoder.latent_shape(ClipSize(*bucket.shape)) for bucket in data.training.buckets]
    with errors_at("experts"):
        return ExpertSchedule(seed, model.network, model.diffusion, shapes)


def _seed_initial_weights(seed: int, part: int) -> None:
    torch.manual_seed(randomness.generator(seed, "initial weights", part).initial_seed())


def _open_initial_weights(
    model: VideoDiffusionModel, config: Mapping[str, Any], published: Published | None
) -> WeightFiles | None:
    """Open the weights of ``model.pretrained`` or ``init_from``; None if neither is given, or the run is resumed."""
    if config["resume"] is not None:
        return None
    opened = None if published is None else weights_of(published, model, config["model"]["pretrained"])
    if config["init_from"] is None:
        return opened
    if opened is not None:
        raise ConfigError("init_from: the weights are those of model.pretrained; give one of the two")
    with errors_at("init_from"):
        return open_weights(model, config["init_from"])


def _build_strategy(config: Mapping[str, Any], model: VideoDiffusionModel, objective: Objective) -> SlicewiseStrategy:
    defaults = {
        "model": with_modules_of(model, objective),
        "devices": find_devices(config["trainer"]),
        "num_emas": count_emas(config["averages"]),
    }
    strategy: SlicewiseStrategy = build(config["strategy"], "strategy", defaults=defaults)
    if (
        isinstance(strategy, SingleDevice)
        and strategy.offload_idle_expert
        and not isinstance(model.network, TwoExperts)
    ):
        raise ConfigError("strategy.offload_idle_expert=true: the network does not consist of two experts")
    if second_optimizer(objective) is not None and isinstance(strategy, DeepSpeedZeRO):
        raise ConfigError(
            f"objective: {type(objective).__name__} trains a second network with an optimizer of its own, and DeepSpeed"
            " allows one: choose strategy=ddp or strategy=fsdp2"
        )
    return strategy


def _build_trainer(
    config: Mapping[str, Any],
    run: Path,
    data: ClipDataModule,
    strategy: SlicewiseStrategy,
    callbacks: list[Callback],
) -> lightning.Trainer:
    validation_steps = config["validate"]["every_steps"]
    if not isinstance(validation_steps, int) or validation_steps < 1:
        raise ConfigError(f"validate.every_steps={validation_steps}: must be a whole number, at least 1")
    profiler = config["profiler"] and build(config["profiler"], "profiler", defaults={"dirpath": run / "profile"})
    has_progress_bar = any(isinstance(callback, ProgressBar) for callback in callbacks)
    with errors_at("trainer", TRAINER_ERRORS):
        trainer = build(
            config["trainer"],
            "trainer",
            strategy=strategy,
            callbacks=callbacks,
            logger=_build_loggers(config["logger"], run, data),
            profiler=profiler or None,
            default_root_dir=run,
            plugins=cluster_environment(find_layout()),
            max_epochs=-1,
            use_distributed_sampler=False,
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            limit_val_batches=0 if data.max_validation_clips == 0 else None,
            **{**NO_EXTRAS, "enable_progress_bar": has_progress_bar},
        )
    if trainer.is_global_zero and (complaint := idle_devices(data.global_batch_size, trainer.world_size)):
        _log.warning("%s", complaint)
    micro_batches = data.accumulation(trainer.world_size)
    trainer.accumulate_grad_batches = micro_batches
    trainer.val_check_interval = validation_steps * micro_batches
    return trainer


def _build_loggers(nodes: Mapping[str, Any], run: Path, data: ClipDataModule) -> list[RunLogger]:
    """Build the loggers of a configuration, and the run's own record."""
    chosen = [build(node, f"logger.{name}", defaults={"run": run}) for name, node in nodes.items() if node]
    return [*map(as_run_logger, chosen), MetricsFile(run, lambda: data.position)]
