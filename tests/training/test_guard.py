"""A process whose interpreter is held by other code is ended from outside; one that was suspended is not."""

import signal
import subprocess
import sys
import time

LIMIT_SECONDS = 4.0
PROGRAM = f"""
import ctypes, time
from vdm.training.guard import Guard
guard = Guard({LIMIT_SECONDS})
print("guarded", flush=True)
guard.tick()
for _ in range({{num_ticks}}):
    time.sleep(0.5)
    guard.tick()
{{end}}
"""


def started(num_ticks: int, end: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM.format(num_ticks=num_ticks, end=end)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "guarded\n"
    return process


def test_process_whose_interpreter_is_held_is_ended_and_shows_where_it_stands() -> None:
    process = started(2, "while True: ctypes.PyDLL(None).sleep(1000)")
    _, errors = process.communicate(timeout=240)
    assert process.returncode == -signal.SIGKILL
    assert f"Process {process.pid} is ended: its interpreter has been held by other code for" in errors
    assert 'File "<string>", line 10 in <module>' in errors


def test_process_that_was_suspended_for_longer_than_the_limit_goes_on() -> None:
    process = started(6, "guard.close()")
    process.send_signal(signal.SIGSTOP)
    time.sleep(1.5 * LIMIT_SECONDS)
    process.send_signal(signal.SIGCONT)
    _, errors = process.communicate(timeout=240)
    assert (process.returncode, errors) == (0, "")
