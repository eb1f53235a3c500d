"""Waiting for what other processes do, without regard to how fast the machine is."""

import time
from collections.abc import Callable
from pathlib import Path


def wait_until(condition: Callable[[], object], complaint: str, check: Callable[[], None] = lambda: None) -> None:
    """Wait until a condition holds.

    Args:
        condition: Whether it is time; asked again and again.
        complaint: What is wrong if that takes more than four minutes.
        check: Raises if there is no sense in waiting longer.
    """
    deadline = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < deadline, complaint
        check()
        time.sleep(0.05)


def children_of(pid: int) -> list[int]:
    """Return the numbers of the processes that a process has started, of all of its threads."""
    found: list[int] = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        found += map(int, file.read_text().split())
    return found


def is_running(pid: int) -> bool:
    """Tell whether a process is there and has not ended, waited for or not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
