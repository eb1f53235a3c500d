"""Experiment loggers with typed arguments, for conf/logger; each writes into the run's folder."""

import secrets
from collections.abc import Iterable
from pathlib import Path

from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from lightning_utilities.core.rank_zero import rank_zero_only


def wandb(
    run: str | Path,
    project: str = "vdm",
    offline: bool = True,
    name: str | None = None,
    entity: str | None = None,
    tags: list[str] | None = None,
) -> Logger:
    """Return a Weights & Biases logger; offline it needs no account, and ``wandb sync`` uploads later.

    A resumed run goes on under the same id.

    Args:
        run: Folder of the run.
        project: Project on the dashboard.
        offline: Write to the folder only.
        name: Name on the dashboard; by default that of the run's folder.
        entity: User or team; by default that of the account.
        tags: Tags on the dashboard.
    """
    import wandb as library  # heavy, and needed by this logger alone

    run = Path(run)
    run.mkdir(parents=True, exist_ok=True)
    id_file = run / "wandb_id"
    if not id_file.exists():
        id_file.write_text(secrets.token_hex(4))
    return WandbLogger(
        name=name or run.name,
        save_dir=run,
        project=project,
        offline=offline,
        id=id_file.read_text().strip(),
        resume="allow" if not offline else None,
        entity=entity,
        tags=tags,
        settings=library.Settings(console="off", silent=True),
    )


def close(loggers: Iterable[Logger]) -> None:
    """End the runs of Weights & Biases, so that the next job of a sweep begins one of its own."""
    for logger in loggers:
        if isinstance(logger, WandbLogger) and rank_zero_only.rank == 0:
            logger.experiment.finish()


def csv(run: str | Path) -> Logger:
    """Return a logger that writes ``logs/version_0/metrics.csv``; each time the run is resumed adds a version."""
    return CSVLogger(save_dir=run, name="logs")


def tensorboard(run: str | Path) -> Logger:
    """Return a logger for ``tensorboard --logdir RUN``."""
    return TensorBoardLogger(save_dir=run, name="tensorboard", version="")
