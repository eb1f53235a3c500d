"""Weights & Biases, offline or out of reach, read back from the files that ``wandb sync`` uploads."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import wandb
from PIL import Image

from tests.training.zygote import free_port
from vdm.checkpoints.metrics_file import METRICS_NAME, metrics_line
from vdm.generation.video_files import write_mp4
from vdm.training.loggers import wandb_server
from vdm.training.loggers.background import as_run_logger
from vdm.training.loggers.base import LoggedVideo
from vdm.training.loggers.wandb_files import _records, last_step, read_identity
from vdm.training.loggers.wandb_logger import WandbLogger


def history(run: Path) -> list[dict[str, Any]]:
    """Return the rows of all W&B runs of a run, in order of their files."""
    wandb.teardown()  # W&B's own process writes the last rows after the end of a run
    from wandb.proto.wandb_internal_pb2 import Record

    rows = []
    for file in sorted((run / "wandb").glob("offline-run-*/*.wandb")):
        for content in _records(file):
            record = Record()
            record.ParseFromString(content)
            if record.WhichOneof("record_type") == "history":
                items = record.history.item
                rows.append({item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items})
    return rows


def keep_record(run: Path, steps: range) -> None:
    """Write the run's own record, with a loss of 1 / step."""
    run.mkdir(exist_ok=True)
    lines = [metrics_line(step, 1e9 + step, 8 * step, {"train/loss": 1 / step}) for step in steps]
    (run / METRICS_NAME).write_bytes(b"".join(lines))


def log(
    run: Path, begin: int, steps: range, is_rewound: bool = False, scale: float = 1.0, metric: float | None = None
) -> str:
    """Log as a start of a run does; return the id of the W&B run.

    Args:
        run: Folder of the run.
        begin: Step at which it goes on.
        steps: Steps whose loss is logged.
        is_rewound: Whether it goes on from an earlier checkpoint.
        scale: Factor of the learning rate, on which the loss depends.
        metric: A metric of ``begin`` that is logged first.
    """
    time.sleep(1.1 if (run / "wandb").exists() else 0)  # W&B names its folders by the second
    logger = as_run_logger(WandbLogger(run))
    assert logger.experiment is None  # type: ignore[attr-defined]  # Lightning asks for it in its set-up
    logger.begin({"seed": 0, "lr_schedule": {"factor": scale}}, begin, is_rewound)
    if metric is not None:
        logger.log_metrics({"val/fvd": metric}, begin)
        logger.log_histogram("val/loss_by_level", [0, 1], [1.0], begin)
    for step in steps:
        logger.log_metrics({"train/loss": scale / step}, step)
    identity = logger.version
    logger.close()
    wandb.teardown()
    return str(identity)


def test_each_run_of_a_process_has_its_own_wandb_run_and_a_resumed_one_its_own_again(tmp_path: Path) -> None:
    ids = [log(tmp_path / name, 0, range(1, 2)) for name in ("a", "b", "a")]
    assert ids[0] == ids[2] != ids[1]


KILLED = """
import os, signal, sys, time
from pathlib import Path
from vdm.training.loggers.wandb_logger import WandbLogger
logger = WandbLogger(Path(sys.argv[1]))
logger.begin({}, 0, False)
for step in range(1, 9):
    logger.log_metrics({"train/loss": 1 / step}, step)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_killed_run_that_goes_on_has_each_step_once_and_in_order_in_its_files(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert subprocess.run([sys.executable, "-c", KILLED, run], check=False).returncode == -signal.SIGKILL
    keep_record(run, range(1, 6))  # up to the checkpoint: step 5
    first = log(run, 5, range(6, 11))
    log(run, 8, range(9, 13))  # ended well after step 10, and goes on from an earlier step
    assert read_identity(run).name == first
    rows = history(run)
    assert [row["_step"] for row in rows] == list(range(1, 13))
    assert [row["trainer/global_step"] for row in rows] == list(range(1, 13))
    assert [row["train/loss"] for row in rows] == pytest.approx([1 / step for step in range(1, 13)])


def test_logger_that_is_added_later_gets_what_the_run_has_logged_before(tmp_path: Path) -> None:
    keep_record(tmp_path, range(1, 31))
    log(tmp_path, 20, range(21, 23))
    rows = history(tmp_path)
    assert [row["_step"] for row in rows] == list(range(1, 23))
    assert rows[3]["_timestamp"] == 1e9 + 4


def test_run_that_goes_on_from_an_earlier_checkpoint_becomes_another_wandb_run_with_all_before(tmp_path: Path) -> None:
    first = log(tmp_path, 0, range(1, 11))
    keep_record(tmp_path, range(1, 11))
    second = log(tmp_path, 4, range(5, 7), is_rewound=True)
    assert second != first
    assert last_step(tmp_path, first) == 10
    assert [row["_step"] for row in history(tmp_path)][10:] == [1, 2, 3, 4, 5, 6]


def test_training_that_goes_back_loses_no_row(tmp_path: Path) -> None:
    logger = as_run_logger(WandbLogger(tmp_path))
    logger.begin({}, 0, False)
    for step in (1, 2, 3):
        logger.log_metrics({"train/loss": 1.0}, step)
    logger.go_back(1)
    for step in (2, 3):
        logger.log_metrics({"train/loss": 2.0}, step)
    logger.close()
    keep_record(tmp_path, range(1, 4))
    log(tmp_path, 3, range(4, 5))
    rows = history(tmp_path)
    assert [row["_step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row["trainer/global_step"] for row in rows] == [1, 2, 3, 2, 3, 4]


def test_steps_that_are_repeated_with_other_settings_are_logged_again_and_once(tmp_path: Path) -> None:
    first = log(tmp_path, 0, range(1, 9))
    keep_record(tmp_path, range(1, 6))
    assert log(tmp_path, 5, range(6, 8), scale=2.0) == first
    keep_record(tmp_path, range(1, 6))
    log(tmp_path, 5, range(6, 10), scale=2.0)  # killed before its next checkpoint
    rows = history(tmp_path)
    assert [row["trainer/global_step"] for row in rows] == [*range(1, 9), 6, 7, 8, 9]
    assert [row["_step"] for row in rows] == list(range(1, 13))
    assert [row["train/loss"] for row in rows[8:]] == pytest.approx([2 / step for step in range(6, 10)])


@pytest.mark.parametrize("known", [5, 8])
def test_step_that_is_measured_again_on_resume_has_its_figures(tmp_path: Path, known: int) -> None:
    log(tmp_path, 0, range(1, known + 1))
    for _ in range(2):  # killed after each measurement, and before its results were written
        keep_record(tmp_path, range(1, 6))
        log(tmp_path, 5, range(6, known + 1), metric=70.0)
    keep_record(tmp_path, range(1, 6))
    log(tmp_path, 5, range(6, 11))
    rows = history(tmp_path)
    steps = [*range(1, known + 1), 5, 5, *range(known + 1, 11)]
    assert [row["trainer/global_step"] for row in rows] == steps
    assert [row["_step"] for row in rows] == list(range(1, len(steps) + 1))
    assert [row.get("val/fvd") for row in rows[known : known + 2]] == [70.0, 70.0]
    assert all("train/loss" not in row and "val/loss_by_level/values" in row for row in rows[known : known + 2])


def test_step_that_is_measured_after_going_back_does_not_change_the_row_before(tmp_path: Path) -> None:
    logger = as_run_logger(WandbLogger(tmp_path))
    logger.begin({}, 0, False)
    for step in (1, 2, 3):
        logger.log_metrics({"train/loss": 1.0}, step)
    logger.go_back(2)
    logger.log_metrics({"val/fvd": 70.0}, 2)
    logger.log_metrics({"train/loss": 2.0}, 3)
    logger.close()
    rows = [(row["trainer/global_step"], row.get("train/loss"), row.get("val/fvd")) for row in history(tmp_path)]
    assert rows == [(1, 1.0, None), (2, 1.0, None), (3, 1.0, None), (2, None, 70.0), (3, 2.0, None)]


def test_videos_table_histogram_and_picture_are_in_the_files(tmp_path: Path) -> None:
    for name in ("0000.mp4", "real.mp4"):
        write_mp4(tmp_path / name, torch.zeros(3, 2, 16, 16, dtype=torch.uint8), 8)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "strips.png")
    videos = [LoggedVideo(tmp_path / "0000.mp4", "a </dog>", tmp_path / "real.mp4")]
    logger = as_run_logger(WandbLogger(tmp_path))
    logger.begin({}, 0, False)
    logger.log_videos("sample/videos", videos, 2)
    logger.log_picture("sample/film_strips", tmp_path / "strips.png", "a </dog>", 2)
    logger.log_histogram("train/loss_by_level", [0, 0.5, 1], [3.0, 1.5], 2)
    logger.log_table("val/protocols", ["metric", "value"], [["fvd", 1.5]], 2)
    logger.close()
    (row,) = history(tmp_path)
    assert row["sample/videos/captions"] == ["a </dog>"]
    assert row["train/loss_by_level/values"] == [3.0, 1.5]
    (files,) = (tmp_path / "wandb").glob("offline-run-*/files")
    table = json.loads((files / row["sample/videos_table/path"]).read_text())
    assert table["columns"] == ["prompt", "sample", "reference"]
    assert [file["caption"] for file in row["sample/videos/videos"]] == ["a </dog>"]
    staged = [file for file in (tmp_path / "wandb" / "data").rglob("*") if file.is_file()]
    assert len(list(files.rglob("*.mp4"))) + len(staged) >= 2
    assert (files / row["sample/film_strips/path"]).is_file()


@pytest.fixture
def silent_server() -> Iterator[int]:
    """A server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken: list[socket.socket] = []
        over = threading.Event()

        def take() -> None:
            server.settimeout(0.1)
            while not over.is_set():
                try:
                    taken.append(server.accept()[0])
                except TimeoutError:
                    continue

        thread = threading.Thread(target=take)
        thread.start()
        yield server.getsockname()[1]
        over.set()
        thread.join()
        for connection in taken:
            connection.close()


@pytest.mark.parametrize("answers", ["refuses", "silent"])
def test_server_out_of_reach_is_a_warning_and_the_run_is_logged_offline_without_delay(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    silent_server: int,
    answers: str,
) -> None:
    port = silent_server if answers == "silent" else free_port()
    monkeypatch.setattr(wandb_server, "REACHED_SECONDS", 1.0)
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    start = time.monotonic()
    logger = as_run_logger(WandbLogger(tmp_path, offline=False))
    logger.begin({}, 0, False)
    for step in range(1, 101):
        logger.log_metrics({"train/loss": 1.0 / step}, step=step)
    logger.close()
    assert time.monotonic() - start < 20
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert line.startswith(f"W&B: http://127.0.0.1:{port} can't be reached: ")
    assert "wandb sync" in line
    assert len(history(tmp_path)) == 100


def test_id_that_a_full_disk_left_empty_is_drawn_anew_and_then_stays(tmp_path: Path) -> None:
    (tmp_path / "wandb_id").touch()
    ids = [log(tmp_path, 0, range(0)) for _ in range(2)]
    assert ids == [read_identity(tmp_path).name] * 2
    assert len(ids[0]) == 8
    assert os.environ["WANDB_MODE"] == "offline"
