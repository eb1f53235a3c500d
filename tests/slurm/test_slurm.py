"""Runs on a real SLURM: submitted, interrupted in each way that a cluster has, and gone on with by themselves."""

import os
import signal
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from tests.slurm.cluster import Cluster
from tests.slurm.conftest import SECONDS, Submitted, on_two_nodes, start_now, submit, vdm, wait_for_start
from tests.training.test_resume import tensors_of
from vdm.checkpoints.history import read_history

INTERRUPTIONS = 3


class Jobs(NamedTuple):
    sweep: Submitted
    interrupted: Submitted


@pytest.fixture(scope="module")
def jobs(slurm: Cluster, shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Jobs:
    """A sweep of two runs, and a run as the sweep's first that is interrupted; all have ended."""
    folder = tmp_path_factory.mktemp("work")
    wait = ["+callbacks.wait._target_=tests.slurm.waiting.WaitForSignal", "+callbacks.wait.num_steps=5"]
    interrupted = submit(
        slurm,
        folder,
        shards,
        "hydra.run.dir=interrupted",
        *wait,
        f"+callbacks.wait.num_starts={INTERRUPTIONS}",
        "launcher.time=60",
        "launcher.signal_delay_seconds=110",
    )
    sweep = submit(slurm, folder, shards, "-m", "optimizer.lr=1e-3,1e-4", "hydra.sweep.dir=sweep")

    wait_for_start(slurm, interrupted, 0)
    hours, minutes, _ = map(int, slurm.state(interrupted.job)["RunTime"].split(":"))
    # The limit is 60 to 120 s away, so the signal is due within 10 s; SLURM looks at limits every 30 s.
    slurm.run("scontrol", "update", f"JobId={interrupted.job}", f"TimeLimit={60 * hours + minutes + 2}")
    slurm.wait(interrupted.job, "PENDING", "COMPLETING", seconds=SECONDS, restarts=1)
    slurm.run("scontrol", "update", f"JobId={interrupted.job}", "TimeLimit=60")
    start_now(slurm, interrupted)

    (_, second) = wait_for_start(slurm, interrupted, 1)
    os.kill(second, signal.SIGKILL)  # as if its node had failed
    slurm.wait(interrupted.job, "PENDING", "COMPLETING", seconds=SECONDS, restarts=2)
    start_now(slurm, interrupted)

    wait_for_start(slurm, interrupted, 2)
    slurm.run("scontrol", "requeue", interrupted.job)
    start_now(slurm, interrupted)

    for job in (f"{sweep.job}_0", f"{sweep.job}_1", interrupted.job):
        slurm.wait(job, "COMPLETED", seconds=SECONDS)
    return Jobs(sweep, interrupted)


def test_command_returns_after_submitting_and_names_job_and_folder(jobs: Jobs) -> None:
    assert jobs.interrupted.printed.startswith(
        f"Submitted SLURM job {jobs.interrupted.job}. The run is in interrupted,"
    )
    assert jobs.sweep.printed.startswith(
        f"Submitted SLURM job array {jobs.sweep.job} of 2 runs. They are in sweep, from"
        " 0_optimizer.lr=0.001 to 1_optimizer.lr=0.0001"
    )


def test_sweep_is_one_job_array_with_a_folder_for_each_run(jobs: Jobs) -> None:
    runs = [tensors_of(jobs.sweep.run / name) for name in ("0_optimizer.lr=0.001", "1_optimizer.lr=0.0001")]

    assert runs[0].keys() == runs[1].keys()
    assert not all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])


def test_interrupted_run_went_on_by_itself_after_each_interruption(slurm: Cluster, jobs: Jobs) -> None:
    assert slurm.state(jobs.interrupted.job)["Restarts"] == str(INTERRUPTIONS)
    checkpoints = sorted(path.name for path in (jobs.interrupted.run / "checkpoints").iterdir())
    # The killed process saved nothing: the start after it went on from where the one before it had stopped.
    assert {"step=00000005", "step=00000015", "step=00000020"} >= {*checkpoints}
    assert (jobs.interrupted.run / "failed_after_step").read_text() == f"{jobs.interrupted.job} 5"


def test_history_has_the_command_that_submitted_the_run(jobs: Jobs) -> None:
    events = [event for event in read_history(jobs.interrupted.run) if event.event == "start"]

    assert len(events) == INTERRUPTIONS + 1
    for event in events:
        assert event.command is not None
        assert event.command.startswith("vdm train launcher=slurm nodes=2 ")


def test_interrupted_run_equals_uninterrupted_run_bit_for_bit(jobs: Jobs) -> None:
    whole, interrupted = tensors_of(jobs.sweep.run / "0_optimizer.lr=0.001"), tensors_of(jobs.interrupted.run)

    assert whole.keys() == interrupted.keys()
    for name in whole:
        torch.testing.assert_close(interrupted[name], whole[name], rtol=0, atol=0, msg=name)


@pytest.mark.chaos
def test_mistake_is_told_before_submitting(slurm: Cluster, shards: Path, tmp_path: Path) -> None:
    outcome = vdm(slurm, tmp_path, "train", "launcher=slurm", f"data.path={shards}", "model.network.channels=wide")

    assert outcome.returncode == 2
    assert outcome.stderr.startswith("model.network.channels: 'wide' is not allowed")
    assert outcome.stderr.count("\n") == 1
    assert not list((tmp_path / "runs").iterdir())


def test_refusal_by_slurm_is_one_line(slurm: Cluster, shards: Path, tmp_path: Path) -> None:
    outcome = vdm(slurm, tmp_path, "train", *on_two_nodes(shards), "launcher.partition=nowhere")

    assert outcome.returncode == 2
    assert "invalid partition specified: nowhere" in outcome.stderr
    assert outcome.stderr.count("\n") == 1
