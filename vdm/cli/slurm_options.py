"""Options of a SLURM job: ``launcher=slurm``."""

import re
import shlex
import sys
from dataclasses import dataclass, field
from typing import Annotated, Any

from annotated_types import Interval, Len
from pydantic import AfterValidator

from vdm.ranges import Count, Name, Number, NumProcesses, Text, Whole

_TIME_FORMATS = (
    r"(?P<minutes>\d+)(:(?P<seconds>\d+))?",
    r"(?P<hours>\d+):(?P<minutes>\d+):(?P<seconds>\d+)",
    r"(?P<days>\d+)-(?P<hours>\d+)(:(?P<minutes>\d+)(:(?P<seconds>\d+))?)?",
)
_SECONDS = {"days": 86400, "hours": 3600, "minutes": 60, "seconds": 1}

_NOTE_SIGNALS = "trap 'stopped=143' TERM USR1 USR2"
"""Line of a job's script. SLURM signals the script too; without this line, it would end, and the job with it."""


def seconds_of(time: str | int) -> int:
    """Return the seconds of a time limit in the syntax of sbatch, such as ``90``, ``1:30:00`` or ``2-12``.

    Raises:
        ValueError: If it has another syntax.
    """
    for pattern in _TIME_FORMATS:
        found = re.fullmatch(pattern, str(time))
        if found:
            return sum(_SECONDS[unit] * int(number) for unit, number in found.groupdict().items() if number)
    raise ValueError(f"time={time}: neither MINUTES nor HOURS:MINUTES:SECONDS nor DAYS-HOURS")


def _limit(time: str | int) -> str | int:
    try:
        seconds_of(time)
    except ValueError:
        raise ValueError("must be MINUTES, HOURS:MINUTES:SECONDS or DAYS-HOURS") from None
    return time


@dataclass(frozen=True)
class SlurmOptions:
    """Options of a job, or of each job of a sweep; conf/launcher/slurm.yaml explains them.

    Raises:
        ValueError: One line that names the option.
    """

    nodes: Annotated[int, Interval(ge=1, le=100_000)] = 1
    gpus_per_node: NumProcesses = 1
    tasks_per_node: Annotated[int, Interval(ge=1, le=1024)] | None = None
    cpus_per_task: Annotated[int, Interval(ge=1, le=1024)] = 8
    memory: Name | None = None
    partition: Name | None = None
    account: Name | None = None
    qos: Name | None = None
    constraint: Name | None = None
    time: Annotated[Name | Count, AfterValidator(_limit)] = "24:00:00"
    signal_delay_seconds: Annotated[int, Interval(ge=1, le=1_000_000)] = 120
    requeue_failed: bool = True
    array_parallelism: Count = 256
    setup: Annotated[list[Text], Len(0, 1000)] = field(default_factory=list)
    sbatch: Annotated[dict[Name, Text | Number | Whole | bool | None], Len(0, 1000)] = field(default_factory=dict)
    srun: Annotated[list[Text], Len(0, 1000)] = field(default_factory=list)

    def __post_init__(self) -> None:
        least = {"nodes": 1, "gpus_per_node": 0, "tasks_per_node": 1, "cpus_per_task": 1, "array_parallelism": 1}
        for name, number in {**least, "signal_delay_seconds": 1}.items():
            value = getattr(self, name)
            if value is not None and value < number:
                raise ValueError(f"{name} must be at least {number}, but is {value}")
        if seconds_of(self.time) <= self.signal_delay_seconds:
            raise ValueError(f"time={self.time} leaves nothing before signal_delay_seconds={self.signal_delay_seconds}")

    def parameters(self, name: str, run: str) -> dict[str, Any]:
        """Return the parameters of submitit.

        Args:
            name: Name of the job.
            run: Folder of the run, in the shell's syntax.
        """
        named = {
            "job_name": name,
            "nodes": self.nodes,
            "ntasks_per_node": self.tasks_per_node or max(1, self.gpus_per_node),
            "gpus_per_node": self.gpus_per_node or None,
            "cpus_per_task": self.cpus_per_task,
            "mem": self.memory,
            "partition": self.partition,
            "account": self.account,
            "qos": self.qos,
            "constraint": self.constraint,
            "signal_delay_s": self.signal_delay_seconds,
            "array_parallelism": self.array_parallelism,
            "setup": [_NOTE_SIGNALS, *self.setup],
            "teardown": self._after_failure(run),
            # Without the first, processes wait for one that has died. srun does not inherit the second.
            "srun_args": ["--kill-on-bad-exit=1", f"--cpus-per-task={self.cpus_per_task}", *self.srun],
            "additional_parameters": {"time": self.time, "requeue": True, **self.sbatch},
        }
        given = {key: value for key, value in named.items() if value is not None}
        return {**given, "wckey": None}  # clusters that account by wckey refuse the default of submitit

    def _after_failure(self, run: str) -> list[str]:
        """Return the last lines of the job's script; exit code 2 is a user's mistake, which would happen again."""
        again = (
            f'{shlex.quote(sys.executable)} -m vdm.cli.requeue {run} "${{stopped:-$status}}"'
            if self.requeue_failed
            else "true"
        )
        return ["status=$?", f'if [ "$status" -ne 0 ] && [ "$status" -ne 2 ]; then {again}; fi', 'exit "$status"']
