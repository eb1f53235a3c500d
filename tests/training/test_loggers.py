import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.training.zygote import free_port
from vdm.training import loggers
from vdm.training.loggers import begin, close, wandb


def test_each_run_of_a_process_has_its_own_wandb_run_and_a_resumed_one_its_own_again(tmp_path: Path) -> None:
    ids = []
    for name in ("a", "b", "a"):
        logger = wandb(tmp_path / name)
        logger.log_metrics({"train/loss": 1.0}, step=1)
        ids.append(logger.experiment.id)  # type: ignore[attr-defined]
        close([logger])
    assert ids[0] == ids[2] != ids[1]
    assert all(list((tmp_path / name / "wandb").glob("offline-run-*")) for name in ("a", "b"))


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
    monkeypatch.setattr(loggers, "REACHED_SECONDS", 1.0)
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    start = time.monotonic()
    logger = wandb(tmp_path, offline=False)
    begin([logger])
    for step in range(100):
        logger.log_metrics({"train/loss": 1.0 / (1 + step)}, step=step)
    close([logger])
    assert time.monotonic() - start < 20
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert line.startswith(f"W&B: http://127.0.0.1:{port} can't be reached: ")
    assert "wandb sync" in line
    assert list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    assert logger.experiment.id == (tmp_path / "wandb_id").read_text()  # type: ignore[attr-defined]


def test_id_that_a_full_disk_left_empty_is_drawn_anew_and_then_stays(tmp_path: Path) -> None:
    (tmp_path / "wandb_id").touch()
    ids = [wandb(tmp_path)._id for _ in range(2)]  # type: ignore[attr-defined]
    assert ids == [(tmp_path / "wandb_id").read_text()] * 2
    assert len(ids[0]) == 8
