"""``python -m vdm.cli.requeue RUN STATUS``: at the end of a SLURM job's script, start a job again that has failed.

A job that fails again where it failed before would do so for ever; so it must have got further, by a checkpoint. One
that SLURM's signals have ended has not failed: they may come before Python runs, which holds them back.
"""

import sys
from pathlib import Path

from vdm.checkpoints.runs import checkpoints_of, step_of
from vdm.files import write_file
from vdm.training.slurm import STOP_SIGNALS, SlurmJob

_NAME = "failed_after_step"


def requeue(run: Path, status: int) -> str:
    """Put the present job back into the queue if its run has got further than at its last failure; say what was done.

    Args:
        run: Folder of the run.
        status: Exit code of ``srun``; 128 plus a signal's number for one that a signal ended.
    """
    job = SlurmJob.current()
    if job is None:
        return "not requeued: this is no batch job of SLURM"
    if status - 128 in STOP_SIGNALS:
        return job.requeue()
    step = max(map(step_of, checkpoints_of(run)), default=0)
    file = run / _NAME
    before = int(file.read_text()) if file.exists() else 0
    if step <= before:
        return f"SLURM job {job.name} failed after step {step}, no further than before, and is not requeued"
    write_file(file, str(step))
    return job.requeue()


if __name__ == "__main__":
    print(requeue(Path(sys.argv[1]), int(sys.argv[2])), file=sys.stderr)
