import pytest

from vdm.cli.slurm_options import SlurmOptions, seconds_of


# https://slurm.schedmd.com/sbatch.html, --time
@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        (90, 5400),
        ("90", 5400),
        ("90:30", 5430),
        ("1:30:00", 5400),
        ("2-12", 216000),
        ("2-12:30", 217800),
        ("1-0:0:1", 86401),
    ],
)
def test_time_limits_are_read_as_sbatch_reads_them(time: str | int, seconds: int) -> None:
    assert seconds_of(time) == seconds


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nodes": 0}, "nodes must be at least 1, but is 0"),
        ({"gpus_per_node": -1}, "gpus_per_node must be at least 0, but is -1"),
        ({"time": "soon"}, "time=soon: neither"),
        ({"time": 2, "signal_delay_seconds": 120}, "time=2 leaves nothing before signal_delay_seconds=120"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, int | str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SlurmOptions(**options)  # type: ignore[arg-type]


def test_each_gpu_has_a_process_unless_told_otherwise() -> None:
    assert SlurmOptions(gpus_per_node=8).parameters("vdm", "run")["ntasks_per_node"] == 8
    assert SlurmOptions(gpus_per_node=8, tasks_per_node=4).parameters("vdm", "run")["ntasks_per_node"] == 4
    on_cpus = SlurmOptions(gpus_per_node=0).parameters("vdm", "run")
    assert on_cpus["ntasks_per_node"] == 1
    assert "gpus_per_node" not in on_cpus


def test_options_of_the_users_own_are_handed_on_and_win() -> None:
    parameters = SlurmOptions(
        sbatch={"reservation": "mine", "requeue": False}, srun=["--cpu-bind=none"], setup=["module load cuda"]
    ).parameters("vdm", "run")

    assert parameters["additional_parameters"] == {"time": "24:00:00", "requeue": False, "reservation": "mine"}
    assert parameters["srun_args"] == ["--kill-on-bad-exit=1", "--cpus-per-task=8", "--cpu-bind=none"]
    assert parameters["setup"] == ["trap 'stopped=143' TERM USR1 USR2", "module load cuda"]
