"""The SLURM job of this process: its name, its signals, and requeueing it."""

import os
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""Signals that SLURM sends before it ends a job: on preemption, or at the requested time before the time limit."""

_SECONDS_FOR_AN_ANSWER = 60
_INTERACTIVE = ("bash", "interactive")


@dataclass(frozen=True)
class SlurmJob:
    """A job, which may have been started several times.

    Args:
        name: The name for users and ``scontrol``: ``12``, or ``12_3`` for a task of an array. The number alone is not
            enough: the last task's is that of the array, which ``scontrol`` takes for all of its tasks.
        step: Number of the job step, one for each ``srun``; ``None`` in the batch script itself.
        restarts: How often the job was requeued.
    """

    name: str
    step: str | None
    restarts: int

    @classmethod
    def current(cls, variables: Mapping[str, str] = os.environ) -> "SlurmJob | None":
        """Return the job of this process; ``None`` outside of SLURM, and in an interactive shell inside a job."""
        if "SLURM_JOB_ID" not in variables or is_shell(variables):
            return None
        name = variables["SLURM_JOB_ID"]
        if "SLURM_ARRAY_JOB_ID" in variables:
            name = f"{variables['SLURM_ARRAY_JOB_ID']}_{variables['SLURM_ARRAY_TASK_ID']}"
        restarts = int(variables.get("SLURM_RESTART_COUNT", "0"))
        return cls(name, variables.get("SLURM_STEP_ID"), restarts)

    def requeue(self) -> str:
        """Requeue the job if it was running or its time was up, and return a sentence on what was done.

        In any other state the end of the job is decided already: by its user, who cancelled it, or by SLURM, which will
        requeue it. SLURM does not requeue a preempted job that ends by itself.
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
        """Return SLURM's record of the job."""
        words = _answer("scontrol", "show", "job", "-o", self.name).split()
        return dict(word.split("=", 1) for word in words if "=" in word)


def is_shell(variables: Mapping[str, str]) -> bool:
    """Tell whether a process was started by hand in a shell inside a job: it is alone, whatever the job's tasks.

    Processes that ``srun`` starts from such a shell inherit the job's name; the number of tasks tells them apart.
    """
    return variables.get("SLURM_JOB_NAME") in _INTERACTIVE and variables.get("SLURM_STEP_NUM_TASKS", "1") == "1"


def _answer(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=_SECONDS_FOR_AN_ANSWER).stdout


def hold_stop_signals() -> None:
    """In a SLURM job, block its signals until they can be handled; by default they would kill the process."""
    if SlurmJob.current() is not None:
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)


def release_stop_signals() -> None:
    """Unblock the signals, and receive those sent since ``hold_stop_signals``."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
