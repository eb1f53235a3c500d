"""``vdm train``: the training step is ``DiffusionModule.training_step`` in vdm/training/module.py."""

import logging
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from lightning_utilities.core.rank_zero import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from vdm.assembly.time_shift import shifts_by_size
from vdm.checkpoints.latest import checkpoints_to_try
from vdm.checkpoints.layout import checkpoints_of
from vdm.cli.next_step import command, say_next
from vdm.cli.sweeps import grouped, present_sweep
from vdm.config import ConfigError, build
from vdm.config import check as check_node
from vdm.processes import ProcessDiedError, is_first_of_run
from vdm.training.launcher import die_with_parent
from vdm.training.lr_schedules import WarmupConstant, WarmupCosine, WarmupLinear
from vdm.training.run_lock import lock_run, refuse_if_locked
from vdm.training.slurm import SlurmJob
from vdm.training.training_run import TrainingRun, build_training


def run(config: DictConfig) -> int:
    """Train as configured, from the beginning or from a checkpoint; return the exit code."""
    die_with_parent()
    quieten()
    plain: Any = OmegaConf.to_container(config, resolve=True)
    plain["logger"] = grouped(plain["logger"], present_sweep())
    folder = Path(HydraConfig.get().runtime.output_dir)
    checkpoint = None if plain["resume"] is None else Path(plain["resume"])
    if checkpoint is not None:
        checkpoints_to_try(checkpoint)  # fails before anything is built; processes choose a complete one together later
    refuse_if_locked(folder, is_first_of_run())  # likewise
    training = build_training(plain, folder)
    if not training.trainer.is_global_zero:
        return _train(training, checkpoint)
    with lock_run(folder) as lock:
        if checkpoint is None and checkpoints_of(folder):
            raise ConfigError(
                f"{folder}: a run has been trained here since this command began; resume={folder} goes on"
            )
        training.strategy.run_lock = lock
        return _train(training, checkpoint)


def _train(training: TrainingRun, checkpoint: Path | None) -> int:
    """Train in the run's folder; return the exit code."""
    _announce(training, checkpoint)
    if training.trainer.is_global_zero:
        warn_of_short_training(training)
    training.record()
    try:
        training.fit(checkpoint)
    except ProcessDiedError as error:  # no mistake: a job that is started again resumes
        print(error, file=sys.stderr)
        raise SystemExit(1) from error

    code = _farewell(training) if training.module.has_begun else _nothing_to_do(training)
    _requeue(training)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()  # the next run of a sweep creates another
    return code


def check(config: DictConfig) -> None:
    """Refuse a configuration that can't be trained, as far as that is known without the machine that will run it.

    Raises:
        ConfigError: One line that names the key.
    """
    plain: Any = OmegaConf.to_container(config, resolve=True)
    check_node(plain)
    try:
        build(plain["data"], "data").check()
    except ValueError as error:
        raise ConfigError(f"data.path: {error}") from error


def _announce(training: TrainingRun, checkpoint: Path | None) -> None:
    num_weights = sum(p.numel() for p in training.module.parameters() if p.requires_grad)
    shape = "x".join(map(str, training.data.clip_shape))
    trainer = training.trainer
    logging.getLogger(__name__).info(
        "Run %s: %.1f M weights, %d clips of %s, %d a step on %d process(es)%s",
        training.folder,
        num_weights / 1e6,
        training.data.num_train_samples,
        shape,
        training.data.global_batch_size,
        trainer.world_size,
        f", resuming from {checkpoint}" if checkpoint else "",
    )
    for clip, shift in shifts_by_size(training.module.model, training.data.clip_shapes).items():
        logging.getLogger(__name__).info("Time shift of clips of %s: %s", clip, shift)


def warn_of_short_training(training: TrainingRun) -> None:
    """Warn of a run that ends before the warm-up of its learning rate does."""
    schedule, last = training.module.lr_schedule, training.trainer.max_steps
    if isinstance(schedule, WarmupConstant | WarmupCosine | WarmupLinear) and 0 < last <= schedule.warmup_steps:
        logging.getLogger(__name__).warning(
            "trainer.max_steps=%d: training ends within the warm-up, at a learning rate far below optimizer.lr; choose"
            " lr_schedule.warmup_steps below its present %d",
            last,
            schedule.warmup_steps,
        )


def _farewell(training: TrainingRun) -> int:
    trainer, folder = training.trainer, training.folder
    if not training.stop.stopped:
        if trainer.is_global_zero:
            print(f"Trained {trainer.global_step} steps. The run is in {folder}")
            say_next(
                command("vdm sample", checkpoint=folder),
                command("vdm evaluate", checkpoint=folder),
                command("vdm report", run=folder),
            )
        return 0
    if trainer.is_global_zero and not checkpoints_of(folder):
        print("Stopped before the first step; nothing was saved", file=sys.stderr)
    elif trainer.is_global_zero:
        print(f"Stopped and saved after step {trainer.global_step}", file=sys.stderr)
        say_next(command("vdm train", resume=folder), file=sys.stderr)
    return 128 + (training.stop.received or signal.SIGINT)


def _nothing_to_do(training: TrainingRun) -> int:
    trainer = training.trainer
    if trainer.is_global_zero:
        steps = trainer.global_step
        print(f"Nothing left to do: the run has done {steps} of {trainer.max_steps} steps")
        say_next(command("vdm train", resume=training.folder, trainer__max_steps=str(2 * steps)))
    return 0


def _requeue(training: TrainingRun) -> None:
    """Requeue a SLURM job that was stopped, before an exit code of a process makes SLURM end it."""
    job = SlurmJob.current()
    if job is None or not training.stop.stopped:
        return
    if training.trainer.is_global_zero:
        print(job.requeue(), file=sys.stderr, flush=True)
    training.trainer.strategy.barrier("requeue")


def quieten() -> None:
    """Silence messages that users can't act on; the others are checked and printed by this project.

    Only the first process reports progress.
    """
    if rank_zero_only.rank:
        logging.getLogger("vdm").setLevel(logging.WARNING)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",  # small clips are decoded faster than they are trained on
        ".*isinstance.treespec, LeafSpec.*",  # between Lightning and torch
        ".*The `srun` command is available.*",  # Lightning's advice; launching is the user's choice
        r".*add the following callbacks: \['StepProgressBar'\].*",  # a resumed run may have no progress bar
    ):
        warnings.filterwarnings("ignore", message=message)
