"""A line between the processes of a run: when one dies, fails or stands still, all end, and the reason is told once.

Nothing else sees to that. A process that waits for others in a collective waits for the group's timeout, half an hour;
it sits in C code, where no signal handler of Python runs. So a thread in each process holds a TCP connection to the
first process's thread. The kernel closes a dead process's connection, and keep-alive packets find out a dead machine.

Messages are lines of JSON. To the first process: ``{"hello": RANK, "token": ...}``, ``{"failed": REASON, "guilty":
true}``, ``{"stuck": SECONDS}``, ``{"dumped": true}``. From it: ``{"dump": true}``, ``{"end": CODE}``. Both ways:
``{"bye": true}``, after which the end of a connection means nothing.
"""

import contextlib
import json
import logging
import os
import secrets
import selectors
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from vdm.checkpoints.collectives import gathered, num_processes, rank
from vdm.training.guard import LATE_SECONDS, TICK_SECONDS, Guard

EVIDENCE_SECONDS = 2.0
"""How long the first process gathers what others say before it names the culprit: errors of communication, which are
consequences, may be faster than news of their cause."""
MEETING_SECONDS = 60.0
"""How long processes wait for each other's connections."""
ANSWER_SECONDS = 10.0
"""A process that does not answer for so long does not run."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Peer:
    """One process of the run."""

    rank: int
    host: str
    pid: int

    def __str__(self) -> str:
        return f"Rank {self.rank} ({self.host}, process {self.pid})"


@dataclass
class _Line:
    """A connection, and what has been received of a message."""

    socket: socket.socket
    rank: int
    received: bytes = b""

    def send(self, **message: Any) -> None:
        with contextlib.suppress(OSError):  # a line that broke is found by reading it
            self.socket.sendall(json.dumps(message).encode() + b"\n")


@dataclass(order=True)
class _Trouble:
    """What ends the run; the guilty come before their victims, and then the earlier before the later."""

    is_consequence: bool
    when: float
    rank: int = field(compare=False)
    reason: str = field(compare=False)


class Lifeline:
    """Watches over this process, and over the others through the first of them.

    All processes make theirs together, once their process group exists.

    Args:
        limit_seconds: How long this process may stand still; none for as long as it likes.
        port: Where the first process listens; 0 takes any free port.
        how_died: Says of a rank how its process ended, where this process started it; otherwise returns None.

    Raises:
        ValueError: In all processes, if the first one can't listen on ``port``.
    """

    def __init__(
        self, limit_seconds: float | None, port: int = 0, how_died: Callable[[int], str | None] = lambda rank: None
    ) -> None:
        self.limit_seconds = limit_seconds
        self.how_died = how_died
        self.rank = rank()
        self._clock = 0.0
        """Seconds for which this process has run; those for which it was suspended with all of its threads left out."""
        self._num_progressed = self._num_seen = 0
        self._seen = 0.0
        """When ``_num_progressed`` was last seen to have changed."""
        self._selector = selectors.DefaultSelector()
        self._woken, self._waker = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ, None)
        self._lines: dict[int, _Line] = {}
        self._troubles: list[_Trouble] = []
        self._deadline = float("inf")
        self._dumped: set[int] = set()
        self._own_failure: int | None = None
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._meet(port)
        self._guard: Guard | None = None
        if limit_seconds is not None:
            with contextlib.suppress(OSError):  # no further process is allowed here
                self._guard = Guard(max(limit_seconds, 60))
        self._thread = threading.Thread(target=self._watch, name="lifeline", daemon=True)
        self._thread.start()

    def progress(self) -> None:
        """Note that this process gets on."""
        self._num_progressed += 1

    def failed(self, reason: str, is_consequence: bool, exit_code: int) -> None:
        """Tell the others that this process ends by an error.

        Of an error in the first process that is nobody else's fault this returns, so that it is reported as usual.
        Otherwise it does not return: the process ends with the others, when the culprit has been named.
        """
        if self.rank == 0 and not is_consequence:
            with self._lock:
                self._own_failure, self._deadline = exit_code, float("inf")
            self._end_others(exit_code)
            self.close()
            return
        if self.rank == 0:
            self._blame(0, reason, is_consequence=True)
        elif 0 in self._lines:
            self._lines[0].send(failed=reason, guilty=not is_consequence)
        self._thread.join(ANSWER_SECONDS + EVIDENCE_SECONDS)

    def close(self) -> None:
        """Leave: from now on the end of this process is nobody's concern."""
        if self._closed.is_set():
            return
        for line in list(self._lines.values()):
            line.send(bye=True)
        self._closed.set()
        self._waker.send(b"0")
        self._thread.join()
        if self._guard is not None:
            self._guard.close()
        self._selector.close()
        for connection in (self._woken, self._waker, *(line.socket for line in self._lines.values())):
            connection.close()

    # Setting up

    def _meet(self, port: int) -> None:
        """Connect with the first process, or wait for the connections of all others."""
        here = socket.gethostname()
        self.peers = [Peer(r, host, pid) for r, (host, pid) in enumerate(gathered((here, os.getpid())))]
        if num_processes() == 1:
            return
        is_one_host = len({peer.host for peer in self.peers}) == 1
        listener = refusal = None
        if self.rank == 0:
            try:
                listener = socket.create_server(("127.0.0.1" if is_one_host else "", port), backlog=num_processes())
                port = listener.getsockname()[1]
            except OSError as error:
                refusal = f"watchdog.port={port}: can't listen there for the other processes: {error.strerror}"
        address = "127.0.0.1" if is_one_host else os.environ.get("MASTER_ADDR", self.peers[0].host)
        address, port, token, refusal = gathered((address, port, secrets.token_hex(16), refusal))[0]
        if refusal is not None:
            raise ValueError(refusal)
        try:
            self._accept_all(listener, token) if listener is not None else self._connect(address, port, token)
            complaint = None
        except OSError as error:
            complaint = f"rank {self.rank}: {error}"
        complaints = [found for found in gathered(complaint) if found is not None]
        if complaints:
            for line in self._lines.values():
                line.socket.close()
            self._lines.clear()
            if self.rank == 0:
                _log.warning(
                    "watchdog: no connections to %s:%d (%s): the end of one process will be found out late",
                    address,
                    port,
                    complaints[0],
                )
        for line in self._lines.values():
            self._selector.register(line.socket, selectors.EVENT_READ, line)

    def _connect(self, address: str, port: int, token: str) -> None:
        line = _Line(_kept_alive(socket.create_connection((address, port), timeout=MEETING_SECONDS)), rank=0)
        line.send(hello=self.rank, token=token)
        self._lines[0] = line

    def _accept_all(self, listener: socket.socket, token: str) -> None:
        with listener:
            limit = time.monotonic() + MEETING_SECONDS
            while len(self._lines) < num_processes() - 1:
                listener.settimeout(max(0.01, limit - time.monotonic()))
                connection, _ = listener.accept()
                connection.settimeout(5)
                hello = _first_message(connection)
                if hello.get("token") == token:
                    self._lines[hello["hello"]] = _Line(_kept_alive(connection), rank=hello["hello"])
                else:
                    connection.close()

    # The thread

    def _watch(self) -> None:
        before = time.monotonic()
        while True:
            for key, _ in self._selector.select(TICK_SECONDS):
                if key.data is not None:
                    self._read(key.data)
            if self._closed.is_set():
                return
            now = time.monotonic()
            self._clock += min(now - before, LATE_SECONDS)
            before = now
            self._mind_own_progress()
            if self._clock >= self._deadline or self._all_have_dumped():
                self._end_run()

    def _mind_own_progress(self) -> None:
        if self.limit_seconds is None:
            return
        if self._guard is not None:
            self._guard.tick()
        if self._num_progressed != self._num_seen:
            self._num_seen, self._seen = self._num_progressed, self._clock
        idle = self._clock - self._seen
        if idle > self.limit_seconds and self.rank not in self._dumped:
            self._dump_stacks()
            if self.rank == 0 or 0 not in self._lines:
                self._blame(self.rank, f"made no progress for {idle:.0f} s", stuck=True)
            else:
                self._lines[0].send(stuck=idle)
                self._deadline = self._clock + 2 * ANSWER_SECONDS

    def _read(self, line: _Line) -> None:
        try:
            content = line.socket.recv(1 << 16)
        except OSError:
            content = b""
        *messages, line.received = (line.received + content).split(b"\n")
        for message in messages:
            with contextlib.suppress(ValueError):
                self._hear(line, json.loads(message))
        if not content:
            self._lose(line)

    def _hear(self, line: _Line, message: Mapping[str, Any]) -> None:
        if "bye" in message:
            self._lines.pop(line.rank, None)
        elif "dump" in message:
            self._dump_stacks()
            line.send(dumped=True)
        elif "end" in message:
            self._end(int(message["end"]))
        elif "failed" in message:
            self._blame(line.rank, message["failed"], is_consequence=not message["guilty"])
        elif "stuck" in message:
            self._dumped.add(line.rank)
            self._blame(line.rank, f"made no progress for {message['stuck']:.0f} s", stuck=True)
        elif "dumped" in message:
            self._dumped.add(line.rank)

    def _lose(self, line: _Line) -> None:
        """Find out why a connection has ended."""
        self._selector.unregister(line.socket)
        line.socket.close()
        if self._lines.pop(line.rank, None) is None or self._closed.is_set():
            return
        how = self.how_died(line.rank)
        self._blame(line.rank, f"died: {how or 'its process, or its machine, is gone'}")

    # The end

    def _blame(self, rank: int, reason: str, is_consequence: bool = False, stuck: bool = False) -> None:
        """Remember a reason to end, and gather others for a while."""
        with self._lock:
            if self._own_failure is not None:
                return
            self._troubles.append(_Trouble(is_consequence, self._clock, rank, reason))
            wait = ANSWER_SECONDS if stuck and self.rank == 0 else EVIDENCE_SECONDS
            if stuck and self.rank == 0 and self._deadline == float("inf"):
                self._dump_stacks()
                for line in list(self._lines.values()):
                    line.send(dump=True)
            self._deadline = min(self._deadline, self._clock + wait)

    def _all_have_dumped(self) -> bool:
        """Whether a process stood still and all that are there have shown where they stand."""
        return self.rank == 0 and self.rank in self._dumped and self._dumped >= {0, *self._lines}

    def _end_run(self) -> None:
        """Name the culprit, and end all processes."""
        if self.rank == 0:
            if self._own_failure is None:
                _say(self._verdict())
                self._end_others(1)
            self._end(self._own_failure or 1)
        first_left = min(peer.rank for peer in self.peers[1:])
        if not self._troubles:
            self._troubles.append(_Trouble(False, 0, 0, f"does not answer: {self._kill_if_here(self.peers[0])}"))
        if self.rank == first_left:
            _say(self._verdict())
        self._end(1)

    def _verdict(self) -> str:
        culprit = min(self._troubles)
        others = "" if len(self.peers) == 1 else " All other processes end with it."
        silent = sorted({*self._lines} - self._dumped) if self.rank == 0 and self._dumped else []
        frozen = [self.peers[number] for number in silent]
        names = "".join(f" {peer} does not answer: {self._kill_if_here(peer)}." for peer in frozen)
        return f"{self.peers[culprit.rank]} {culprit.reason}.{names}{others}"

    def _end_others(self, code: int) -> None:
        """Tell all others to end, and see to it where they run on this machine."""
        lines = dict(self._lines)
        for line in lines.values():
            line.send(end=code)
        limit = time.monotonic() + 4 * TICK_SECONDS
        here = [self.peers[number] for number in lines if self.peers[number].host == self.peers[0].host]
        while time.monotonic() < limit and any(_runs(peer.pid) for peer in here):
            time.sleep(TICK_SECONDS / 5)
        for peer in here:
            self._kill_if_here(peer)

    def _kill_if_here(self, peer: Peer) -> str:
        if peer.host != self.peers[self.rank].host:
            return "its machine has to end it"
        with contextlib.suppress(OSError):
            os.kill(peer.pid, signal.SIGKILL)
        return "killed"

    def _end(self, code: int) -> None:
        """End this process, in whatever C code its main thread may be."""
        self._closed.set()
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)

    def _dump_stacks(self) -> None:
        """Write where each thread of this process is to stderr, once."""
        if self.rank not in self._dumped:
            self._dumped.add(self.rank)
            _say(f"{self.peers[self.rank]} stands here:\n{_stacks()}")


def _stacks() -> str:
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    own = threading.get_ident()
    return "\n".join(
        f"Thread {names.get(ident, ident)}:\n{''.join(traceback.format_stack(frame))}"
        for ident, frame in sys._current_frames().items()
        if ident != own
    )


def _say(text: str) -> None:
    """Write to stderr at once, so that what several processes write does not mix."""
    with contextlib.suppress(OSError):
        os.write(2, f"\n{text}\n".encode())


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    with contextlib.suppress(OSError, IndexError), open(f"/proc/{pid}/stat") as file:  # noqa: PTH123 - not a real file
        return file.read().rpartition(")")[2].split()[0] != "Z"
    return True


def _first_message(connection: socket.socket) -> dict[str, Any]:
    """Read one message from whoever has connected; an empty one from who does not speak this language."""
    received = b""
    with contextlib.suppress(OSError, ValueError):
        while not received.endswith(b"\n") and len(received) < 1000:
            content = connection.recv(1)
            if not content:
                break
            received += content
        message = json.loads(received)
        return message if isinstance(message, dict) else {}
    return {}


def _kept_alive(connection: socket.socket) -> socket.socket:
    """Have the kernel find out within 20 s that the machine at the other end is gone."""
    connection.settimeout(None)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 5), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", 20_000)):
        if hasattr(socket, name):  # Linux
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return connection
