"""The rank of a process is found from all that its launcher gives it, not from a variable that was left over."""

import os
import subprocess
import sys

import pytest

from vdm.processes import forget_other_launches

PLACE = {"MASTER_ADDR": "node0", "MASTER_PORT": "29500"}
TORCHRUN = {
    **PLACE,
    "TORCHELASTIC_RUN_ID": "none",
    "RANK": "1",
    "WORLD_SIZE": "2",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
}
SRUN = {
    "SLURM_JOB_ID": "12",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "1",
}
BY_HAND = {**PLACE, "LOCAL_RANK": "1", "WORLD_SIZE": "2"}


@pytest.mark.parametrize("variables", [TORCHRUN, SRUN, BY_HAND, {**SRUN, **TORCHRUN}, {**PLACE, "NODE_RANK": "1"}])
def test_whole_set_of_a_launcher_stays(variables: dict[str, str]) -> None:
    kept = dict(variables)
    forget_other_launches(kept)
    assert kept == variables


@pytest.mark.parametrize(
    "variables",
    [
        {"RANK": "1"},
        {"LOCAL_RANK": "1"},
        {"SLURM_PROCID": "1"},
        {"SLURM_LOCALID": "1"},
        {"JSM_NAMESPACE_RANK": "1"},
        {"NODE_RANK": "1"},
        {"RANK": "one"},
        {"RANK": "1", "WORLD_SIZE": "2"},
        {"TORCHELASTIC_RUN_ID": "none", "TORCHELASTIC_RESTART_COUNT": "1"},
    ],
)
def test_what_is_left_over_of_a_launch_is_forgotten(variables: dict[str, str]) -> None:
    forget_other_launches(variables)
    assert variables == {}


@pytest.mark.parametrize(
    "variables",
    [
        {**TORCHRUN, "WORLD_SIZE": "1"},
        {**BY_HAND, "WORLD_SIZE": "1"},
        {name: value for name, value in TORCHRUN.items() if name != "LOCAL_RANK"},
        {name: value for name, value in TORCHRUN.items() if name != "MASTER_PORT"},
    ],
)
def test_ranks_of_an_incomplete_set_are_forgotten(variables: dict[str, str]) -> None:
    forget_other_launches(variables)
    assert not {"RANK", "LOCAL_RANK", "TORCHELASTIC_RUN_ID"} & variables.keys()


def test_task_number_without_its_step_is_forgotten_and_the_job_is_not() -> None:
    variables = {"SLURM_JOB_ID": "12", "SLURM_PROCID": "1"}
    forget_other_launches(variables)
    assert variables == {"SLURM_JOB_ID": "12"}


@pytest.mark.parametrize("program", ["vdm.cli.main", "data_pipelines.cli"])
def test_lone_command_tells_of_a_mistake_whatever_rank_is_left_over(program: str) -> None:
    variables = {"RANK": "1", "LOCAL_RANK": "1", "SLURM_PROCID": "1", "SLURM_LOCALID": "1"}
    command = [sys.executable, "-m", program, "train" if program == "vdm.cli.main" else "build", "no_such_key=1"]
    outcome = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, timeout=240)
    assert outcome.returncode == 2
    assert "no_such_key" in outcome.stderr


def test_lone_process_is_the_first_of_all_to_lightning_whatever_rank_is_left_over() -> None:
    code = (
        "import contextlib\n"
        "from vdm.cli.main import main\n"
        "with contextlib.suppress(SystemExit):\n"
        "    main()\n"
        "from lightning.fabric.utilities.rank_zero import rank_zero_only\n"
        "raise SystemExit(rank_zero_only.rank)"
    )
    variables = {"RANK": "1", "SLURM_PROCID": "1"}
    assert subprocess.run([sys.executable, "-c", code], env=os.environ | variables, timeout=240).returncode == 0
