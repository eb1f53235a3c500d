"""Claims: which of several processes has a thing for itself, agreed on through files that they share.

A claim on PATH is a row of files PATH.0, PATH.1, ...; each names one claimant, and the last of them has the thing. Who
finds the last claimant dead or gone makes the file with the next number. ``link`` makes it whole or not at all, and for
one process alone. No file is ever removed or given another number, so nobody can act on a claim that has changed hands
in the meantime: the number that follows it is taken.
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
    """Become claimant ``number`` of ``path``; of any number of processes that try, one does.

    Args:
        path: Names what is claimed; its folder must exist.
        number: How many lock_holders there were before, all of them dead or gone: the length of ``lock_holders``.
        text: What is to be known of the claimant.
        durable: Whether to wait until the disk has it.

    Returns:
        Whether the thing is this process's now.
    """
    return create_file(lock_file(path, number), text, durable)


def lock_file(path: Path, number: int) -> Path:
    """Return the file of claimant ``number`` of ``path``."""
    return path.with_name(f"{path.name}.{number}")


def lock_holders(path: Path) -> list[str]:
    """Return what each claimant of ``path`` has written, in turn; the last has it."""
    texts: list[str] = []
    with suppress(FileNotFoundError):
        while True:
            texts.append(lock_file(path, len(texts)).read_text(encoding="utf-8", errors="replace"))
    return texts


@contextmanager
def heartbeat(path: Path, seconds: float) -> Iterator[None]:
    """Show that this process lives by touching a file of its own every so many seconds while the block runs."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(seconds):
            with suppress(OSError):  # storage may have a moment of weakness
                os.utime(path)

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def silence(path: Path) -> float:
    """Return how many seconds ago a file was last touched, by the clock of the storage; infinity if there is none."""
    with tempfile.TemporaryFile(dir=path.parent) as clock:
        os.utime(clock.fileno())
        now = os.fstat(clock.fileno()).st_mtime
    try:
        return now - path.stat().st_mtime
    except FileNotFoundError:
        return float("inf")


@dataclass(frozen=True)
class LockHolder:
    """A process that claims something, as its claim describes it.

    Args:
        host: Name of its machine.
        boot: Which start of the machine's system; none where that is unknown.
        namespace: In which process ids mean something: containers on one machine have their own.
        process: Its process id.
        process_start: When the process began, in ticks after the system's start; ids are used again.
        since: When it claimed.
        job: Name that all starts of its job have in common, if it is part of one.
        start: Which start of the job: a later one is greater.
        ended: When it gave the claim back.
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
        """Return the claimant that a claim describes; none if the claim is damaged."""
        try:
            content: dict[str, Any] = json.loads(text)
            found = cls(**{field.name: content[field.name] for field in fields(cls)})
            is_sound = isinstance(found.process, int) and all(isinstance(number, int) for number in found.start)
            return found if is_sound else None
        except MALFORMED:
            return None

    def text(self) -> str:
        """Return what the claim says."""
        return json.dumps(asdict(self), indent=1)

    def ending(self) -> str:
        """Return what the claim says once it has been given back."""
        return json.dumps({**asdict(self), "ended": _now()}, indent=1)

    def is_of_same_start(self, other: "LockHolder") -> bool:
        """Whether both are processes of one start of one job."""
        return self.job is not None and (self.job, list(self.start)) == (other.job, list(other.start))

    def is_on_same_machine(self, other: "LockHolder") -> bool:
        """Whether the process ids of both mean the same, and tell at once who lives."""
        return (self.host, self.boot, self.namespace) == (other.host, other.boot, other.namespace)

    def is_alive(self, me: "LockHolder", silent_seconds: float, max_silent_seconds: float) -> bool:
        """Tell whether the claim still holds.

        Args:
            me: The process that asks.
            silent_seconds: How long this claimant has shown no sign of life.
            max_silent_seconds: After how long one counts as dead of which nothing else can be known.
        """
        if self.ended is not None:
            return False
        if self.job is not None and self.job == me.job and list(self.start) < list(me.start):
            return False  # a job is started again when its processes have ended
        if self.is_on_same_machine(me):
            return _runs(self.process, self.process_start)
        return silent_seconds <= max_silent_seconds

    def __str__(self) -> str:
        job = "" if self.job is None else f" of {self.job}"
        return f"process {self.process}{job} on {self.host}"


def _runs(process: int, start: int | None) -> bool:
    """Tell whether a process of this machine lives that began at ``start``."""
    found = _state_and_start(process)
    if found is not None:
        return found[0] not in _ZOMBIE_STATES and start in (None, found[1])
    try:
        os.kill(process, 0)
    except PermissionError:  # somebody else's, and hidden
        return True
    except (OSError, OverflowError):
        return False
    return not Path("/proc/self/stat").exists()


def _state_and_start(process: int) -> tuple[str, int] | None:
    """Return a process's state, and its start in ticks after the system's; none where Linux does not say."""
    try:  # fields 3 and 22; field 2, the name, may have spaces
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
