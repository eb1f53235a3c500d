"""Curation whose processes are killed with SIGKILL gives the same set, and does no finished file again."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.data_pipelines.conftest import SMALL, Curate

ROOT = Path(__file__).parents[2]


def _start(footage: Path, shards: Path, *overrides: str, **variables: str) -> subprocess.Popen[bytes]:
    given = [f"input={footage}", f"output={shards}", *SMALL[:3], *overrides]
    return subprocess.Popen(
        [sys.executable, "-m", "data_pipelines.cli", "curate", *given],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def _units(shards: Path) -> dict[Path, int]:
    """When each finished file of each stage was written."""
    work = shards.with_name(f"{shards.name}.work")
    found = [*work.glob("units/*/*.parquet"), *work.glob("parts/*.part.json")]
    return {path: path.stat().st_mtime_ns for path in found}


def _wait_for_units(shards: Path, count: int) -> None:
    deadline = time.monotonic() + 120
    while len(_units(shards)) < count:
        assert time.monotonic() < deadline, f"{count} results did not appear"
        time.sleep(0.01)


def _content(shards: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in shards.iterdir() if path.name != "build.json"}


@pytest.fixture
def expected(run_curate: Curate, tmp_path: Path) -> dict[str, bytes]:
    run_curate()
    return _content(tmp_path / "shards")


def test_killed_anywhere_and_run_again_it_gives_the_same_set(
    footage: Path, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    shards = tmp_path / "killed"
    for count in (4, 12, 21):  # in the midst of probe, of cut and filter, of encode
        process = _start(footage, shards, "executor.num_workers=1")
        _wait_for_units(shards, count)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        finished = _units(shards)
    process = _start(footage, shards, "executor.num_workers=1")
    output, _ = process.communicate(timeout=120)

    assert process.returncode == 1, output  # one file of the footage is broken
    assert _content(shards) == expected
    assert finished.items() <= _units(shards).items()


@pytest.mark.chaos
def test_array_task_that_is_killed_is_made_up_for_by_another(
    footage: Path, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    shards = tmp_path / "array"
    shared = ("executor=slurm", "executor.num_tasks=2", "executor.cpus_per_task=1", "executor.alive_seconds=0.3")
    doomed, other = (
        _start(footage, shards, *shared, "executor.dead_seconds=2", SLURM_ARRAY_JOB_ID="9", SLURM_ARRAY_TASK_ID=task)
        for task in "01"
    )
    _wait_for_units(shards, 10)
    os.killpg(doomed.pid, signal.SIGKILL)
    doomed.communicate()
    output, _ = other.communicate(timeout=120)

    assert other.returncode == 1, output
    assert _content(shards) == expected
