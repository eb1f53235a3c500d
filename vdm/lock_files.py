"""Locks between processes that share a file system, on one machine or many, which survive the death of a holder.

A lock on PATH is a sequence of files PATH.0, PATH.1, ...; each describes one holder, and the last one holds the lock. A
process that finds the last holder dead creates the file with the next number. ``link`` creates it completely or not at
all, and for one process alone. No file is ever removed or renumbered. So a process that decides late, after another has
replaced the dead holder, can't take the lock from that one: the next number is already in use.
"""

import json
import os
import socket
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from vdm.files import MALFORMED, create_file

_ZOMBIE_STATES = "ZX"


def acquire(path: Path, number: int, text: str, durable: bool = False) -> bool:
    """Try to become holder ``number`` of the lock on ``path``; of several processes that try, exactly one succeeds.

    Args:
        path: Name of the lock; its folder must exist.
        number: Number of earlier holders, which must all be dead or gone: the length of ``lock_holders``.
        text: Description of the new holder.
        durable: Whether to wait until the file is on disk.

    Returns:
        Whether this process holds the lock now.
    """
    return create_file(lock_file(path, number), text, durable)


def lock_file(path: Path, number: int) -> Path:
    """Return the file of holder ``number`` of the lock on ``path``."""
    return path.with_name(f"{path.name}.{number}")


def lock_holders(path: Path) -> list[str]:
    """Return the description of each holder of the lock on ``path``, in order; the last one holds it."""
    texts: list[str] = []
    with suppress(FileNotFoundError):
        while True:
            texts.append(lock_file(path, len(texts)).read_text(encoding="utf-8", errors="replace"))
    return texts


@contextmanager
def heartbeat(path: Path, seconds: float) -> Iterator[None]:
    """Touch a file at regular intervals while the block runs, as a sign of life of this process."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(seconds):
            with suppress(OSError):  # storage may fail for a moment
                os.utime(path)

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def silence(path: Path) -> float:
    """Return the seconds since a file was last touched, by the clock of the storage; infinity if it does not exist."""
    with tempfile.TemporaryFile(dir=path.parent) as clock:
        os.utime(clock.fileno())
        now = os.fstat(clock.fileno()).st_mtime
    try:
        return now - path.stat().st_mtime
    except FileNotFoundError:
        return float("inf")


@dataclass(frozen=True)
class LockHolder:
    """A process that holds a lock, as its lock file describes it.

    Args:
        host: Name of its machine.
        boot: Id of the machine's boot; ``None`` if unknown.
        namespace: Namespace of its process id: containers on one machine have their own; ``None`` if unknown.
        process: Its process id.
        process_start: Start of the process in ticks since boot, since process ids are reused; ``None`` if unknown.
        since: Time at which it took the lock.
        job: Name that all starts of its job have in common; ``None`` without a job.
        start: Number of the job's start; a later one compares greater.
        ended: Time at which it released the lock; ``None`` before that.
    """

    host: str
    boot: str | None
    namespace: str | None
    process: int
    process_start: int | None
    since: str
    job: str | None = None
    start: Sequence[int] = ()
    ended: str | None = None

    @classmethod
    def this_process(cls, job: str | None = None, start: Sequence[int] = ()) -> Self:
        """Describe the process that calls this."""
        process = os.getpid()
        begun = _state_and_start(process)
        return cls(
            socket.gethostname(),
            _boot(),
            _namespace(),
            process,
            None if begun is None else begun[1],
            _now(),
            job,
            list(start),
        )

    @classmethod
    def read(cls, text: str) -> Self | None:
        """Return the holder that a lock file describes; ``None`` if the file is damaged."""
        try:
            content: dict[str, Any] = json.loads(text)
            found = cls(**{field.name: content[field.name] for field in fields(cls)})
            is_sound = isinstance(found.process, int) and all(isinstance(number, int) for number in found.start)
            return found if is_sound else None
        except MALFORMED:
            return None

    def text(self) -> str:
        """Return the content of the lock file."""
        return json.dumps(asdict(self), indent=1)

    def ending(self) -> str:
        """Return the content of the lock file once the lock is released."""
        return json.dumps({**asdict(self), "ended": _now()}, indent=1)

    def is_of_same_start(self, other: "LockHolder") -> bool:
        """Tell whether both are processes of one start of one job."""
        return self.job is not None and (self.job, list(self.start)) == (other.job, list(other.start))

    def is_on_same_machine(self, other: "LockHolder") -> bool:
        """Tell whether both have the same process ids, so that one can look up whether the other lives."""
        return (self.host, self.boot, self.namespace) == (other.host, other.boot, other.namespace)

    def is_alive(self, me: "LockHolder", silent_seconds: float, max_silent_seconds: float) -> bool:
        """Tell whether this holder still holds the lock.

        Args:
            me: The process that asks.
            silent_seconds: Time since the last sign of life of this holder.
            max_silent_seconds: After this time a holder on another machine counts as dead.
        """
        if self.ended is not None:
            return False
        if self.job is not None and self.job == me.job and list(self.start) < list(me.start):
            return False  # a job is restarted only after its processes have ended
        if self.is_on_same_machine(me):
            return _runs(self.process, self.process_start)
        return silent_seconds <= max_silent_seconds

    def __str__(self) -> str:
        job = "" if self.job is None else f" of {self.job}"
        return f"process {self.process}{job} on {self.host}"


def _runs(process: int, start: int | None) -> bool:
    """Tell whether the process of this machine that began at ``start`` still runs."""
    found = _state_and_start(process)
    if found is not None:
        return found[0] not in _ZOMBIE_STATES and start in (None, found[1])
    try:
        os.kill(process, 0)
    except PermissionError:  # it exists, but belongs to another user and is hidden in /proc
        return True
    except (OSError, OverflowError):
        return False
    return not Path("/proc/self/stat").exists()


def _state_and_start(process: int) -> tuple[str, int] | None:
    """Return a process's state, and its start in ticks since boot; ``None`` if there is no such process or no /proc."""
    try:  # fields 3 and 22; field 2, the name, may contain spaces
        found = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return found[0], int(found[19])
    except (OSError, *MALFORMED):
        return None


def _boot() -> str | None:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None


def _namespace() -> str | None:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return None


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
