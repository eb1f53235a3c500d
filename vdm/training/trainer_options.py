"""The options of Lightning's trainer that have an effect, and what to use in place of the others.

``vdm.config`` checks a ``trainer`` node against this class before Lightning is imported, instead of against Lightning's
own constructor, which types its options loosely; half of them would have no effect here.
"""

import re
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Interval, Len
from pydantic import AfterValidator

from vdm.ranges import Count, Instead, NotNegative

_CANONICAL = {"32": "32-true", "16": "16-mixed", "bf16": "bf16-mixed"}
"""Full names of Lightning's abbreviations."""


def canonical_precision(precision: str | int | None) -> str:
    """Return the full name of a precision: ``bf16-mixed`` for ``bf16``."""
    return _CANONICAL.get(str(precision), "32-true" if precision is None else str(precision))


def _listed(devices: str) -> str:
    if not re.fullmatch(r"-1|[1-9]\d{0,3}|\d{1,4}(,\d{1,4})*,|\d{1,4}(,\d{1,4})+", devices):
        raise ValueError("must be auto, how many devices there are, -1 for all, or a list of their numbers")
    return devices


def _length(time: str) -> str:
    if not re.fullmatch(r"\d{1,6}:\d\d:\d\d:\d\d", time) or not re.search("[1-9]", time):
        raise ValueError('must be "days:hours:minutes:seconds" and above 0, such as "00:12:00:00"')
    return time


Time = Annotated[str, AfterValidator(_length)]
Unit = Literal["weeks", "days", "hours", "minutes", "seconds"]
NumDevices = Annotated[int, Interval(ge=1, le=1024)]
DeviceNumber = Annotated[int, Interval(ge=0, lt=1024)]


@dataclass(frozen=True)
class TrainerOptions:
    """Options of ``lightning.Trainer``; conf/trainer/default.yaml explains the usual ones."""

    max_steps: Literal[-1] | Count = -1
    """-1 for no end."""
    max_time: Time | Annotated[dict[Unit, Annotated[int, Interval(ge=1, le=1_000_000)]], Len(1, 5)] | None = None
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"] = "auto"
    devices: (
        Literal["auto", -1]
        | NumDevices
        | Annotated[list[DeviceNumber], Len(1, 1024)]
        | Annotated[str, AfterValidator(_listed)]
    ) = "auto"
    num_nodes: Annotated[int, Interval(ge=1, le=100_000)] = 1
    precision: Literal["32-true", "bf16-mixed", "16-mixed", "32", "bf16", "16", 32, 16] | None = None
    """Weights and EMA weights are always fp32."""
    gradient_clip_val: NotNegative | None = None
    """0 for none, as in Lightning."""
    gradient_clip_algorithm: Literal["norm"] | None = None
    """Clipping by value would change the direction of the gradient; no strategy here supports it."""
    log_every_n_steps: Count = 50
    deterministic: bool | Literal["warn"] | None = None
    benchmark: bool | None = None
    detect_anomaly: bool = False
    inference_mode: bool = True

    # Options that other keys replace.
    accumulate_grad_batches: Annotated[None, Instead("set data.micro_batch_size")] = None
    callbacks: Annotated[None, Instead("add to the group callbacks")] = None
    check_val_every_n_epoch: Annotated[None, Instead("set validate.every_steps")] = None
    default_root_dir: Annotated[None, Instead("set hydra.run.dir")] = None
    enable_checkpointing: Annotated[None, Instead("set save.every_steps")] = None
    enable_model_summary: Annotated[None, Instead("use vdm plan, which prints the size")] = None
    enable_progress_bar: Annotated[None, Instead("set callbacks.progress, null for none")] = None
    limit_val_batches: Annotated[None, Instead("set data.max_validation_clips")] = None
    logger: Annotated[None, Instead("choose by the group logger")] = None
    max_epochs: Annotated[None, Instead("set trainer.max_steps, as data are endless")] = None
    min_epochs: Annotated[None, Instead("set trainer.max_steps, as data are endless")] = None
    min_steps: Annotated[None, Instead("set trainer.max_steps; a run ends earlier only if it is told to")] = None
    num_sanity_val_steps: Annotated[None, Instead("set validate.every_steps")] = None
    overfit_batches: Annotated[None, Instead("set data.overfit_one_batch=true")] = None
    profiler: Annotated[None, Instead("use debug=profile, or the group profiler")] = None
    strategy: Annotated[None, Instead("choose by the group strategy")] = None
    val_check_interval: Annotated[None, Instead("set validate.every_steps")] = None
    limit_train_batches: Annotated[None, Instead("set trainer.max_steps")] = None
    fast_dev_run: Annotated[None, Instead("set trainer.max_steps, or use debug=overfit")] = None

    # Options that would have no effect, or do harm.
    barebones: Annotated[None, Instead("this run needs callbacks and loggers")] = None
    enable_autolog_hparams: Annotated[None, Instead("loggers get the run's whole configuration")] = None
    limit_predict_batches: Annotated[None, Instead("use vdm sample")] = None
    limit_test_batches: Annotated[None, Instead("use vdm evaluate")] = None
    model_registry: Annotated[None, Instead("use vdm export")] = None
    plugins: Annotated[None, Instead("processes are found automatically; set trainer.precision")] = None
    reload_dataloaders_every_n_epochs: Annotated[None, Instead("data are endless")] = None
    sync_batchnorm: Annotated[None, Instead("not every strategy supports it; use a norm over each clip")] = None
    use_distributed_sampler: Annotated[None, Instead("the data module assigns clips to processes")] = None
