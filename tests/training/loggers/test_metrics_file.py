"""``RUN/metrics.jsonl``, as a run writes it and as it is read."""

import errno
import json
import math
import os
from pathlib import Path
from typing import Any

import pytest

from tests.training.runs import configuration, train
from vdm.checkpoints.metrics_file import METRICS_NAME, cut_back, latest_metrics, metrics_line, read_metrics
from vdm.training.loggers.metrics_file import MetricsFile


def test_figures_are_read_as_they_were_logged_also_those_that_are_not_finite(tmp_path: Path) -> None:
    logger = MetricsFile(tmp_path, lambda: 40)
    logger.log_metrics({"train/loss": 0.25, "train/grad_norm": math.inf}, 10)
    logger.log_metrics({"val/loss": math.nan, "val/fvd": -math.inf}, 10)
    logger.close()
    series = read_metrics(tmp_path)
    assert {name: one.values.tolist() for name, one in series.items() if name != "val/loss"} == {
        "train/loss": [0.25],
        "train/grad_norm": [math.inf],
        "val/fvd": [-math.inf],
    }
    assert math.isnan(series["val/loss"].values[0])
    assert series["val/loss"].positions.tolist() == [40]
    for line in (tmp_path / METRICS_NAME).read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)  # JSON as other programs read it


@pytest.mark.parametrize(
    "damage",
    [
        b'{"step": 3, "time": 1, "posit',
        b"\0\0\0\0\n",
        b"[1, 2]\n",
        b'{"step": "3", "time": 1, "position": 3}\n',
        b'{"step": 3, "time": 1, "position": 3, "train/loss": true}\n',
        b'{"step": 3, "time": 1, "position": 3, "train/loss": [1]}\n',
        b'{"step": 3, "time": 1, "position": 3, "train/loss": 1' + b"0" * 400 + b"}\n",
        b"[" * 100_000 + b"\n",
        b'{"step": 3, "time": 1, "position": 3, "x": "' + b"y" * (1 << 21) + b'"}\n',
        b"\xff\xfe\n",
    ],
)
def test_damaged_line_is_passed_over_and_costs_no_other(tmp_path: Path, damage: bytes) -> None:
    good = [metrics_line(step, 1.0, step, {"train/loss": float(step)}) for step in (1, 2, 4, 5)]
    between = damage if damage.endswith(b"\n") else damage + b"\n"
    (tmp_path / METRICS_NAME).write_bytes(b"".join(good[:2]) + between + b"".join(good[2:]))
    assert read_metrics(tmp_path)["train/loss"].values.tolist() == [1, 2, 4, 5]
    assert latest_metrics(tmp_path)["train/loss"] == 5
    cut_back(tmp_path, 4)
    assert read_metrics(tmp_path)["train/loss"].values.tolist() == [1, 2, 4]


def test_line_that_a_killed_run_began_is_cut_off_before_it_goes_on(tmp_path: Path) -> None:
    whole = metrics_line(1, 1.0, 4, {"train/loss": 1.0})
    (tmp_path / METRICS_NAME).write_bytes(whole + b'{"step": 2, "ti')
    logger = MetricsFile(tmp_path, lambda: 8)
    logger.begin({}, 1, False)
    logger.log_metrics({"train/loss": 2.0}, 2)
    logger.close()
    assert read_metrics(tmp_path)["train/loss"].values.tolist() == [1, 2]


def test_latest_figures_come_from_the_end_of_a_long_file(tmp_path: Path) -> None:
    lines = [metrics_line(step, 1.0, step, {"train/loss": 1 / step}) for step in range(1, 20_001)]
    (tmp_path / METRICS_NAME).write_bytes(b"".join(lines))
    found = latest_metrics(tmp_path)
    assert (found["step"], found["train/loss"]) == (20_000, 1 / 20_000)


def test_full_disk_delays_lines_and_loses_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, state = os.write, {"left": 50}

    def limited(file: int, data: bytes) -> int:
        if state["left"] == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = write(file, data[: state["left"]])
        state["left"] -= written
        return written

    logger = MetricsFile(tmp_path, lambda: 0)
    monkeypatch.setattr(os, "write", limited)
    for step in range(1, 4):
        logger.log_metrics({"train/loss": float(step)}, step)
    logger.close()
    assert read_metrics(tmp_path) == {}
    state["left"] = 1 << 20
    logger.log_metrics({"train/loss": 4.0}, 4)
    logger.close()
    assert read_metrics(tmp_path)["train/loss"].values.tolist() == [1, 2, 3, 4]


def figures(run: Path) -> dict[str, Any]:
    return {
        name: (one.steps.tolist(), one.positions.tolist(), one.values.tolist())
        for name, one in read_metrics(run).items()
        if name.startswith(("train/", "val/"))
    }


def test_run_that_was_killed_and_goes_on_has_the_figures_of_an_uninterrupted_one(tmp_path: Path, shards: Path) -> None:
    options = ("validate.every_steps=2", "save.every_steps=2", "save.keep.last=5")
    config = configuration(shards, *options, "trainer.max_steps=6")
    train(tmp_path / "whole", config)
    run = tmp_path / "run"
    train(run, config | {"trainer": config["trainer"] | {"max_steps": 5}})
    for later in (run / "checkpoints").glob("step=0000000[45]"):  # as if it had been killed before they were written
        later.rename(run / later.name)
    train(run, config, resume=True)
    assert figures(run) == figures(tmp_path / "whole")
    assert figures(run)["train/loss"][0] == [1, 2, 3, 4, 5, 6]


def test_every_run_has_its_own_record_whatever_the_logger(tmp_path: Path, shards: Path) -> None:
    config = configuration(shards, "trainer.max_steps=1")
    train(tmp_path, {**config, "logger": {}})
    assert latest_metrics(tmp_path)["train/loss"] > 0


def test_loggers_hear_of_each_complete_checkpoint(
    tmp_path: Path, shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted = list[tuple[str, int]]()
    monkeypatch.setattr(MetricsFile, "log_checkpoint", lambda self, folder, step: noted.append((folder.name, step)))
    train(tmp_path, configuration(shards, "save.every_steps=2", "trainer.max_steps=4"))
    assert noted == [("step=00000002", 2), ("step=00000004", 4)]
