"""Atomic folders: such a folder is complete or does not exist.

One or several processes write it under a hidden name beside its final place; it is flushed to disk and then renamed. A
list of the sizes and checksums of its files, written last, reveals later damage.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict  # that of typing suffices from Python 3.12 on

from vdm.files import flush
from vdm.records import read_record

CHECKSUMS_NAME = "checksums.json"
REPLACED_SUFFIX = "~"
"""Ends the name of a folder's former version while a new one takes its place."""

_FORMAT = "vdm-checkpoint-1"


def begin_folder(folder: Path) -> Path:
    """Create an empty, hidden folder beside ``folder``, into which its files are to be written.

    Fails if the parent of ``folder.parent`` does not exist, as after a run was renamed.
    """
    folder.parent.mkdir(exist_ok=True)
    partial = _hidden(folder)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    return partial


def describe_file(path: Path) -> dict[str, Any]:
    """Flush a file to disk; return its size and checksum."""
    flush(path)
    return _describe(path)


def finish_folder(folder: Path, files: Mapping[str, dict[str, Any]]) -> None:
    """Move the folder begun by ``begin_folder`` to its place; it replaces a former version.

    Args:
        folder: Final place.
        files: Result of ``describe_file`` for each file, by name.
    """
    partial = _hidden(folder)
    listed = {"format": _FORMAT, "files": dict(sorted(files.items()))}
    (partial / CHECKSUMS_NAME).write_text(json.dumps(listed, indent=1))
    for path in (partial / CHECKSUMS_NAME, partial):
        flush(path)
    _move_into_place(partial, folder)


def abandon_folder(folder: Path) -> None:
    """Remove the files written since ``begin_folder``; a former version stays."""
    shutil.rmtree(_hidden(folder), ignore_errors=True)


def write_folder(folder: Path, write: Callable[[Path], object]) -> None:
    """Create ``folder``, or replace it, with the files that ``write`` puts into the folder it is given."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = begin_folder(folder)
    write(partial)
    finish_folder(folder, {path.name: describe_file(path) for path in partial.iterdir()})


def verify_folder(folder: Path, rank: int = 0, num_processes: int = 1) -> None:
    """Read every byte of a folder and compare it with the list of checksums.

    Args:
        folder: The folder.
        rank: Number of this process, if several processes verify a share of the files each.
        num_processes: Number of processes.

    Raises:
        ValueError: If it is not whole; the message names the file.
    """
    files = _listed_files(folder)
    strangers = sorted({path.name for path in folder.iterdir()} - files.keys() - {CHECKSUMS_NAME})
    if strangers:
        raise ValueError(f"{folder / strangers[0]}: is not one of the checkpoint's files")
    for name, description in list(files.items())[rank::num_processes]:
        path = folder / name
        if not path.is_file():
            raise ValueError(f"{path}: missing")
        if path.is_symlink():
            raise ValueError(f"{path}: a link, where a checkpoint has files")
        if path.stat().st_size != description["bytes"]:
            raise ValueError(f"{path}: damaged: {path.stat().st_size} bytes instead of {description['bytes']}")
        if _describe(path) != description:
            raise ValueError(f"{path}: damaged: its checksum is not the one it was saved with")


def checksum_of(folder: Path) -> str:
    """Return one checksum of a whole folder: folders with equal files have equal checksums."""
    listed = sorted((name, description["blake2b"]) for name, description in _listed_files(folder).items())
    return hashlib.blake2b(json.dumps(listed).encode(), digest_size=16).hexdigest()


class _Description(TypedDict):
    bytes: int
    blake2b: str


class _Checksums(TypedDict):
    format: str
    files: dict[str, _Description]


def _listed_files(folder: Path) -> dict[str, _Description]:
    """Return the listed size and checksum of each file of a checkpoint, by name.

    Raises:
        ValueError: If the list is missing or damaged, or has paths outside of the folder.
    """
    path = folder / CHECKSUMS_NAME
    if not path.exists():
        raise ValueError(f"{folder}: not a whole checkpoint: {CHECKSUMS_NAME} is missing or damaged: there is none")
    try:
        listed = read_record(path, _Checksums)
    except ValueError as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise ValueError(
            f"{folder}: not a whole checkpoint: {CHECKSUMS_NAME} is missing or damaged: {reason}"
        ) from None
    if listed["format"] != _FORMAT:
        raise ValueError(f"{path}: format {listed['format']!r}: must be {_FORMAT!r}")
    for name in listed["files"]:
        if Path(name).name != name:
            raise ValueError(f"{path}: files.{name}: not the name of a file beside it")
    if not listed["files"]:
        raise ValueError(f"{path}: files {{}}: must not be empty")
    return listed["files"]


def folder_bytes(folder: Path) -> int:
    """Return the size of a folder's files."""
    return sum(path.stat().st_size for path in folder.iterdir())


def remove_folder(folder: Path) -> None:
    """Remove a folder, or a partly written file; an interrupted removal leaves only a hidden folder.

    Raises:
        OSError: If it can't be removed; the error's ``filename`` is the path that is left.
    """
    if not folder.is_dir():
        folder.unlink(missing_ok=True)
        return
    hidden = folder if folder.name.startswith(".") else _hidden(folder)
    if hidden != folder:
        shutil.rmtree(hidden, ignore_errors=True)
        folder.rename(hidden)
    try:
        shutil.rmtree(hidden)
    except OSError as error:  # it may name a file without its folder
        raise OSError(error.errno, error.strerror, str(hidden)) from error


def _hidden(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial")


def _describe(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16))
    return {"bytes": path.stat().st_size, "blake2b": digest.hexdigest()}


def _move_into_place(partial: Path, folder: Path) -> None:
    """Rename the new folder; a former version is renamed first, and stays readable until it is replaced."""
    former = folder.with_name(folder.name + REPLACED_SUFFIX)
    if folder.exists():
        shutil.rmtree(former, ignore_errors=True)
        folder.rename(former)
    partial.rename(folder)
    flush(folder.parent)
    shutil.rmtree(former, ignore_errors=True)
