"""Batches come from workers also where the machine is short of what is shared, or one line says what it is short of."""

import shutil
import subprocess
import sys

import pytest


def load(preparation: str, *shell: str) -> subprocess.CompletedProcess[str]:
    """Take batches over from a worker, in a shell that has been prepared."""
    command = f"{preparation} && exec {sys.executable} -m tests.data.load_large_batches"
    return subprocess.run([*shell, "sh", "-c", command], capture_output=True, text=True, timeout=240)


def with_shared_memory(size: str) -> subprocess.CompletedProcess[str]:
    mount = f"mount -t tmpfs -o size={size} tmpfs /dev/shm"
    shell = ("unshare", "--mount")
    if shutil.which("unshare") is None or subprocess.run([*shell, "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("a small /dev/shm can't be mounted here: that takes Linux and its administrator")
    return load(mount, *shell)


def test_batches_larger_than_the_shared_memory_of_a_container_arrive_whole() -> None:
    outcome = with_shared_memory("512k")
    assert (outcome.returncode, outcome.stderr) == (0, "")


def test_shared_memory_without_room_for_a_semaphore_is_named_at_once() -> None:
    outcome = with_shared_memory("4k")
    assert outcome.returncode == 2
    assert outcome.stderr.startswith("data.num_workers: workers can't be started: No space left on device")
    assert "/dev/shm" in outcome.stderr
    assert outcome.stderr.count("\n") == 1


def test_too_low_a_limit_of_open_files_is_named() -> None:
    outcome = load("ulimit -n 40")
    assert outcome.returncode == 2
    assert outcome.stderr.startswith("data.num_workers: too many files are open")
    assert outcome.stderr.count("\n") == 1
