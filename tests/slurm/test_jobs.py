"""Jobs of a real SLURM that are no plain batch jobs: arrays, and shells inside jobs."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

from tests.slurm.cluster import Cluster
from tests.slurm.conftest import CHECKOUT, SECONDS
from tests.training.runs import TINY
from vdm.checkpoints.layout import checkpoints_of


def test_last_task_of_an_array_is_requeued_by_itself(slurm: Cluster, tmp_path: Path) -> None:
    """By its number of a job, which is the array's, SLURM would understand the whole array."""
    code = """
import signal
from vdm.training.slurm import SlurmJob
signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as in training: SLURM may send it before scontrol has answered
print(SlurmJob.current().requeue(), flush=True)
"""
    script = tmp_path / "script.sh"
    script.write_text(
        f"""#!/bin/bash
        touch started$SLURM_ARRAY_TASK_ID
        if [ $SLURM_ARRAY_TASK_ID = 1 ]; then while [ ! -e end ]; do sleep 0.1; done; fi
        if [ $SLURM_ARRAY_TASK_ID = 2 ] && [ -z "$SLURM_RESTART_COUNT" ]; then
            while [ ! -e started1 ]; do sleep 0.1; done
            {shlex.quote(sys.executable)} -c "{code}"
            sleep 60
        fi
        """
    )
    options = ["--array=0-2", "--requeue", "--output=%a.txt", "--open-mode=append", str(script)]
    variables = {**slurm.variables, "PYTHONPATH": str(CHECKOUT)}
    printed = subprocess.run(
        ["sbatch", *options], cwd=tmp_path, env=variables, check=True, capture_output=True, text=True
    )
    job = printed.stdout.split()[-1]

    slurm.wait(f"{job}_2", "PENDING", restarts=1)
    others = [slurm.state(f"{job}_{task}") for task in range(2)]
    (tmp_path / "end").touch()
    slurm.wait(f"{job}_1", "COMPLETED")
    slurm.run("scancel", job)

    assert [(each["JobState"], each["Restarts"]) for each in others] == [("COMPLETED", "0"), ("RUNNING", "0")]
    assert f"SLURM job {job}_2 is requeued" in (tmp_path / "2.txt").read_text()


def test_srun_in_a_shell_inside_a_job_trains_one_run(slurm: Cluster, shards: Path, tmp_path: Path) -> None:
    train = [sys.executable, "-m", "vdm.cli.main", "train", f"data.path={shards}", *TINY, "trainer.max_steps=2"]
    variables = {**slurm.variables, "PYTHONPATH": str(CHECKOUT), "SHELL": "/bin/bash", "MASTER_ADDR": "127.0.0.1"}
    outcome = subprocess.run(
        ["salloc", "--nodes=2", "--ntasks-per-node=1"],
        input=f"echo name=$SLURM_JOB_NAME; srun {shlex.join(train)}",
        cwd=tmp_path,
        env=variables,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )

    assert outcome.returncode == 0, outcome.stderr
    assert "name=interactive" in outcome.stdout
    (run,) = (tmp_path / "runs" / "vdm").iterdir()
    assert re.fullmatch(r"slurm-\d+\.0", run.name)
    assert "4 a step on 2 process(es)" in outcome.stderr
    assert [checkpoint.name for checkpoint in checkpoints_of(run)] == ["step=00000002"]
