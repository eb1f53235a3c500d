"""Weights & Biases."""

import hashlib
import json
import logging
import os
import secrets
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotated_types import Len
from lightning_utilities.core.rank_zero import rank_zero_only

from vdm.checkpoints.frozen import frozen_folder_of
from vdm.checkpoints.layout import CHECKPOINTS_NAME, CONFIG_NAME, FROZEN_NAME
from vdm.checkpoints.metrics_file import PLACE, metrics_lines
from vdm.credentials import without_credentials
from vdm.ranges import Folder, Name
from vdm.training.loggers.base import LoggedVideo, RunLogger
from vdm.training.loggers.wandb_files import IDENTITY_NAME, STEP, Identity, last_step, read_identity, write_identity
from vdm.training.loggers.wandb_server import unreachable

BEGIN_SECONDS = 30.0
"""How long the server may take to open a run."""
FINISH_SECONDS = 100.0
"""How long uploads may take at the end."""

_DATA_FOLDER = os.environ.get("WANDB_DATA_DIR")
"""The user's choice of a folder for W&B's data."""

_log = logging.getLogger(__name__)


class WandbLogger(RunLogger):
    """Logs to Weights & Biases; offline it needs no account, and ``wandb sync`` uploads later.

    W&B's step is the number of optimizer steps, and can't go back. A run that goes on keeps its W&B run: steps that W&B
    has already are the same again, and are left out; figures that it lost when the process was killed are taken from
    the run's own record. A run that goes on from an earlier checkpoint of the user's choice becomes another W&B run,
    with all figures up to there. W&B's step is ahead of ``trainer/global_step`` after training has gone back by itself
    (``bad_steps.policy=rollback``), after steps were repeated with settings that change their figures, and after the
    step from which a run goes on has been measured again.

    Logging never waits for the server: data that can't be uploaded stay in the run's folder. If the server can't be
    reached at the start, the whole run is logged offline, with a warning.

    Args:
        run: Folder of the run.
        project: Project on the dashboard.
        offline: Write to the folder only.
        name: Name on the dashboard; by default that of the run's folder.
        entity: User or team; by default that of the account.
        group: Runs that the dashboard shows together.
        tags: Tags on the dashboard.
        checkpoints: Whether each checkpoint is uploaded, as a version of the artifact ``checkpoint-ID``.
    """

    def __init__(
        self,
        run: Folder,
        project: Name = "vdm",
        offline: bool = True,
        name: Name | None = None,
        entity: Name | None = None,
        group: Name | None = None,
        tags: Annotated[list[Name], Len(0, 1000)] | None = None,
        checkpoints: bool = False,
    ) -> None:
        super().__init__()
        self.run, self.project, self.offline = Path(run), project, offline
        self.run_name, self.entity, self.group, self.tags = name, entity, group, tags
        self.checkpoints = checkpoints
        self._experiment: Any = None
        self._known_step = -1
        """The last step that W&B has from earlier starts."""
        self._latest_step = 0
        self._identity = Identity()
        self._again: int | None = None
        """The step at which training goes on, if W&B has a row of it; it may be measured again."""
        self._row_again: int | None = None
        """W&B's step of that row."""

    @property
    def name(self) -> str:
        """Name of the service."""
        return "W&B"

    @property
    def version(self) -> str | None:
        """Id of the W&B run."""
        return read_identity(self.run).name or None

    @property
    def save_dir(self) -> str:
        """The run's folder, in which W&B has a folder ``wandb``."""
        return str(self.run)

    @property
    def experiment(self) -> Any:
        """The W&B run, opened on first use; ``None`` in all processes but the first."""
        if self._experiment is None and rank_zero_only.rank == 0:
            self._open()
        return self._experiment

    def begin(self, config: Mapping[str, Any], step: int, is_rewound: bool) -> None:
        """Open the W&B run, offline where the server can't be reached or refuses, and log the configuration."""
        if is_rewound:
            (self.run / IDENTITY_NAME).unlink(missing_ok=True)
        self.experiment.config.update(dict(config), allow_val_change=True)
        self._settings = _checksum(config)

    def catch_up(self, step: int) -> None:
        """Log the figures up to a step that W&B lacks."""
        in_files = last_step(self.run, self._identity.name)
        self._known_step = max(in_files, self.experiment.starting_step - 1) - self._identity.ahead
        self._again = step if step <= self._known_step else None
        is_changed = self._identity.settings not in ("", self._settings)
        if is_changed and step < self._known_step:
            self.go_back(step)
        self._remember(settings=self._settings)
        for line in metrics_lines(self.run):
            if self._known_step < line["step"] <= step and self._again is None:
                figures = {name: value for name, value in line.items() if name not in PLACE}
                self._log_at(line["step"], figures | {"_timestamp": line["time"]})

    def go_back(self, step: int) -> None:
        """Let W&B's step be ahead by the steps that are done again."""
        steps = max(0, max(self._latest_step, self._known_step) - step)
        self._remember(ahead=self._identity.ahead + steps)
        self._known_step, self._latest_step = -1, step
        self._again, self._row_again = step, None

    def log_hyperparams(self, params: Mapping[str, Any], *args: Any, **kwargs: Any) -> None:
        """Log settings."""
        self.experiment.config.update(dict(params), allow_val_change=True)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log figures."""
        self._log_at(step, metrics)

    def log_videos(self, name: str, videos: Sequence[LoggedVideo], step: int) -> None:
        """Log videos, between whose steps a slider moves, and a table of them beside the real ones."""
        import wandb

        def shown(file: Path, caption: str = "") -> Any:
            return wandb.Video(str(file), caption=caption, format="mp4")

        has_references = any(video.reference for video in videos)
        columns: list[Any] = ["prompt", "sample", *(["reference"] if has_references else [])]
        table = wandb.Table(columns=columns)
        for video in videos:
            row = [video.caption, shown(video.file), video.reference and shown(video.reference)]
            table.add_data(*row[: len(columns)])
        self._log_at(step, {name: [shown(video.file, video.caption) for video in videos], f"{name}_table": table})

    def log_picture(self, name: str, file: Path, caption: str, step: int) -> None:
        """Log a png file."""
        import wandb

        self._log_at(step, {name: wandb.Image(str(file), caption=caption)})

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int) -> None:
        """Log a table."""
        import wandb

        self._log_at(step, {name: wandb.Table(columns=list(columns), data=[list(row) for row in rows])})

    def log_histogram(self, name: str, edges: Sequence[float], heights: Sequence[float], step: int) -> None:
        """Log bars, which W&B shows over time as a heat map."""
        import wandb

        self._log_at(step, {name: wandb.Histogram(np_histogram=(np.array(heights), np.array(edges)))})

    def log_checkpoint(self, folder: Path, step: int) -> None:
        """Upload a checkpoint, if that was asked for, laid out as a run of its own."""
        import wandb

        if self.checkpoints:
            artifact = wandb.Artifact(f"checkpoint-{self.version}", type="model", metadata={"step": step})
            artifact.add_file(str(folder.parent.parent / CONFIG_NAME))
            artifact.add_dir(str(folder), name=f"{CHECKPOINTS_NAME}/{folder.name}")
            frozen = frozen_folder_of(folder)
            if frozen is not None:  # uploaded once: W&B knows files by their content
                artifact.add_dir(str(frozen), name=f"{FROZEN_NAME}/{frozen.name}")
            self.experiment.log_artifact(artifact, aliases=["latest", f"step-{step}"])

    def close(self) -> None:
        """End the W&B run."""
        if self._experiment is not None:
            self._experiment.finish()

    def _log_at(self, step: int | None, values: Mapping[str, Any]) -> None:
        if step is None:
            self.experiment.log(dict(values))
        elif step == self._again:
            self._log_again(step, values)
        elif step > self._known_step:
            self.experiment.log({**values, STEP: step}, step=step + self._identity.ahead)
            self._latest_step = step

    def _log_again(self, step: int, values: Mapping[str, Any]) -> None:
        """Log in a row of its own, which follows all that W&B has."""
        if self._row_again is None:
            self._remember(ahead=self._identity.ahead + 1)
            self._row_again = max(step, self._known_step) + self._identity.ahead
        self.experiment.log({**values, STEP: step}, step=self._row_again)

    def _remember(self, **values: Any) -> None:
        self._identity = self._identity._replace(**values)
        write_identity(self.run, self._identity)

    def _open(self) -> None:
        if not self.offline and (complaint := unreachable()) is not None:
            self._take_offline(complaint)
        try:
            self._experiment = self._init()
        except Exception as error:
            from wandb.errors import Error

            if self.offline or not isinstance(error, Error):
                raise
            self._take_offline(" ".join(str(error).split()))
            self._experiment = self._init()
        self._experiment.define_metric(STEP, hidden=True)

    def _init(self) -> Any:
        import wandb  # heavy, and needed by this logger alone

        self.run.mkdir(parents=True, exist_ok=True)
        # Videos in tables wait there for their upload; by default, in the user's home.
        os.environ["WANDB_DATA_DIR"] = _DATA_FOLDER or str(self.run / "wandb" / "data")
        self._identity = read_identity(self.run)
        if not self._identity.name:  # a full disk may have left an empty file
            self._remember(name=secrets.token_hex(4))
        with _arguments_without_credentials():
            return wandb.init(
                name=self.run_name or self.run.name,
                dir=self.run,
                project=self.project,
                id=self._identity.name,
                entity=self.entity,
                group=self.group,
                tags=self.tags,
                mode="offline" if self.offline and os.environ.get("WANDB_MODE") != "disabled" else None,
                resume=None if self.offline else "allow",
                settings=wandb.Settings(
                    console="off",
                    silent=True,
                    init_timeout=BEGIN_SECONDS,
                    finish_timeout=FINISH_SECONDS,
                    finish_timeout_raises=False,
                ),
            )

    def _take_offline(self, complaint: str) -> None:
        _log.warning("W&B: %s; logging offline, into %s/wandb: upload it later by `wandb sync`", complaint, self.run)
        self.offline = True


def _checksum(config: Mapping[str, Any]) -> str:
    """Return a checksum of the settings that a resumed run may change, and on which the figures of a step depend."""
    data = config.get("data_sets", ())
    path = config.get("data", {}).get("path")
    shares = list(path.values()) if isinstance(path, Mapping) else None
    decisive = [config.get("lr_schedule"), config.get("bad_steps"), [one["checksum"] for one in data], shares]
    return hashlib.blake2b(json.dumps(decisive).encode(), digest_size=4).hexdigest()


@contextmanager
def _arguments_without_credentials() -> Iterator[None]:
    """Have W&B, which records the arguments of the process, see them without credentials."""
    arguments = sys.argv
    sys.argv = without_credentials(arguments)
    try:
        yield
    finally:
        sys.argv = arguments
