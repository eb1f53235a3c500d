"""Real ``vdm`` processes that start in a second: forked from one that has imported all that training needs.

``python -m tests.training.zygote`` reads one JSON object a line: ``{"argv": [...], "env": {...}, "cwd": ..., "log":
..., "module": ...}``, forks a process that calls the module's ``main`` under them, in a session of its own, and answers
with the process's number. When one has ended it says so, with its exit code, or minus the signal that killed it.
"""

import contextlib
import importlib
import json
import os
import secrets
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[2]
_IMPORTED = (
    "vdm.cli.train",
    "vdm.cli.hydra_main",
    "deepspeed",
    "deepspeed.ops.adam",
    "scipy.special",
    "av",
    "pandas",
    "tests.training.stages",
)


def free_port() -> int:
    """Return a port nobody listens on, of those that the system gives to no outgoing connection in the meantime."""
    while True:
        port = 10_000 + secrets.randbelow(22_000)
        with socket.socket() as free, contextlib.suppress(OSError):
            free.bind(("127.0.0.1", port))
            return port


class Zygote:
    """Starts processes; itself is started by entering it as a context, which kills all of them at its end."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.training.zygote"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "PYTHONPATH": str(ROOT)},
        )
        self._received = b""
        self._codes: dict[int, int] = {}
        self._started: set[int] = set()
        assert self._read(timeout=300) == {"ready": True}
        return self

    def __exit__(self, *args: object) -> None:
        self.kill_all()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(60)

    def start(
        self, argv: Sequence[str], env: Mapping[str, str], log: Path, cwd: Path = ROOT, module: str = "vdm.cli.main"
    ) -> int:
        """Start ``vdm ARGV``, or the ``main`` of another module, in a folder; return the number of its process."""
        assert self._process.stdin is not None
        request = {"argv": list(argv), "env": dict(env), "log": str(log), "cwd": str(cwd), "module": module}
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        while True:
            answer = self._read(timeout=60)
            if "pid" in answer:
                self._started.add(answer["pid"])
                return answer["pid"]

    def start_ranks(self, argv: Sequence[str], num_ranks: int, log: Path, **env: str) -> list[int]:
        """Start as many processes that know each other by torchrun's environment variables."""
        if num_ranks == 1:
            return [self.start(argv, env, log)]
        common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "TORCHELASTIC_RUN_ID": "test"}
        common |= {"WORLD_SIZE": str(num_ranks), "LOCAL_WORLD_SIZE": str(num_ranks), "GROUP_RANK": "0"} | env
        return [
            self.start(argv, common | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, log.with_suffix(f".{rank}.log"))
            for rank in range(num_ranks)
        ]

    def poll(self, pid: int) -> int | None:
        """Return a process's exit code, or minus its signal, if it has ended."""
        while pid not in self._codes and self._is_readable(0):
            self._read(timeout=10)
        return self._codes.get(pid)

    def wait(self, pids: Sequence[int], timeout: float) -> list[int]:
        """Wait until processes have ended, and return their exit codes.

        Raises:
            TimeoutError: If one has not.
        """
        deadline = time.monotonic() + timeout
        while any(pid not in self._codes for pid in pids):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{[pid for pid in pids if pid not in self._codes]} have not ended")
            if self._is_readable(0.2):
                self._read(timeout=10)
        return [self._codes[pid] for pid in pids]

    def kill_all(self) -> None:
        """Kill the processes that have not ended, and wait for their end."""
        left = [pid for pid in self._started if self.poll(pid) is None]
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.wait(left, timeout=60)

    def _is_readable(self, timeout: float) -> bool:
        return b"\n" in self._received or bool(select.select([self._process.stdout], [], [], timeout)[0])

    def _read(self, timeout: float) -> dict[str, Any]:
        """Read one message; not through a buffered file, in which ``select`` does not see what is there."""
        assert self._process.stdout is not None
        while b"\n" not in self._received:
            if not self._is_readable(timeout):
                raise TimeoutError("the process that starts others does not answer")
            content = os.read(self._process.stdout.fileno(), 1 << 16)
            if not content:
                raise RuntimeError("the process that starts others has died")
            self._received += content
        line, _, self._received = self._received.partition(b"\n")
        message = json.loads(line)
        if "ended" in message:
            self._codes[message["ended"]] = message["code"]
        return message


def _serve() -> None:
    for name in _IMPORTED:
        importlib.import_module(name)
    ended, on_end = os.pipe()
    os.set_blocking(on_end, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(on_end)
    print(json.dumps({"ready": True}), flush=True)
    buffer = b""
    while True:
        for readable in select.select([0, ended], [], [])[0]:
            if readable == ended:
                os.read(ended, 4096)
                _report_ended()
                continue
            content = os.read(0, 1 << 16)
            if not content:
                os._exit(0)  # without the seconds that Python takes to clear away what was imported
            *lines, buffer = (buffer + content).split(b"\n")
            for line in lines:
                _fork(json.loads(line))


def _report_ended() -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        print(json.dumps({"ended": pid, "code": os.waitstatus_to_exitcode(status)}), flush=True)


def _fork(request: dict[str, Any]) -> None:
    pid = os.fork()
    if pid:
        print(json.dumps({"pid": pid}), flush=True)
        return
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGHUP):  # the second is ignored where nohup runs the tests
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])  # a test may hold some back while the first process starts
    os.setsid()
    log = os.open(request["log"], os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    for number, file in enumerate((os.open(os.devnull, os.O_RDONLY), log, log)):
        os.dup2(file, number)
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    sys.argv = ["vdm", *request["argv"]]
    code: Any = 1
    try:
        code = importlib.import_module(request["module"]).main()
    except SystemExit as stop:
        code = stop.code
    except BaseException:
        import traceback

        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)


if __name__ == "__main__":
    _serve()
