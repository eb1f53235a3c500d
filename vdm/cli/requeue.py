"""``python -m vdm.cli.requeue RUN STATUS``: requeues a failed SLURM job, at the end of its script.

A job that fails twice at the same place would fail for ever, so it must have saved a later checkpoint in between. A job
that was ended by a signal of SLURM need not have failed: the signal may arrive before Python can hold it back. But
``srun`` also ends processes by signals if another one has failed, so their number is limited too.
"""

import sys
from pathlib import Path

from vdm.checkpoints.layout import checkpoints_of, step_of
from vdm.files import write_file
from vdm.training.slurm import STOP_SIGNALS, SlurmJob

MAX_SIGNALLED = 10
"""How often in a row a job may be ended by signals without a later checkpoint."""

_FAILED_NAME, _SIGNALLED_NAME = "failed_after_step", "signalled_after_step"
"""Files in a run's folder: the job, the step at which it ended and, for signals, how often."""


def requeue(run: Path, status: int) -> str:
    """Requeue the present job if its run has a later checkpoint than at its last failure; return what was done.

    Args:
        run: Folder of the run.
        status: Exit code of ``srun``: 128 plus the number of the signal if one ended it.
    """
    job = SlurmJob.current()
    if job is None:
        return "not requeued: this is no batch job of SLURM"
    step = max(map(step_of, checkpoints_of(run)), default=0)
    if status - 128 in STOP_SIGNALS:
        before, count = _noted(run / _SIGNALLED_NAME, job, 2) or (step, 0)
        count = count + 1 if before == step else 1
        if count > MAX_SIGNALLED:
            return f"SLURM job {job.name} was ended by signals {count} times after step {step}, and is not requeued"
        write_file(run / _SIGNALLED_NAME, f"{job.name} {step} {count}")
        return job.requeue()
    (before,) = _noted(run / _FAILED_NAME, job, 1) or (0,)
    if step <= before:
        return f"SLURM job {job.name} failed after step {step}, no further than before, and is not requeued"
    write_file(run / _FAILED_NAME, f"{job.name} {step}")
    return job.requeue()


def _noted(file: Path, job: SlurmJob, count: int) -> tuple[int, ...]:
    """Return the numbers that a file records of a job; none if it is of another job.

    A damaged file has none either: it must not prevent a job from being requeued.
    """
    try:
        name, *numbers = file.read_text(encoding="utf-8").split()
        found = tuple(map(int, numbers))
    except (OSError, ValueError):
        return ()
    return found if name == job.name and len(found) == count else ()


if __name__ == "__main__":
    print(requeue(Path(sys.argv[1]), int(sys.argv[2])), file=sys.stderr)
