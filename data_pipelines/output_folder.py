"""The output folder of a set: its recorded settings, and the locks that keep other commands out."""

import fcntl
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from vdm.files import write_file, write_json
from vdm.lock_files import LockHolder, acquire, heartbeat, lock_file, lock_holders, silence
from vdm.outside import read_json

SETTINGS_NAME = "build.json"
"""Records the settings of the set before anything else is written."""
LOCK_NAME = "building"
"""Name of the lock files that name the building process; see ``vdm.lock_files``."""
_REMOVED_SUFFIX = ".removed"

BEAT_SECONDS = 10.0
"""Interval of the heartbeat of a build."""
SILENT_SECONDS = 120.0
"""A build on another machine counts as dead after so long without a heartbeat."""

_UNRECORDED: Mapping[str, Any] = {"hdr": "map"}
"""Values of settings that earlier versions did not record."""


def prepare_output(output: Path, command: str, wanted: Mapping[str, Any]) -> None:
    """Make the output folder and record the settings, or check those that it records; see ``check_output``.

    Raises:
        ValueError: In one line, if it can't be made, or holds something else.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"output={output}: can't be made a folder: {error.strerror}") from None
    if not check_output(output, command, wanted):
        write_json(output / SETTINGS_NAME, dict(wanted), indent=1)


def check_output(output: Path, command: str, wanted: Mapping[str, Any]) -> bool:
    """Return whether the output folder holds a set, which has the same settings; if not, it is empty.

    Args:
        output: The folder.
        command: The command that makes the set, for messages.
        wanted: Settings by their keys on the command line.

    Raises:
        ValueError: In one line, if the folder holds something else.
    """
    if not output.is_dir() or all(path.name.startswith(".") for path in output.iterdir()):
        return False
    try:
        found = read_json(output / SETTINGS_NAME)
    except ValueError:
        raise ValueError(f"output={output}: is not empty and not from {command}; choose another folder") from None
    for key, value in wanted.items():
        if (other := found.get(key, _UNRECORDED.get(key))) != value:
            raise ValueError(
                f"output={output}: was built with {key}={other}, not {value}; "
                "choose another output, or delete this one to build it anew"
            )
    return True


@contextmanager
def output_lock(output: Path, work: Path) -> Iterator[None]:
    """Lock an output folder against other builds, on other machines too, while the block runs.

    Args:
        output: The folder, for messages.
        work: Its sub-folder of intermediate files, which holds the lock and is removed by ``remove_work``.

    Raises:
        ValueError: In one line, if another process builds there already.
    """
    me, path = LockHolder.this_process(), work / LOCK_NAME
    while True:
        work.mkdir(exist_ok=True)
        before = lock_holders(path)
        _refuse_if_held(output, path, before, me)
        with suppress(FileNotFoundError):  # another build has just ended and removed the folder
            if acquire(path, len(before), me.text()):
                break
    mine = lock_file(path, len(before))
    try:
        with heartbeat(mine, BEAT_SECONDS):
            yield
    finally:
        with suppress(OSError):  # the end of this process releases it then
            if mine.read_text(encoding="utf-8") == me.text():
                write_file(mine, me.ending())


def remove_work(work: Path) -> None:
    """Remove the folder that holds this process's lock.

    It is renamed first, so that it vanishes at once for other processes, which may make a new one at any time.
    """
    work = work.rename(work.with_name(f"{work.name}.{uuid.uuid4().hex}{_REMOVED_SUFFIX}"))
    shutil.rmtree(work)


def remove_leftovers(work: Path) -> None:
    """Remove folders that ``remove_work`` renamed but did not delete, because its process died."""
    for folder in work.parent.glob(f"{work.name}.*{_REMOVED_SUFFIX}"):
        if not folder.is_symlink():
            shutil.rmtree(folder)


def _refuse_if_held(output: Path, path: Path, before: Sequence[str], me: LockHolder) -> None:
    if not before:
        return
    last, silent = LockHolder.read(before[-1]), silence(lock_file(path, len(before) - 1))
    if silent > SILENT_SECONDS if last is None else not last.is_alive(me, silent, SILENT_SECONDS):
        return
    who = "a lock that can't be read" if last is None else f"{last}, since {last.since}"
    raise ValueError(
        f"output={output}: another command is building in this folder ({who}); wait for its end, or choose another"
    )


@contextmanager
def work_folder_lock(folder: Path) -> Iterator[None]:
    """Lock a work folder against other processes of this machine while the block runs.

    Raises:
        ValueError: In one line, if another process has locked it.
    """
    try:
        file = (folder / ".lock").open("w")
    except OSError as error:
        raise ValueError(f"work={folder}: can't be written to: {error.strerror}") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"work={folder}: another process is working in this folder; wait for its end") from None
        yield
