import pytest

from vdm.config import ConfigError
from vdm.training.process_layout import find_layout, with_layout

STEP = {
    "SLURM_JOB_ID": "12",
    "SLURM_JOB_NAME": "vdm",
    "SLURM_NTASKS": "8",
    "SLURM_NTASKS_PER_NODE": "4",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_STEP_TASKS_PER_NODE": "4(x2)",
}


def test_processes_of_srun_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in STEP.items():
        monkeypatch.setenv(name, value)

    layout = find_layout()

    assert layout is not None
    assert (layout.launcher, layout.num_nodes, layout.devices) == ("srun", 2, 4)
    assert not layout.environment.auto_requeue  # type: ignore[attr-defined]  # it is SLURM's
    assert with_layout({"num_nodes": 1, "devices": "auto", "precision": 32}, layout) == {
        "num_nodes": 2,
        "devices": 4,
        "precision": 32,
    }


def test_processes_of_torchrun_are_found_by_the_whole_set_of_its_variables() -> None:
    given = {"TORCHELASTIC_RUN_ID": "none", "RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}

    layout = find_layout(given)

    assert layout is not None
    assert (layout.launcher, layout.num_nodes, layout.devices) == ("torchrun", 2, 4)
    for name in given:
        assert find_layout({key: value for key, value in given.items() if key != name}) is None


def test_process_by_itself_is_placed_as_the_trainer_says() -> None:
    assert find_layout({}) is None
    assert with_layout({"num_nodes": 1, "devices": 2}, None) == {"num_nodes": 1, "devices": 2}


@pytest.mark.parametrize("key", ["num_nodes", "devices"])
def test_trainer_that_asks_for_other_processes_than_srun_started_is_refused(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in STEP.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(ConfigError, match=rf"^trainer\.{key}=3: srun started [24] "):
        with_layout({"num_nodes": 1, "devices": "auto", key: 3}, find_layout())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"SLURM_STEP_TASKS_PER_NODE": "4,2(x2)"}, r"nodes have 4,2\(x2\) tasks in SLURM"),
        ({"SLURM_STEP_ID": None}, "the SLURM job has 8 tasks: start them all with srun"),
        ({"SLURM_NTASKS_PER_NODE": None}, "--ntasks-per-node, not by --ntasks alone"),
    ],
)
def test_tasks_that_can_not_train_together_are_refused(changed: dict[str, str | None], message: str) -> None:
    variables = {name: value for name, value in {**STEP, **changed}.items() if value is not None}

    with pytest.raises(ConfigError, match=message):
        find_layout(variables)


def test_batch_script_of_one_task_is_a_process_by_itself() -> None:
    assert find_layout({"SLURM_JOB_ID": "12", "SLURM_JOB_NAME": "vdm", "SLURM_NTASKS": "1"}) is None


@pytest.mark.parametrize("name", ["bash", "interactive"])
def test_srun_in_a_shell_inside_a_job_starts_processes_that_belong_together(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, value in {**STEP, "SLURM_JOB_NAME": name}.items():
        monkeypatch.setenv(key, value)

    layout = find_layout()

    assert layout is not None
    assert (layout.num_nodes, layout.devices) == (2, 4)


@pytest.mark.parametrize("step", [{}, {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "1"}])
def test_shell_inside_a_job_is_a_process_by_itself(step: dict[str, str]) -> None:
    """Whether ``salloc`` opened it or ``srun --pty bash``."""
    shell = {"SLURM_JOB_ID": "12", "SLURM_JOB_NAME": "interactive", "SLURM_NTASKS": "2"}

    assert find_layout({**shell, **step}) is None
