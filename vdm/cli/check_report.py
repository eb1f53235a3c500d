"""The report of ``vdm check``: what the run would do and take, by its configuration and the rehearsed steps."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from vdm.assembly.time_shift import shifts_by_size
from vdm.cli.options.memory import GIB
from vdm.training.callbacks.samples import SampleVideos
from vdm.training.memory_use import peak_bytes
from vdm.training.rehearsal import Rehearsal
from vdm.training.training_run import TrainingRun

_NAME_WIDTH = 14


def report(training: TrainingRun, plain: Mapping[str, Any], rehearsal: Rehearsal, folder: str) -> Iterator[str]:
    """Yield the lines of the report.

    Args:
        training: The run that was rehearsed.
        plain: The configuration of the run itself, without the changes of the rehearsal.
        rehearsal: What was measured.
        folder: The folder that the run would have.
    """
    if not training.module.has_begun:
        steps = training.trainer.global_step
        yield f"Nothing left to do: the run has done {steps} of {training.trainer.max_steps} steps"
        return
    yield "The check passed. The run would be:"
    for name, text in (
        *_data(training),
        *_model(training),
        *_steps(training, plain, rehearsal),
        *_saving(training, plain, rehearsal),
        *_length(training, plain, rehearsal),
        ("folder", folder),
        ("logger", ", ".join(_loggers(plain)) or "none"),
    ):
        yield f"{name:{_NAME_WIDTH}}{text}"
    yield from _warnings(rehearsal)


def _data(training: TrainingRun) -> Iterator[tuple[str, str]]:
    data, size = training.data, training.data.num_train_samples
    shapes = ", ".join("x".join(map(str, shape)) for shape in data.clip_shapes)
    fps = f" at {data.fps:g} frames per second" if data.fps else ""
    yield "data", f"{data.name}: {size:,} clips of {shapes}{fps} to train on, {data.validation.num_samples:,} held out"
    known = [one for one in data.sets if one.index.num_uncaptioned is not None]
    total = sum(int(one.shards("train").num_samples.sum()) for one in known)
    without = sum((one.index.num_uncaptioned or {}).get("train", 0) for one in known)
    classes = f"; {len(data.label_names)} classes" if data.label_names else ""
    yield "captions", f"{total - without:,} of {total:,} training clips have one{classes}"
    steps, batch = training.trainer.max_steps, data.global_batch_size
    passes = f"{steps * batch / size:,.1f} times over all clips" if steps > 0 else "without end"
    yield "passes", f"{passes}, {batch} clips a step"


def _model(training: TrainingRun) -> Iterator[tuple[str, str]]:
    module, trainer = training.module, training.trainer
    parameters = list(module.parameters())
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    frozen = sum(p.numel() for p in parameters) - trained
    takes = ", ".join(module.model.conditioner.takes) or "none"
    part = "" if trainer.world_size == 1 else " (on this process, where they are sharded)"
    yield "model", f"{trained:,} weights trained, {frozen:,} frozen{part}; conditions: {takes}"
    micro, number = training.data.accumulation(trainer.world_size), trainer.world_size
    slots = math.ceil(training.data.global_batch_size / number / micro)
    for clip, shift in shifts_by_size(module.model, training.data.clip_shapes).items():
        yield "time shift", f"{shift}, for clips of {clip}"
    yield "batch", f"{number} process(es) x {micro} micro-batch(es) of {slots} clips"
    device = module.device
    strategy = type(trainer.strategy).__name__
    yield "devices", f"{number} x {device.type}, {strategy}, precision {trainer.precision}"


def _steps(training: TrainingRun, plain: Mapping[str, Any], rehearsal: Rehearsal) -> Iterator[tuple[str, str]]:
    last, first = training.trainer.max_steps, rehearsal.first_step
    goes_on = f", from step {first} on" if first else ""
    yield "steps", (f"{last:,}" if last > 0 else "without end") + goes_on
    rate, schedule = plain["optimizer"].get("lr"), training.module.lr_schedule
    if isinstance(rate, int | float):
        end = last if last > 0 else 100_000
        marks = sorted({0, getattr(schedule, "warmup_steps", 0), end // 2, end - 1} & set(range(end)))
        yield "learning rate", ", ".join(f"{rate * schedule(step):.3g} at step {step:,}" for step in marks)
    losses = [f"{loss:.4g}" for loss in rehearsal.losses]
    yield "loss", f"{', '.join(losses)} in the first {len(losses)} steps"


def _saving(training: TrainingRun, plain: Mapping[str, Any], rehearsal: Rehearsal) -> Iterator[tuple[str, str]]:
    size, keep = rehearsal.checkpoint_bytes, plain["save"]["keep"]
    of_frozen = rehearsal.frozen_bytes
    frozen = f", and once {_bytes(of_frozen)} of weights that are not trained" if of_frozen else ""
    kept = f"the last {keep['last']} are kept" + (" and others" if keep["every_steps"] or keep["best"] else "")
    yield (
        "checkpoints",
        f"every {plain['save']['every_steps']:,} steps, {_bytes(size)} each{frozen}, {kept}; one took"
        f" {rehearsal.seconds['saving']:.1f} s to save, {rehearsal.seconds['loading']:.1f} s to load",
    )
    if "validation" in rehearsal.seconds:
        yield (
            "validation",
            f"every {plain['validate']['every_steps']:,} steps; one batch took {rehearsal.seconds['validation']:.1f} s",
        )
    else:
        yield "validation", "none"
    samples = [
        node for node in plain["callbacks"].values() if node and node.get("_target_", "") == _target(SampleVideos)
    ]
    for node in samples:
        yield (
            "samples",
            f"every {node['every_steps']:,} steps; one video in few steps took"
            f" {rehearsal.seconds.get('sampling', 0):.1f} s",
        )


def _length(training: TrainingRun, plain: Mapping[str, Any], rehearsal: Rehearsal) -> Iterator[tuple[str, str]]:
    seconds, last = rehearsal.step_seconds, training.trainer.max_steps
    if seconds is not None:
        left = last - rehearsal.first_step
        whole = f": {_duration(seconds * left)} for {left:,} steps, beside validation and samples" if last > 0 else ""
        yield "time", f"{seconds:.3g} s a step{whole}"
    used, whose = peak_bytes(training.module.device)
    yield "memory", f"{_bytes(used)} at most {whose}, in the first process"


def _warnings(rehearsal: Rehearsal) -> Iterator[str]:
    if not all(map(math.isfinite, rehearsal.losses)):
        yield "WARNING: the loss is not finite: look at the data, at optimizer.lr and at trainer.precision"


def _loggers(plain: Mapping[str, Any]) -> Iterator[str]:
    for name, node in plain["logger"].items():
        if node:
            yield f"{name} (offline)" if node.get("offline") else name


def _target(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _bytes(number: float) -> str:
    return f"{number / GIB:,.2f} GiB" if number >= GIB / 10 else f"{number / 2**20:,.1f} MiB"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    if minutes < 90:
        return f"{minutes:.0f} min"
    hours = minutes / 60
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} days"
