"""``python -m vdm.cli.requeue RUN STATUS``: at the end of a SLURM job's script, start a job again that has failed.

A job that fails again where it failed before would do so for ever; so it must have got further, by a checkpoint. One
that a signal of SLURM's has ended need not have failed: it may come before Python runs, which holds it back. But
``srun`` ends processes that way too where another has failed, so this is not without limit either.
"""

import sys
from pathlib import Path

from vdm.checkpoints.layout import checkpoints_of, step_of
from vdm.files import write_file
from vdm.training.slurm import STOP_SIGNALS, SlurmJob

MAX_SIGNALLED = 10
"""How often in a row a job may be ended by signals without getting further."""

_FAILED_NAME, _SIGNALLED_NAME = "failed_after_step", "signalled_after_step"
"""Files in a run's folder with the job, the step after which it ended, and of signals how often."""


def requeue(run: Path, status: int) -> str:
    """Put the present job back into the queue if its run has got further than at its last failure; say what was done.

    Args:
        run: Folder of the run.
        status: Exit code of ``srun``; 128 plus a signal's number for one that a signal ended.
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
    """Return the numbers that a file has of a job, or none: what happened to other jobs of the run does not count.

    Nor does a file that is damaged: it must not keep a job from being requeued.
    """
    try:
        name, *numbers = file.read_text(encoding="utf-8").split()
        found = tuple(map(int, numbers))
    except (OSError, ValueError):
        return ()
    return found if name == job.name and len(found) == count else ()


if __name__ == "__main__":
    print(requeue(Path(sys.argv[1]), int(sys.argv[2])), file=sys.stderr)
