"""Ends this process when C code holds its interpreter for too long, so that none of its Python threads can run.

That takes a second process, to which this one sends ticks. Time for which either of them was suspended (by Ctrl-Z,
``docker pause`` or ``scontrol suspend``) does not count.
"""

import contextlib
import faulthandler
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

TICK_SECONDS = 0.5
LATE_SECONDS = 2.0
"""A tick that is later than this means that the process was suspended."""
_SHOW = getattr(signal, "SIGRTMIN", signal.SIGPROF)
"""Signal on which a guarded process writes the stacks of its threads, from C code, without the interpreter."""
_SECONDS_TO_SHOW = 2.0


class Guard:
    """The second process, which runs until it is closed or this process ends.

    Args:
        limit_seconds: How long this process may send no tick.
    """

    def __init__(self, limit_seconds: float) -> None:
        faulthandler.register(_SHOW, file=2)
        listening, self._line = os.pipe()
        os.set_blocking(self._line, False)
        arguments = [sys.executable, "-I", "-S", __file__, str(os.getpid()), str(limit_seconds)]
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # inherited by the second process
        try:
            self._process = subprocess.Popen(arguments, stdin=listening, stdout=subprocess.DEVNULL)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            os.close(listening)

    def tick(self) -> None:
        """Tell the second process that this one runs."""
        with contextlib.suppress(OSError):  # it was killed, or is behind
            os.write(self._line, b".")

    def close(self) -> None:
        """Let the second process end."""
        os.close(self._line)
        self._process.wait()
        faulthandler.unregister(_SHOW)


def _guard(pid: int, limit_seconds: float) -> None:
    """Watch over a process that writes to stdin, until it ends or closes that."""
    silent = 0.0
    before = time.monotonic()
    while silent < limit_seconds:
        speaks = select.select([0], [], [], TICK_SECONDS)[0]
        now = time.monotonic()
        if speaks:
            if not os.read(0, 4096):
                return
            silent = 0.0
        elif now - before < LATE_SECONDS and not _is_stopped(pid):
            silent += now - before
        before = now
    text = (
        f"\nProcess {pid} is ended: its interpreter has been held by other code for {silent:.0f} s. It stands here:\n"
    )
    with contextlib.suppress(OSError):
        os.write(2, text.encode())
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, _SHOW)
        time.sleep(_SECONDS_TO_SHOW)
        os.kill(pid, signal.SIGKILL)


def _is_stopped(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "Tt"
    except OSError:
        return False


if __name__ == "__main__":
    _guard(int(sys.argv[1]), float(sys.argv[2]))
