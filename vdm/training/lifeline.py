"""A failure detector: when one process of a run dies, fails or stands still, all end, and the reason is told once.

Neither torch nor Lightning does this. A process that waits for others in a collective waits until the process group
times out, half an hour by default; it is in C code, where no Python signal handler runs. So a thread in each process
holds a TCP connection to a thread of the first process (``peer_connections.py``). The kernel closes the connections of
a dead process, and keep-alive packets detect a dead machine. Where C code holds the interpreter, no thread runs either;
``guard.py`` covers that.

Messages to the first process: ``{"hello": RANK, "token": ...}``, ``{"failed": REASON, "guilty": true}``,
``{"stuck": SECONDS}``, ``{"dumped": true}``. From it: ``{"dump": true}``, ``{"end": CODE}``. Both ways:
``{"bye": true}``, after which the end of a connection means nothing.
"""

import contextlib
import os
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

from vdm.checkpoints.collectives import rank
from vdm.training.guard import LATE_SECONDS, TICK_SECONDS, Guard
from vdm.training.peer_connections import Connection, Peer, connect_peers

EVIDENCE_SECONDS = 2.0
"""How long the first process collects reports before it names the culprit: communication errors, which are consequences
of a failure, may arrive before the news of the failure itself."""
ANSWER_SECONDS = 10.0
"""A process that does not answer within this time is taken to be stopped."""


@dataclass(order=True)
class _Trouble:
    """A reason to end the run. Culprits are ordered before victims, and then the earlier before the later."""

    is_consequence: bool
    when: float
    rank: int = field(compare=False)
    reason: str = field(compare=False)


class Lifeline:
    """Watches this process and, through the first process, all others.

    All processes create theirs together, once the process group exists.

    Args:
        limit_seconds: How long this process may make no progress; ``None`` for any time.
        port: Port on which the first process listens; 0 takes any free port.
        how_died: Returns how the process of a rank ended, if this process started it; otherwise ``None``.
        on_end: Called in the first process with the reason for which it is about to end all.

    Raises:
        ValueError: In all processes, if the first one can't listen on ``port``.
    """

    def __init__(
        self,
        limit_seconds: float | None,
        port: int = 0,
        how_died: Callable[[int], str | None] = lambda rank: None,
        on_end: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self.limit_seconds = limit_seconds
        self.how_died = how_died
        self.on_end = on_end
        self.rank = rank()
        self._clock = 0.0
        """Seconds for which this process has run, without the time for which it was suspended as a whole."""
        self._num_progressed = self._num_seen = 0
        self._seen = 0.0
        """When ``_num_progressed`` was last seen to have changed."""
        self._selector = selectors.DefaultSelector()
        self._woken, self._waker = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ, None)
        self._troubles: list[_Trouble] = []
        self._deadline = float("inf")
        self._dumped: set[int] = set()
        self._own_failure: int | None = None
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self.peers, self._connections = connect_peers(port)
        for connection in self._connections.values():
            self._selector.register(connection.socket, selectors.EVENT_READ, connection)
        self._guard: Guard | None = None
        if limit_seconds is not None:
            with contextlib.suppress(OSError):  # no further process is allowed here
                self._guard = Guard(max(limit_seconds, 60))
        self._thread = threading.Thread(target=self._watch, name="lifeline", daemon=True)
        self._thread.start()

    def progress(self) -> None:
        """Note that this process makes progress."""
        self._num_progressed += 1

    def failed(self, reason: str, is_consequence: bool, exit_code: int) -> None:
        """Tell the others that this process ends with an error.

        Returns only for an error that began in the first process, so that it is reported as usual. In all other cases
        the process ends with the others, once the culprit has been named.

        Args:
            reason: The error, to be shown.
            is_consequence: Whether the error is likely to come from the end of another process.
            exit_code: Exit code of all processes.
        """
        if self.rank == 0 and not is_consequence:
            with self._lock:
                self._own_failure, self._deadline = exit_code, float("inf")
            self._end_others(exit_code)
            self.close()
            return
        if self.rank == 0:
            self._blame(0, reason, is_consequence=True)
        elif 0 in self._connections:
            self._connections[0].send(failed=reason, guilty=not is_consequence)
        self._thread.join(ANSWER_SECONDS + EVIDENCE_SECONDS)

    def close(self) -> None:
        """Stop watching, and tell the others to ignore the end of this process from now on."""
        if self._closed.is_set():
            return
        for connection in list(self._connections.values()):
            connection.send(bye=True)
        self._closed.set()
        self._waker.send(b"0")
        self._thread.join()
        if self._guard is not None:
            self._guard.close()
        self._selector.close()
        for connection in (self._woken, self._waker, *(connection.socket for connection in self._connections.values())):
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
            if self.rank == 0 or 0 not in self._connections:
                self._blame(self.rank, f"made no progress for {idle:.0f} s", stuck=True)
            else:
                self._connections[0].send(stuck=idle)
                self._deadline = self._clock + 2 * ANSWER_SECONDS

    def _read(self, connection: Connection) -> None:
        messages, stands = connection.receive()
        for message in messages:
            self._hear(connection, message)
        if not stands:
            self._lose(connection)

    def _hear(self, connection: Connection, message: Mapping[str, Any]) -> None:
        if "bye" in message:
            self._connections.pop(connection.rank, None)
        elif "dump" in message:
            self._dump_stacks()
            connection.send(dumped=True)
        elif "end" in message:
            self._end(int(message["end"]))
        elif "failed" in message:
            self._blame(connection.rank, message["failed"], is_consequence=not message["guilty"])
        elif "stuck" in message:
            self._dumped.add(connection.rank)
            self._blame(connection.rank, f"made no progress for {message['stuck']:.0f} s", stuck=True)
        elif "dumped" in message:
            self._dumped.add(connection.rank)

    def _lose(self, connection: Connection) -> None:
        """Handle the end of a connection: without a ``bye``, the other process has died."""
        self._selector.unregister(connection.socket)
        connection.socket.close()
        if self._connections.pop(connection.rank, None) is None or self._closed.is_set():
            return
        how = self.how_died(connection.rank)
        self._blame(connection.rank, f"died: {how or 'its process, or its machine, is gone'}")

    # The end

    def _blame(self, rank: int, reason: str, is_consequence: bool = False, stuck: bool = False) -> None:
        """Record a reason to end the run, and collect further reasons for a while."""
        with self._lock:
            if self._own_failure is not None:
                return
            self._troubles.append(_Trouble(is_consequence, self._clock, rank, reason))
            wait = ANSWER_SECONDS if stuck and self.rank == 0 else EVIDENCE_SECONDS
            if stuck and self.rank == 0 and self._deadline == float("inf"):
                self._dump_stacks()
                for connection in list(self._connections.values()):
                    connection.send(dump=True)
            self._deadline = min(self._deadline, self._clock + wait)

    def _all_have_dumped(self) -> bool:
        """Whether a process stood still and all that answer have written their stacks."""
        return self.rank == 0 and self.rank in self._dumped and self._dumped >= {0, *self._connections}

    def _end_run(self) -> None:
        """Name the culprit, and end all processes; if the first one does not answer, the next does so."""
        if self.rank == 0:
            if self._own_failure is None:
                verdict = self._verdict()
                _say(verdict)
                self._end_others(1)
                with contextlib.suppress(Exception):  # the processes end in any case
                    self.on_end(verdict)
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
        silent = sorted({*self._connections} - self._dumped) if self.rank == 0 and self._dumped else []
        frozen = [self.peers[number] for number in silent]
        names = "".join(f" {peer} does not answer: {self._kill_if_here(peer)}." for peer in frozen)
        return f"{self.peers[culprit.rank]} {culprit.reason}.{names}{others}"

    def _end_others(self, code: int) -> None:
        """Tell all others to end, and kill those on this machine that do not."""
        connections = dict(self._connections)
        for connection in connections.values():
            connection.send(end=code)
        limit = time.monotonic() + 4 * TICK_SECONDS
        here = [self.peers[number] for number in connections if self.peers[number].host == self.peers[0].host]
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
        """End this process at once, even if its main thread is in C code."""
        self._closed.set()
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)

    def _dump_stacks(self) -> None:
        """Write the stack of each thread of this process to stderr, once."""
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
    """Write to stderr in one call, so that the texts of several processes do not mix."""
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
