"""Credentials in settings and on the command line are in no record of a run but its configuration."""

import sys
from pathlib import Path

import pytest
import wandb

from tests.report.conftest import write_report
from tests.training.runs import configuration, train
from vdm.checkpoints.history import HISTORY_NAME
from vdm.checkpoints.layout import CONFIG_NAME
from vdm.checkpoints.run_record import DataIdentity, record_run
from vdm.cli.run_status import status_of

SECRET = "hunter2"
URLS = (f"https://{SECRET}@host/a", f"https://host/b?token={SECRET}")


def test_loggers_history_and_report_have_no_credentials(
    tmp_path: Path, shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["vdm", "train", f"data.path={URLS[0]}", f"init_from={URLS[1]}"])
    config = configuration(shards, "logger=wandb", "trainer.max_steps=1")
    services = {
        **config["logger"],
        "tensorboard": {"_target_": "vdm.training.loggers.tensorboard_logger.TensorBoardLogger"},
    }
    own = {"path": {URLS[0]: 0.5, URLS[1]: 0.5}, "api_key": SECRET}
    run = tmp_path / "run"
    train(run, {**config, "logger": services, "own": own})
    wandb.teardown()
    record_run(run, {**config, "own": own}, [DataIdentity(path=URLS[0], checksum="", num_samples=1)])

    write_report(run / "report.html", [run])
    files = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    assert [file.name for file, content in files.items() if SECRET.encode() in content] == [CONFIG_NAME]
    told = [
        name for name in ("report.html", HISTORY_NAME, "versions.json") if b"https://***@host/a" in files[run / name]
    ]
    assert told == ["report.html", HISTORY_NAME, "versions.json"]
    assert any(b"https://***@host/a" in content for file, content in files.items() if file.suffix == ".wandb")
    assert any(b"https://***@host/a" in content for file, content in files.items() if "tfevents" in file.name)
    assert status_of(run).command == "vdm train data.path=https://***@host/a 'init_from=https://host/b?token=***'"
