"""Roll-back to a checkpoint during training."""

from pathlib import Path
from typing import cast

import lightning
from torch.optim.lr_scheduler import LambdaLR

from vdm.checkpoints.collectives import run_on_all
from vdm.checkpoints.layout import checkpoints_of
from vdm.training.lightning_internals import set_global_step
from vdm.training.module import DiffusionModule
from vdm.training.resuming import follow_schedule


def roll_back(trainer: lightning.Trainer, module: DiffusionModule, run: Path) -> bool:
    """Restore weights, EMAs, optimizer, schedule and step count from a run's latest whole checkpoint.

    The position in the data does not change, so training continues with samples that it has not seen. All processes
    call this together, between two optimizer steps, from a callback's ``on_train_batch_end``.

    Returns:
        Whether there was a checkpoint.

    Raises:
        ValueError: If no checkpoint is whole.
    """
    strategy = module.strategy
    strategy.writer.finish()
    if not run_on_all(lambda: bool(checkpoints_of(run)))[
        0
    ]:  # network file systems may show processes different contents
        return False
    checkpoint = strategy.load_checkpoint(run)
    strategy.load_model_state_dict(checkpoint)
    strategy.load_optimizer_state_dict(checkpoint)
    module.ema.load_state(checkpoint)
    (schedule,) = trainer.lr_scheduler_configs
    schedule.scheduler.load_state_dict(checkpoint["lr_schedulers"][0])
    follow_schedule(cast(LambdaLR, schedule.scheduler))
    set_global_step(trainer, checkpoint["global_step"])
    return True
