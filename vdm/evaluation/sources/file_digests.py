"""SHA-256 of files, kept so that a file that has not changed since is not read again."""

import hashlib
import io
import os
import time
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote_from_bytes

from typing_extensions import TypedDict  # that of typing suffices from Python 3.12 on

from vdm.files import write_json
from vdm.records import read_record
from vdm.regular_files import open_regular

_RACY_NS = 2 * 10**9
"""Time within which two changes of a file may bear the same time stamp: that of FAT, the coarsest in use."""
_MAX_BYTES = 2**28
"""Size limit of a record: that of a million files."""


class _Entry(TypedDict):
    status: list[int]
    sha256: str


class FileDigests:
    """SHA-256 of the files of folders.

    As in Git's index, a file counts as unchanged while its size, its inode and the times of its last change and of that
    of its inode are the same, to the nanosecond. A file that changed shortly before it was read is read again the next
    time, since another change might have left it with the same times ("racy Git", in Git's technical documentation).

    Args:
        folder: Where they are kept, one file for each folder of files; None keeps none.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def of(self, root: Path, files: Iterable[Path]) -> list[bytes]:
        """Return the digest of each file, or the reason why one can't be read.

        Args:
            root: The folder that they are in.
            files: Their paths.
        """
        record = None if self._folder is None else self._folder / f"{_sha256(os.fsencode(root.resolve()))}.json"
        before = {} if record is None else _read(record)
        kept: dict[str, _Entry] = {}
        digests: list[bytes] = []
        for path in files:
            name = quote_from_bytes(os.fsencode(path.relative_to(root)))
            try:
                digest, entry = _digest(path, before.get(name))
            except OSError as error:
                digest, entry = f"unreadable: {error.strerror}".encode(), None
            digests.append(digest)
            if entry is not None:
                kept[name] = entry
        if record is not None and kept != before:
            _write(record, kept)
        return digests


def _digest(path: Path, before: _Entry | None) -> tuple[bytes, _Entry | None]:
    """Return the digest of a file, and what is kept of it: None if it may change without notice."""
    with open_regular(path) as file:
        status = _status(file)
        if before is not None and before["status"] == status:
            return bytes.fromhex(before["sha256"]), before
        start = time.time_ns()
        digest = hashlib.file_digest(file, "sha256").digest()
        is_settled = _status(file) == status and max(status[-2:]) < start - _RACY_NS
    return digest, _Entry(status=status, sha256=digest.hex()) if is_settled else None


def _status(file: io.BufferedReader) -> list[int]:
    found = os.fstat(file.fileno())
    return [found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns]


def _read(record: Path) -> dict[str, _Entry]:
    try:
        entries: dict[str, _Entry] = read_record(record, dict[str, _Entry], _MAX_BYTES)
        for entry in entries.values():
            bytes.fromhex(entry["sha256"])
    except ValueError:  # missing or damaged: all files are read again
        return {}
    return entries


def _write(record: Path, entries: dict[str, _Entry]) -> None:
    try:
        record.parent.mkdir(parents=True, exist_ok=True)
        write_json(record, entries, durable=False)
    except OSError:  # where nothing can be written, nothing is kept
        return


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
