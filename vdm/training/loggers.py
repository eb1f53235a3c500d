"""Experiment loggers with typed arguments, for conf/logger; each writes into the run's folder."""

import logging
import os
import secrets
import urllib.error
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Len
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from lightning_utilities.core.rank_zero import rank_zero_only

from vdm.files import write_file
from vdm.ranges import Folder, Name
from vdm.training.lightning_internals import is_offline, remove_anonymous, take_offline

REACHED_SECONDS = 5.0
"""How long the server of Weights & Biases may take to answer."""
BEGIN_SECONDS = 30.0
"""How long the server may take to open a run."""
FINISH_SECONDS = 120.0
"""How long uploads may take at the end."""

_log = logging.getLogger(__name__)


def wandb(
    run: Folder,
    project: Name = "vdm",
    offline: bool = True,
    name: Name | None = None,
    entity: Name | None = None,
    group: Name | None = None,
    tags: Annotated[list[Name], Len(0, 1000)] | None = None,
) -> Logger:
    """Return a Weights & Biases logger; offline it needs no account, and ``wandb sync`` uploads later.

    A resumed run keeps its id. Logging never waits for the server: data that can't be uploaded stay in the run's
    folder. If the server can't be reached at the start, the whole run is logged offline, with a warning.

    Args:
        run: Folder of the run.
        project: Project on the dashboard.
        offline: Write to the folder only.
        name: Name on the dashboard; by default that of the run's folder.
        entity: User or team; by default that of the account.
        group: Runs that the dashboard shows together.
        tags: Tags on the dashboard.
    """
    import wandb as library  # heavy, and needed by this logger alone

    run = Path(run)
    run.mkdir(parents=True, exist_ok=True)
    logger = WandbLogger(
        name=name or run.name,
        save_dir=run,
        project=project,
        offline=offline,
        id=_run_id(run / "wandb_id"),
        resume="allow" if not offline else None,
        entity=entity,
        group=group,
        tags=tags,
        settings=library.Settings(
            console="off",
            silent=True,
            init_timeout=BEGIN_SECONDS,
            finish_timeout=FINISH_SECONDS,
            finish_timeout_raises=False,
        ),
    )
    remove_anonymous(logger)
    return logger


def _run_id(file: Path) -> str | None:
    """Return the run's id on the dashboard, kept in a file; processes other than the first need none."""
    if rank_zero_only.rank != 0:
        return None
    known = file.read_text(encoding="utf-8").strip() if file.exists() else ""
    if not known:  # a full disk may have left an empty file
        known = secrets.token_hex(4)
        write_file(file, known)
    return known


def begin(loggers: Iterable[Logger]) -> None:
    """Open the runs of Weights & Biases, offline where the server can't be reached or refuses."""
    for logger in loggers:
        if isinstance(logger, WandbLogger) and rank_zero_only.rank == 0 and not is_offline(logger):
            complaint = _unreachable() or _refused(logger)
            if complaint is not None:
                _log.warning(
                    "W&B: %s; logging offline, into %s/wandb: upload it later by `wandb sync`",
                    complaint,
                    logger.save_dir,
                )
                take_offline(logger)
                _ = logger.experiment


def _unreachable() -> str | None:
    """Return why the server can't be reached, if so; any answer counts as reached."""
    import wandb as library

    url = os.environ.get("WANDB_BASE_URL") or library.setup().settings.base_url
    if os.environ.get("WANDB_MODE", "online") != "online":
        return None
    try:
        urllib.request.urlopen(url, timeout=REACHED_SECONDS).close()
    except urllib.error.HTTPError:
        return None
    except (OSError, ValueError) as error:
        return f"{url} can't be reached: {getattr(error, 'reason', None) or error}"
    return None


def _refused(logger: Any) -> str | None:
    """Open the run, and return why the server refuses it, if so."""
    from wandb.errors import Error

    try:
        _ = logger.experiment
    except Error as error:
        return " ".join(str(error).split())
    return None


def close(loggers: Iterable[Logger]) -> None:
    """End the runs of Weights & Biases, so that the next job of a sweep begins one of its own."""
    for logger in loggers:
        if isinstance(logger, WandbLogger) and rank_zero_only.rank == 0:
            logger.experiment.finish()


def csv(run: Folder) -> Logger:
    """Return a logger that writes ``logs/version_0/metrics.csv``; each resume adds a version."""
    return CSVLogger(save_dir=run, name="logs")


def tensorboard(run: Folder) -> Logger:
    """Return a logger for ``tensorboard --logdir RUN``."""
    return TensorBoardLogger(save_dir=run, name="tensorboard", version="")
