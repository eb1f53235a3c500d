"""The SLURM job that this process belongs to, and how it is put back into the queue."""

import os
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""What SLURM sends before a job's end: on preemption, or so long before its time limit as was asked for."""

_SECONDS_FOR_AN_ANSWER = 60
_INTERACTIVE = ("bash", "interactive")


@dataclass(frozen=True)
class SlurmJob:
    """A job, which may have been started several times.

    Args:
        name: As users see it and ``scontrol`` takes it: ``12``, or ``12_3`` for a task of an array. The last task of an
            array has the array's own number, and by that number alone ``scontrol`` understands all of its tasks.
        step: Number of the ``srun`` in the job; none in the batch script itself.
        restarts: How often the job was put back into the queue.
    """

    name: str
    step: str | None
    restarts: int

    @classmethod
    def current(cls, variables: Mapping[str, str] = os.environ) -> "SlurmJob | None":
        """Return the job of this process; none outside of SLURM and in a shell inside a job, where users try things."""
        if "SLURM_JOB_ID" not in variables or is_shell(variables):
            return None
        name = variables["SLURM_JOB_ID"]
        if "SLURM_ARRAY_JOB_ID" in variables:
            name = f"{variables['SLURM_ARRAY_JOB_ID']}_{variables['SLURM_ARRAY_TASK_ID']}"
        restarts = int(variables.get("SLURM_RESTART_COUNT", "0"))
        return cls(name, variables.get("SLURM_STEP_ID"), restarts)

    def requeue(self) -> str:
        """Put the job back into the queue if it was running or its time was up, and return in words what was done.

        In any other state somebody has decided on the job's end: its user, who cancelled it, or SLURM, which is going
        to requeue it. A job that ends by itself while it is being preempted is not requeued by SLURM.
        """
        try:
            known = self._known()
            state = known["JobState"]
            if state not in ("RUNNING", "SIGNALING") and known["Reason"] != "TimeLimit":
                return f"SLURM job {self.name} is {state.lower()}, and is left to SLURM"
            _answer("scontrol", "requeue", self.name)
        except (OSError, subprocess.SubprocessError) as error:
            reason = getattr(error, "stderr", None) or str(error)
            return f"SLURM job {self.name} can't be requeued: {' '.join(reason.split())}"
        return f"SLURM job {self.name} is requeued"

    def _known(self) -> dict[str, str]:
        """Return what SLURM knows of the job."""
        words = _answer("scontrol", "show", "job", "-o", self.name).split()
        return dict(word.split("=", 1) for word in words if "=" in word)


def is_shell(variables: Mapping[str, str]) -> bool:
    """Tell whether a process was started by hand in a shell inside a job, alone whatever the job's number of tasks.

    What ``srun`` starts from such a shell inherits the job's name.
    """
    return variables.get("SLURM_JOB_NAME") in _INTERACTIVE and variables.get("SLURM_STEP_NUM_TASKS", "1") == "1"


def _answer(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=_SECONDS_FOR_AN_ANSWER).stdout


def hold_stop_signals() -> None:
    """In a SLURM job, let its signals wait while nothing heeds them; by default they would kill the process."""
    if SlurmJob.current() is not None:
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)


def release_stop_signals() -> None:
    """Receive what has been sent since ``hold_stop_signals``."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
