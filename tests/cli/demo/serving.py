"""A real ``vdm demo`` in a process of its own."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parents[3]


@dataclass
class Served:
    """A running ``vdm demo``."""

    process: "subprocess.Popen[bytes]"
    url: str
    log: Path
    """What it printed."""
    connections: Path
    """Addresses that it connected to or looked up, one a line."""

    def stop(self, number: signal.Signals) -> int:
        """Send a signal, and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(60)


@contextmanager
def served(folder: Path, *arguments: str, env: Mapping[str, str] | None = None) -> Iterator[Served]:
    """Start ``vdm demo`` with files in a folder, and kill it in the end if it still runs."""
    log, connections = folder / "demo.log", folder / "connections.txt"
    connections.touch()
    variables = os.environ | {"WATCHED": str(connections), "PYTHONPATH": str(ROOT), "TMPDIR": str(folder)} | (env or {})
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.cli.demo.watched", "demo", "port=0", *arguments],
            stdout=file,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=variables,
        )
    try:
        wait_until(lambda: "Open http" in log.read_text(), "it does not start", lambda: _check(process, log))
        address = re.search(r"Open (http://\S+)", log.read_text())
        assert address is not None
        yield Served(process, address[1], log, connections)
    finally:
        process.kill()
        process.wait(60)


def _check(process: "subprocess.Popen[bytes]", log: Path) -> None:
    assert process.poll() is None, log.read_text()
