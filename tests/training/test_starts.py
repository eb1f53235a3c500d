import os
import time
from pathlib import Path

import pytest

from tests.training.runs import configuration, train
from vdm.checkpoints.latest import latest_checkpoint
from vdm.config import ConfigError
from vdm.training.slurm import release_stop_signals
from vdm.training.starts import has_yet_to_resume, shared_name
from vdm.training.training_run import build_training

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


def test_job_that_has_gone_on_from_a_checkpoint_does_not_do_so_again(
    tmp_path: Path, shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tmp_path, configuration(shards, "trainer.max_steps=1"))
    checkpoint = latest_checkpoint(tmp_path)
    for name, value in JOB.items():
        monkeypatch.setenv(name, value)
    assert has_yet_to_resume(tmp_path, checkpoint)

    build_training(configuration(shards, "trainer.max_steps=2"), tmp_path).fit(checkpoint)
    release_stop_signals()  # held back again for the rest of the job

    assert not has_yet_to_resume(tmp_path, checkpoint)
    assert has_yet_to_resume(tmp_path, latest_checkpoint(tmp_path))
    assert not has_yet_to_resume(tmp_path, Path("elsewhere/checkpoints/step=00000001"))
    for start in ("first", "second"):  # torchrun inside the job
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", start)
        assert not has_yet_to_resume(tmp_path, checkpoint)
    monkeypatch.setenv("SLURM_JOB_ID", "13")
    assert has_yet_to_resume(tmp_path, checkpoint)
