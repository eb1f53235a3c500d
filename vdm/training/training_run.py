"""From a whole configuration to what a training run is made of."""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import lightning
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, ProgressBar

from vdm import randomness
from vdm.assembly.build_model import build_model
from vdm.assembly.load import load_into
from vdm.assembly.model import VideoDiffusionModel
from vdm.assembly.pretrained import configured, load_pretrained, open_pretrained
from vdm.config import ConfigError, build, check
from vdm.data.datamodule import ClipDataModule
from vdm.data.order import idle_devices
from vdm.generation.video_files import DEFAULT_FPS
from vdm.models.pretrained.published import Published
from vdm.objectives.base import second_optimizer, with_modules_of
from vdm.objectives.batch_randomness import NoisePrefetcher
from vdm.training.callbacks.samples import SampleVideos
from vdm.training.callbacks.stopping import StopOnSignal
from vdm.training.checks import check_dropout, check_together
from vdm.training.ema import count_emas
from vdm.training.module import DiffusionModule
from vdm.training.prepare import prepare
from vdm.training.process_layout import cluster_environment, find_layout, with_layout
from vdm.training.strategies.auto import Devices
from vdm.training.strategies.deepspeed import DeepSpeedZeRO
from vdm.training.strategies.slicewise import SlicewiseStrategy
from vdm.types import ClipSize

_QUIET: dict[str, Any] = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
_REFUSALS = (MisconfigurationException, RuntimeError, TypeError)
"""What Lightning raises for devices that are not there, and the like."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingRun:
    """Everything that ``trainer.fit`` needs."""

    module: DiffusionModule
    data: ClipDataModule
    trainer: lightning.Trainer
    stop: StopOnSignal
    config: Mapping[str, Any]
    """The whole configuration, with the sizes of a pretrained network."""

    @property
    def strategy(self) -> SlicewiseStrategy:
        """The trainer's strategy."""
        return cast(SlicewiseStrategy, self.trainer.strategy)


def build_training(config: Mapping[str, Any], run: Path) -> TrainingRun:
    """Build data, model and trainer, and check that they go together, before any process group starts.

    Args:
        config: Whole configuration, as composed by ``conf/train.yaml``.
        run: Folder of the run.

    Raises:
        ConfigError: One line that names the key.
    """
    check(config["trainer"], "trainer")
    published = open_pretrained(config) if config["resume"] is None else None
    settled = config if published is None else configured(config, published)
    config = {**settled, "trainer": with_layout(settled["trainer"], find_layout())}
    data: ClipDataModule = build(config["data"], "data")
    try:
        data.check()
    except ValueError as error:
        raise ConfigError(f"data.path: {error}") from error
    torch.manual_seed(randomness.generator(config["seed"], "initial weights", 0).initial_seed())
    model = build_model(config)
    if model.conditioner.needs_pixels:
        try:
            data.add_image_conditions()
        except ValueError as error:
            raise ConfigError(f"model.conditioner: {error}") from error
    check_together(model, data)
    if "text" in model.conditioner.takes:
        data.report_captions()
    shapes = {shape: model.encoder.latent_shape(ClipSize(*shape)) for shape in data.clip_shapes}
    prior = model.diffusion.noise_prior
    data.draw_ahead(NoisePrefetcher(config["seed"], prior, shapes, data.num_images_per_clip))
    if config["resume"] is None:
        _start_from(model, config, published)
    objective = prepare(model, config)
    module: DiffusionModule = build(
        config["training"],
        "training",
        model=model,
        objective=objective,
        seed=config["seed"],
    )
    check_dropout(module.condition_dropout, model)
    stop = StopOnSignal()
    devices = _devices(config["trainer"])
    whole = with_modules_of(model, objective)
    defaults = {"model": whole, "devices": devices, "num_emas": count_emas(config["averages"])}
    strategy = build(config["strategy"], "strategy", defaults=defaults)
    if second_optimizer(objective) is not None and isinstance(strategy, DeepSpeedZeRO):
        raise ConfigError(
            f"objective: {type(objective).__name__} trains a second network with an optimizer of its own, and DeepSpeed"
            " allows one: choose strategy=ddp or strategy=fsdp2"
        )
    trainer = _build_trainer(config, run, data, strategy, stop)
    return TrainingRun(module, data, trainer, stop, settled)


def _start_from(model: VideoDiffusionModel, config: Mapping[str, Any], published: Published | None) -> None:
    """Put the weights that training starts from into a model, if they are not the initial ones."""
    if published is not None:
        load_pretrained(published, model, config["model"]["pretrained"])
    if config["init_from"] is None:
        return
    if published is not None:
        raise ConfigError("init_from: the weights are those of model.pretrained; give one of the two")
    try:
        load_into(model, config["init_from"])
    except ValueError as error:
        raise ConfigError(f"init_from: {error}") from error


def describe_clips(data: ClipDataModule) -> dict[str, Any]:
    """Return what sampling must know of the clips, to be recorded with the run's configuration."""
    num_frames, height, width = data.clip_shape
    size = {"num_frames": num_frames, "height": height, "width": width}
    return {**size, "fps": data.fps or DEFAULT_FPS, "label_names": list(data.label_names)}


def _devices(trainer: Mapping[str, Any]) -> Devices:
    """Find what there is to train on, by a trainer that is not put to use."""
    keys = ("_target_", "accelerator", "devices", "num_nodes")
    try:
        nodes = {"plugins": cluster_environment(find_layout()), "logger": False}
        probe = build({key: trainer[key] for key in keys if key in trainer}, "trainer", **nodes, **_QUIET)
    except _REFUSALS as error:
        raise ConfigError(f"trainer: {' '.join(str(error).split())}") from error
    first = probe.strategy.root_device
    if first.type == "cuda":
        memory = torch.cuda.get_device_properties(first).total_memory
    else:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // probe.num_devices
    return Devices(first, probe.num_devices, probe.num_nodes, memory)


def _build_trainer(
    config: Mapping[str, Any], run: Path, data: ClipDataModule, strategy: SlicewiseStrategy, stop: StopOnSignal
) -> lightning.Trainer:
    """Build Lightning's trainer with the parts of the configuration that plug into it."""
    validation_steps = config["validate"]["every_steps"]
    if not isinstance(validation_steps, int) or validation_steps < 1:
        raise ConfigError(f"validate.every_steps={validation_steps}: must be a whole number, at least 1")
    defaults = {"run": run}
    callbacks: list[Callback] = [
        build(node, f"callbacks.{name}", defaults=defaults) for name, node in config["callbacks"].items() if node
    ]
    callbacks += [build(config[key], key, defaults=defaults) for key in ("bad_steps", "save")]
    # Saving comes after whatever changes the state that is saved, and before samples, which may run out of memory;
    # stopping ends a step that is wholly done.
    callbacks.sort(key=lambda callback: isinstance(callback, SampleVideos))
    callbacks += [stop, build(config["watchdog"], "watchdog")]
    loggers = [build(node, f"logger.{name}", defaults=defaults) for name, node in config["logger"].items() if node]
    profiler = config["profiler"] and build(config["profiler"], "profiler", defaults={"dirpath": run / "profile"})
    try:
        trainer = build(
            config["trainer"],
            "trainer",
            strategy=strategy,
            callbacks=callbacks,
            logger=loggers,
            profiler=profiler or None,
            default_root_dir=run,
            plugins=cluster_environment(find_layout()),
            max_epochs=-1,
            use_distributed_sampler=False,
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            limit_val_batches=0 if data.max_validation_clips == 0 else None,
            **{**_QUIET, "enable_progress_bar": any(isinstance(callback, ProgressBar) for callback in callbacks)},
        )
    except _REFUSALS as error:
        raise ConfigError(f"trainer: {' '.join(str(error).split())}") from error
    if trainer.is_global_zero and (complaint := idle_devices(data.global_batch_size, trainer.world_size)):
        _log.warning("%s", complaint)
    micro_batches = data.accumulation(trainer.world_size)
    trainer.accumulate_grad_batches = micro_batches
    trainer.val_check_interval = validation_steps * micro_batches
    return trainer
