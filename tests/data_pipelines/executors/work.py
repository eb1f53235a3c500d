"""Work that leaves a file behind, and dies where it is told to."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from data_pipelines.sources import UnavailableError

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Job:
    folder: Path
    name: str
    deaths: int = 0
    """How many processes it kills before it is done."""
    seconds: float = 0.0
    unavailable: bool = False
    kills_task: bool = False
    """Whether it takes the whole task of an array down."""


def leave_a_file(job: Job) -> None:
    """Note that the job was begun, by whom, and that it is done."""
    begun = sorted(job.folder.glob(f"{job.name}.begun-*"))
    (job.folder / f"{job.name}.begun-{len(begun)}").write_text(str(os.getpid()))
    if len(begun) < job.deaths:
        os.kill(os.getpid(), signal.SIGKILL)
    if job.kills_task:
        time.sleep(job.seconds / 2)  # others are at work
        os.killpg(0, signal.SIGKILL)
    if job.unavailable:
        raise UnavailableError("the disk is away")
    time.sleep(job.seconds)
    (job.folder / f"{job.name}.done").touch()


def jobs(folder: Path, count: int, **options: object) -> dict[str, Job]:
    """Jobs by name."""
    names = [f"job{number}" for number in range(count)]
    return {name: Job(folder, name, **options) for name in names}  # pyright: ignore


def times_begun(folder: Path) -> dict[str, int]:
    """How often each job was begun."""
    found: dict[str, int] = {}
    for path in folder.glob("*.begun-*"):
        name = path.name.partition(".")[0]
        found[name] = found.get(name, 0) + 1
    return found


def start_task(number: int, program: str, *arguments: object, stderr: int) -> subprocess.Popen[str]:
    """Start one of two tasks of an array as SLURM does, in a process group of its own."""
    variables = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": str(number), "SLURM_ARRAY_TASK_COUNT": "2"}
    return subprocess.Popen(
        [sys.executable, "-m", program, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **variables, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        start_new_session=True,
    )
