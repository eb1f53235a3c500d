"""A place where processes can't meet is told in one line, and not waited for."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from lightning.fabric.plugins.environments import LightningEnvironment

from tests.training.runs import TINY
from tests.training.zygote import Zygote
from vdm.config import ConfigError
from vdm.training.rendezvous import check_rendezvous

UNMET = {
    "stranger": "Address already in use",
    "unreachable": "the first process can't be reached there",
    "unknown": "no such host can be found",
    "watchdog": "can't listen there for the other processes: Address already in use",
}
"""Why two processes can't meet, and how the first says so."""


class Ended(NamedTuple):
    place: str
    """What does not serve as a place to meet, as the user has set it."""
    codes: list[int]
    text: str


@pytest.fixture(scope="module")
def stranger() -> Iterator[str]:
    """A port on which something listens that says nothing."""
    with socket.create_server(("", 0)) as listener:
        yield str(listener.getsockname()[1])


@pytest.fixture(scope="module")
def ended(
    tmp_path_factory: pytest.TempPathFactory, shards: Path, shared_zygote: Zygote, stranger: str
) -> dict[str, Ended]:
    """Two processes for each reason. All wait at the same time, since some wait for half a minute."""
    folder = tmp_path_factory.mktemp("unmet")
    places = {
        "stranger": f"MASTER_PORT={stranger}",
        "unreachable": "MASTER_ADDR=192.0.2.1",
        "unknown": "MASTER_ADDR=no-such-host.invalid",
        "watchdog": f"watchdog.port={stranger}",
    }
    processes: dict[str, list[int]] = {}
    for name, place in places.items():
        argv = ["train", f"data.path={shards}", *TINY, "strategy=ddp", f"hydra.run.dir={folder / name}"]
        variables = dict([place.split("=")]) if name != "watchdog" else {}
        more = [] if variables else [place]
        processes[name] = shared_zygote.start_ranks([*argv, *more], 2, folder / f"{name}.log", **variables)
    codes = {name: shared_zygote.wait(pids, timeout=240) for name, pids in processes.items()}
    texts = {name: "".join((folder / f"{name}.{rank}.log").read_text() for rank in range(2)) for name in places}
    return {name: Ended(places[name], codes[name], texts[name]) for name in places}


@pytest.mark.parametrize(("name", "reason"), UNMET.items())
def test_processes_that_can_not_meet_end_with_one_line(ended: dict[str, Ended], name: str, reason: str) -> None:
    place, codes, text = ended[name]
    assert codes == [2, 2]
    assert text.count(f"{place}: ") == 1
    assert reason in text
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
