"""The script for those who write their own: runs as it is, and survives what a cluster does to it."""

import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.slurm.cluster import Cluster
from tests.slurm.conftest import CHECKOUT, SECONDS, Submitted, start_now, wait_for_start
from tests.training.runs import TINY
from tests.training.test_resume import tensors_of

pytestmark = pytest.mark.chaos


def sbatch(
    slurm: Cluster, folder: Path, run: str | None, options: list[str], *settings: str, programs: Path | None = None
) -> Submitted:
    """Submit slurm/train.sbatch for two nodes of one process each; ``programs`` has others than those installed."""
    nodes = ["--nodes=2", "--ntasks-per-node=1", "--gpus-per-node=0", "--cpus-per-task=1", *options]
    command = ["sbatch", *nodes, str(CHECKOUT / "slurm" / "train.sbatch"), *settings]
    variables = {**slurm.variables, "PYTHONPATH": str(CHECKOUT), "MASTER_ADDR": "127.0.0.1"}
    variables |= {} if run is None else {"RUN": run}
    variables |= {} if programs is None else {"PATH": f"{programs}:{slurm.variables['PATH']}"}
    printed = subprocess.run(command, cwd=folder, env=variables, check=True, capture_output=True, text=True).stdout
    found = re.fullmatch(r"Submitted batch job (\d+)\n", printed)
    assert found is not None, printed
    return Submitted(found[1], folder / (run or f"runs/vdm/slurm-{found[1]}"), printed)


def in_place_of_vdm(folder: Path, script: str) -> Path:
    """Return a folder with a program ``vdm`` that is a script of bash."""
    folder.mkdir()
    (folder / "vdm").write_text(f"#!/bin/bash\n{script}\n")
    (folder / "vdm").chmod(0o755)
    return folder


def preempt(slurm: Cluster, folder: Path) -> None:
    """Submit a job that takes the nodes away from all others."""
    urgent = ["--partition=urgent", "--nodes=2", "--exclusive", "--wrap=true", "--output=/dev/null"]
    subprocess.run(["sbatch", *urgent], cwd=folder, env=slurm.variables, check=True, capture_output=True)


def settings(shards: Path) -> list[str]:
    return [f"data.path={shards}", *TINY, "trainer.max_steps=20"]


WAIT = ["+callbacks.wait._target_=tests.slurm.waiting.WaitForSignal", "+callbacks.wait.num_steps=5"]


def test_preempted_run_equals_uninterrupted_run_bit_for_bit(slurm: Cluster, shards: Path, tmp_path: Path) -> None:
    whole = sbatch(slurm, tmp_path, "whole", [], *settings(shards))
    wait = [*WAIT, "+callbacks.wait.num_starts=1"]
    preempted = sbatch(slurm, tmp_path, "preempted", ["--exclusive"], *settings(shards), *wait)

    wait_for_start(slurm, preempted, 0)
    preempt(slurm, tmp_path)
    start_now(slurm, preempted)
    for submitted in (whole, preempted):
        slurm.wait(submitted.job, "COMPLETED", seconds=SECONDS)

    assert slurm.state(preempted.job)["Restarts"] == "1"
    assert "is requeued" in (tmp_path / f"slurm-{preempted.job}.out").read_text()
    expected, found = tensors_of(whole.run), tensors_of(preempted.run)
    assert expected.keys() == found.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=0, msg=name)


def test_cancelled_run_saves_and_stays_cancelled(slurm: Cluster, shards: Path, tmp_path: Path) -> None:
    submitted = sbatch(slurm, tmp_path, "run", [], *settings(shards), *WAIT, "+callbacks.wait.num_starts=1")

    wait_for_start(slurm, submitted, 0)
    slurm.run("scancel", submitted.job)

    state = slurm.wait(submitted.job, "CANCELLED", seconds=SECONDS)
    assert state["Restarts"] == "0"
    assert (submitted.run / "checkpoints" / "step=00000005").is_dir()


def test_failure_that_repeats_itself_is_not_requeued_for_ever(slurm: Cluster, shards: Path, tmp_path: Path) -> None:
    # The second start stops where the first did, before it has saved anything.
    fail = ["+callbacks.fail._target_=tests.slurm.waiting.Fail", "+callbacks.fail.step=5", "save.every_steps=3"]
    submitted = sbatch(slurm, tmp_path, "run", [], *settings(shards), *fail)

    start_now(slurm, submitted)

    state = slurm.wait(submitted.job, "FAILED", seconds=SECONDS)
    assert state["Restarts"] == "1"
    assert "no further than before, and is not requeued" in (tmp_path / f"slurm-{submitted.job}.out").read_text()


@pytest.mark.parametrize("signal_whole_job", [False, True])
def test_job_that_is_signalled_before_python_runs_is_requeued_whatever_has_failed_before(
    slurm: Cluster, tmp_path: Path, signal_whole_job: bool
) -> None:
    first = 'if [ -z "$SLURM_RESTART_COUNT" ]; then touch started$SLURM_PROCID; exec sleep 60; fi'
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "failed_after_step").write_text("0 5")
    programs = in_place_of_vdm(tmp_path / "programs", first)
    submitted = sbatch(slurm, tmp_path, "run", ["--exclusive"], programs=programs)

    wait_until(lambda: (tmp_path / "started0").exists() and (tmp_path / "started1").exists())
    if signal_whole_job:
        slurm.run("scancel", "--full", "--signal=TERM", submitted.job)
    else:
        preempt(slurm, tmp_path)
    slurm.wait(submitted.job, "PENDING")
    start_now(slurm, submitted)

    assert slurm.wait(submitted.job, "COMPLETED")["Restarts"] == "1"
    assert f"SLURM job {submitted.job} is requeued" in (tmp_path / f"slurm-{submitted.job}.out").read_text()
    assert (tmp_path / "run" / "failed_after_step").read_text() == "0 5"
    assert (tmp_path / "run" / "signalled_after_step").read_text() == f"{submitted.job} 0 1"


@pytest.mark.parametrize(
    ("argument", "run"),
    [
        ("trainer.max_steps=1", "runs/vdm/slurm-JOB"),
        ("resume=null", "runs/vdm/slurm-JOB"),
        ("resume=runs/vdm/first", "runs/vdm/first"),
        ("resume='checkpoints/first/checkpoints/step=00000002'", "checkpoints/first"),
    ],
)
def test_resumed_run_stays_in_its_folder(slurm: Cluster, tmp_path: Path, argument: str, run: str) -> None:
    programs = in_place_of_vdm(tmp_path / "programs", 'echo "$2 $3" > arguments$SLURM_PROCID')
    submitted = sbatch(slurm, tmp_path, None, [], argument, programs=programs)

    slurm.wait(submitted.job, "COMPLETED")

    folder = run.replace("JOB", submitted.job)
    assert (tmp_path / "arguments0").read_text() == f"hydra.run.dir='{folder}' {argument}\n"


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.1)
