import os
import time

import pytest

from vdm.cli.run_folder import shared_name
from vdm.config import ConfigError

JOB = {"SLURM_JOB_ID": "12", "SLURM_JOB_NAME": "vdm"}


@pytest.mark.parametrize(
    ("variables", "name"),
    [
        ({}, None),
        ({**JOB, "SLURM_STEP_ID": "0", "SLURM_PROCID": "0"}, "slurm-12.0"),
        ({**JOB, "SLURM_STEP_ID": "0", "SLURM_PROCID": "7", "SLURM_RESTART_COUNT": "3"}, "slurm-12.0"),
        ({**JOB, "SLURM_STEP_ID": "1"}, "slurm-12.1"),
        (JOB, "slurm-12"),
        ({**JOB, "SLURM_ARRAY_JOB_ID": "10", "SLURM_ARRAY_TASK_ID": "2"}, "slurm-10_2"),
        ({"SLURM_JOB_ID": "12", "SLURM_JOB_NAME": "interactive"}, None),  # a shell in which users try things
        ({**JOB, "SLURM_JOB_NAME": "bash", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "1"}, None),
        ({**JOB, "SLURM_JOB_NAME": "bash", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2"}, "slurm-12.0"),
        ({"TORCHELASTIC_RUN_ID": "mine", "RANK": "3"}, "torchrun-mine"),
        ({**JOB, "SLURM_STEP_ID": "0", "TORCHELASTIC_RUN_ID": "mine"}, "torchrun-mine"),
    ],
)
def test_processes_agree_on_a_name_without_asking_each_other(variables: dict[str, str], name: str | None) -> None:
    assert shared_name(variables) == name


def test_processes_of_one_torchrun_without_an_id_are_named_by_when_it_began() -> None:
    variables = {"TORCHELASTIC_RUN_ID": "none", "GROUP_WORLD_SIZE": "1"}
    first = shared_name(variables)
    time.sleep(1.1)

    assert first == shared_name(variables)
    assert first is not None
    assert first.endswith(f"_{os.getppid()}")
    began = time.mktime(time.strptime(first.rpartition("_")[0], "%Y-%m-%d_%H-%M-%S"))
    assert began <= time.time()


def test_nodes_of_torchrun_with_nothing_in_common_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"hydra\.run\.dir: give one folder for all nodes, or torchrun an --rdzv-id"):
        shared_name({"TORCHELASTIC_RUN_ID": "none", "GROUP_WORLD_SIZE": "2"})
