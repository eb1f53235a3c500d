"""The beginning of a run's logs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback

from vdm.checkpoints.run_record import versions_of
from vdm.credentials import without_credentials
from vdm.training.loggers.base import run_loggers
from vdm.training.module import DiffusionModule


class BeginLogging(Callback):
    """Opens the loggers when it is known at which step training begins. It comes before all that log.

    Args:
        run: Folder of the run.
        config: Whole configuration.
    """

    def __init__(self, run: Path, config: Mapping[str, Any]) -> None:
        self.run = run
        self.config = config

    def on_train_start(self, trainer: lightning.Trainer, pl_module: DiffusionModule) -> None:
        """Log the configuration, with the versions of code and packages, and what earlier starts have not logged."""
        loggers = run_loggers(trainer)
        if not loggers:
            return
        versions = [{}, *versions_of(self.run)][-1]
        logged = {**self.config, **{name: value for name, value in versions.items() if name != "packages"}}
        for logger in loggers:
            logger.begin(without_credentials(logged), trainer.global_step, pl_module.strategy.is_rewound)
