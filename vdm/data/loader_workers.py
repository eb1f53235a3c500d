"""The loader's worker processes: their start, signals, end, and messages about their death."""

import errno
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess

from vdm.data.delivery import UndeliverableBatchError
from vdm.logs import log_to_terminal
from vdm.processes import ProcessDiedError, describe_exit, end_with_parent

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""Signals that terminals and clusters send to all processes of a job; only the training process handles them."""

_SECONDS_UNTIL_SEEN = 1.0
"""How long to wait for a worker's exit code after its connection broke."""
_DIED_WITH_SERVER = 255
"""Exit code that ``multiprocessing`` reports for processes whose fork server has died."""
_ADVICE = (
    "; fewer workers (data.num_workers) and smaller micro-batches (data.micro_batch_size) need less memory, and the run"
    " resumes exactly from its last checkpoint"
)


def start_method(preloaded: str) -> BaseContext:
    """Return the context that starts workers by a fork server, which has done the imports: they start within a second.

    Workers forked from the training process itself would inherit its threads' locks and clients of remote storage.

    Args:
        preloaded: Module that the server imports.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([preloaded])
    return context


def try_semaphores() -> None:
    """Make and release as many semaphores as torch does before its first worker.

    Raises:
        OSError: If ``/dev/shm`` is full. In torch, the same error would leave an object that prints an error at exit.
    """
    context = multiprocessing.get_context("forkserver")
    _ = context.Queue(), context.Event()


@contextmanager
def signals_held() -> Iterator[None]:
    """Block signals in this thread, and in the processes that it starts."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        resource_tracker.ensure_running()  # starting it as the first process unblocks some signals
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class WorkerSetUp:
    """Sets up a worker: it ignores signals, ends with the training process, and gets its environment.

    The environment may have changed since the server was forked; clients of remote storage read credentials from it.
    """

    def __init__(self) -> None:
        self._variables = dict(os.environ)

    def __call__(self, worker: int) -> None:
        """Set up this process, the worker of that number."""
        end_with_parent()
        log_to_terminal()
        os.environ.update(self._variables)
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


@contextmanager
def faults_in_one_line(workers: Callable[[], Sequence[BaseProcess]], is_starting: bool = False) -> Iterator[None]:
    """Turn torch's errors into one line about the dead process or the missing resource that caused them.

    Args:
        workers: Returns the workers that have been started.
        is_starting: Whether workers are being started.

    Raises:
        ProcessDiedError: If a worker or the fork server has died.
        ValueError: If the system lacks file descriptors, processes or shared memory.
    """
    try:
        yield
    except (OSError, EOFError, RuntimeError, UndeliverableBatchError) as error:
        death = _death(workers())
        if death is not None:
            raise ProcessDiedError(death) from error
        shortage = _shortage_at_start(error) if is_starting else None
        if "Too many open files" in str(error) or "items of ancdata" in str(error):
            shortage = "too many files are open to take over a batch from a loader worker; raise the limit (ulimit -n)"
        if shortage is not None:
            raise ValueError(f"data.num_workers: {shortage}") from error
        raise


def _death(workers: Sequence[BaseProcess]) -> str | None:
    """Return a message about a dead worker or fork server; None if all are alive."""
    wait([worker.sentinel for worker in workers], _SECONDS_UNTIL_SEEN)
    dead = [(number, worker) for number, worker in enumerate(workers) if worker.exitcode is not None]
    server = _end_of_server()
    if server is not None and all(worker.exitcode == _DIED_WITH_SERVER for _, worker in dead):
        return f"the fork server, which starts loader workers, died: {server}{_ADVICE}"
    for number, worker in dead:
        return f"loader worker {number} (process {worker.pid}) died: {describe_exit(worker.exitcode)}{_ADVICE}"
    return None


def _end_of_server() -> str | None:
    """Return how the fork server of this process ended; None if it runs or was never started."""
    number = forkserver._forkserver._forkserver_pid  # pyright: ignore[reportAttributeAccessIssue]
    if number is None:
        return None
    try:
        # It stays a zombie, which `multiprocessing` looks for when it needs a server again.
        ended = os.waitid(os.P_PID, number, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return "it is gone"
    if ended is None:
        return None
    code = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
    return f"process {number}, {describe_exit(code)}"


def _shortage_at_start(error: Exception) -> str | None:
    """Return a message if the system lacks a resource for starting workers; None otherwise."""
    number = getattr(error, "errno", None)
    if number in (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.ENOENT, errno.ENOSYS):  # of semaphores
        return (
            f"workers can't be started: {os.strerror(number)}, probably in /dev/shm; enlarge it (docker run"
            " --shm-size=1g) or free it, or load in the training process (data.num_workers=0)"
        )
    if number in (errno.EAGAIN, errno.ENOMEM):
        return f"workers can't be started: {os.strerror(number)}; use fewer"
    return None
