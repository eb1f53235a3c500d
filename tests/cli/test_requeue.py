from pathlib import Path

import pytest

from vdm.cli.requeue import MAX_SIGNALLED, requeue
from vdm.training.slurm import SlurmJob


@pytest.fixture(autouse=True)
def in_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setattr(SlurmJob, "requeue", lambda job: f"{job.name} again")


def save(run: Path, step: int) -> None:
    (run / "checkpoints" / f"step={step:08d}").mkdir(parents=True)


def test_failed_job_must_get_further_than_at_its_own_last_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert requeue(tmp_path, 1) == "SLURM job 12 failed after step 0, no further than before, and is not requeued"
    save(tmp_path, 20)
    assert requeue(tmp_path, 1) == "12 again"
    assert requeue(tmp_path, 137).endswith("failed after step 20, no further than before, and is not requeued")
    monkeypatch.setenv("SLURM_JOB_ID", "13")
    assert requeue(tmp_path, 1) == "13 again"
    save(tmp_path, 30)
    assert requeue(tmp_path, 1) == "13 again"


@pytest.mark.parametrize("status", [143, 138, 140])
def test_signalled_job_may_stand_still_for_a_while_but_not_for_ever(tmp_path: Path, status: int) -> None:
    for step in (0, 10):
        if step:
            save(tmp_path, step)
        for _ in range(MAX_SIGNALLED):
            assert requeue(tmp_path, status) == "12 again"
        assert requeue(tmp_path, status).endswith(f"times after step {step}, and is not requeued")
