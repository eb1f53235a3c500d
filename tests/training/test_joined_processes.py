"""Processes of other commands than training, joined by the variables of their launcher."""

import pytest
import torch

from vdm.config import ConfigError
from vdm.training.joined_processes import joined_processes

TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "test",
    "WORLD_SIZE": "2",
    "LOCAL_WORLD_SIZE": "2",
    "RANK": "0",
    "LOCAL_RANK": "0",
    "GROUP_RANK": "0",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "1",
}


def test_one_gpu_for_all_processes_is_refused_before_they_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    message = (
        "device=cuda:0: is one of a machine, but torchrun started 2 processes on each; with device=cuda each takes"
    )
    with pytest.raises(ConfigError, match=message), joined_processes(torch.device("cuda:0")):
        pytest.fail("they have met")


def test_a_process_that_is_alone_stays_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in TORCHRUN:
        monkeypatch.delenv(name, raising=False)
    with joined_processes(torch.device("cuda:0")):
        assert not torch.distributed.is_initialized()
