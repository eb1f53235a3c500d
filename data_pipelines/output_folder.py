"""The folder that a set is written to: what is in it already must be of the same making."""

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
"""Records what the set is built with, from the first moment on."""
CLAIM_NAME = "building"
"""Of the files that say which process builds."""
_REMOVED_SUFFIX = ".removed"

BEAT_SECONDS = 10.0
"""How often a build shows that it is alive."""
SILENT_SECONDS = 120.0
"""After how long without that a build on another machine counts as dead."""


_UNRECORDED: Mapping[str, Any] = {"hdr": "map"}
"""What sets are built with that earlier versions have made, which did not record it."""


def claim_output(output: Path, command: str, wanted: Mapping[str, Any]) -> None:
    """Make the output folder, or check that what is in it was begun with the same settings; see ``check_output``."""
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"output={output}: can't be made a folder: {error.strerror}") from None
    if not check_output(output, command, wanted):
        write_json(output / SETTINGS_NAME, dict(wanted), indent=1)


def check_output(output: Path, command: str, wanted: Mapping[str, Any]) -> bool:
    """Tell whether the output folder holds a set that was begun with the same settings; if not, it is empty.

    Args:
        output: The folder.
        command: What makes the set, for messages.
        wanted: Settings by the names that the user knows.

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
def kept_from_others(output: Path, work: Path) -> Iterator[None]:
    """Keep other processes, of other machines too, from building in an output folder at the same time.

    Args:
        output: The folder, for messages.
        work: Its sub-folder of what is not done yet, which has the claim and is removed by ``remove_work``.

    Raises:
        ValueError: In one line, if another process builds there already.
    """
    me, path = LockHolder.this_process(), work / CLAIM_NAME
    while True:
        work.mkdir(exist_ok=True)
        before = lock_holders(path)
        _refuse_if_held(output, path, before, me)
        with suppress(FileNotFoundError):  # another build has just ended, and removed the folder
            if acquire(path, len(before), me.text()):
                break
    mine = lock_file(path, len(before))
    try:
        with heartbeat(mine, BEAT_SECONDS):
            yield
    finally:
        with suppress(OSError):  # then the death of this process releases it
            if mine.read_text(encoding="utf-8") == me.text():
                write_file(mine, me.ending())


def remove_work(work: Path) -> None:
    """Remove the folder that has this process's claim: all at once for others, who may make it anew at any time."""
    work = work.rename(work.with_name(f"{work.name}.{uuid.uuid4().hex}{_REMOVED_SUFFIX}"))
    shutil.rmtree(work)


def remove_leftovers(work: Path) -> None:
    """Remove what was left where a process died while it removed such a folder."""
    for folder in work.parent.glob(f"{work.name}.*{_REMOVED_SUFFIX}"):
        if not folder.is_symlink():
            shutil.rmtree(folder)


def _refuse_if_held(output: Path, path: Path, before: Sequence[str], me: LockHolder) -> None:
    if not before:
        return
    last, silent = LockHolder.read(before[-1]), silence(lock_file(path, len(before) - 1))
    if silent > SILENT_SECONDS if last is None else not last.is_alive(me, silent, SILENT_SECONDS):
        return
    who = "a claim that can't be read" if last is None else f"{last}, since {last.since}"
    raise ValueError(
        f"output={output}: another command is building in this folder ({who}); wait for its end, or choose another"
    )


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes of this machine from working in a folder at the same time.

    Raises:
        ValueError: In one line, if one does already.
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
