"""A place where processes can't meet is told in one line, and not waited for."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from lightning.fabric.plugins.environments import LightningEnvironment

from tests.training.runs import TINY
from tests.training.zygote import Zygote
from vdm.config import ConfigError
from vdm.training.rendezvous import check_rendezvous


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    with Zygote() as running:
        yield running


@pytest.fixture
def stranger() -> Iterator[str]:
    """A port on which something listens that says nothing."""
    with socket.create_server(("", 0)) as listener:
        yield str(listener.getsockname()[1])


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("MASTER_PORT", None, "Address already in use"),
        ("MASTER_ADDR", "192.0.2.1", "the first process can't be reached there"),
        ("MASTER_ADDR", "no-such-host.invalid", "no such host can be found"),
    ],
)
def test_processes_that_can_not_meet_end_with_one_line(
    tmp_path: Path, shards: Path, zygote: Zygote, stranger: str, variable: str, value: str | None, reason: str
) -> None:
    value = value or stranger
    argv = ["train", f"data.path={shards}", *TINY, "strategy=ddp", f"hydra.run.dir={tmp_path / 'run'}"]
    pids = zygote.start_ranks(argv, 2, tmp_path / "out.log", **{variable: value})
    assert zygote.wait(pids, timeout=240) == [2, 2]
    text = "".join((tmp_path / f"out.{rank}.log").read_text() for rank in range(2))
    assert text.count(f"{variable}={value}: ") == 1
    assert reason in text
    assert "Traceback" not in text


def test_port_of_the_watchdog_that_is_in_use_is_named(
    tmp_path: Path, shards: Path, zygote: Zygote, stranger: str
) -> None:
    options = (*TINY, "strategy=ddp", f"watchdog.port={stranger}", f"hydra.run.dir={tmp_path / 'run'}")
    pids = zygote.start_ranks(["train", f"data.path={shards}", *options], 2, tmp_path / "out.log")
    assert zygote.wait(pids, timeout=240) == [2, 2]
    text = "".join((tmp_path / f"out.{rank}.log").read_text() for rank in range(2))
    assert text.count(f"watchdog.port={stranger}: can't listen there for the other processes: Address already in") == 1
    assert "Traceback" not in text


@pytest.mark.parametrize(
    ("variable", "value"),
    [("MASTER_PORT", "abc"), ("MASTER_PORT", "0"), ("MASTER_PORT", "65536"), ("NODE_RANK", "-1"), ("NODE_RANK", "1")],
)
def test_variable_that_names_no_place_is_refused(variable: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match=rf"^{variable}={value}: "):
        check_rendezvous(LightningEnvironment(), num_nodes=1, timeout_seconds=1)


def test_free_port_of_this_machine_is_taken() -> None:
    check_rendezvous(LightningEnvironment(), num_nodes=1, timeout_seconds=1)
