"""Reading and checking the files of a sample against what the index records."""

import io
import os
from typing import TypeVar

from vdm.data.shards import Member, SampleEntry, checksum, max_bytes_of, stream_checksum
from vdm.regular_files import FilePart

Data = TypeVar("Data", bound=bytes | bytearray | memoryview)


class DamagedSample(ValueError):  # noqa: N818 (named after the sample, not the error)
    """A sample whose bytes are not those that the index records."""


def check_member_in(file: io.BufferedIOBase, shard: str, entry: SampleEntry, extension: str) -> None:
    """Check one file of a sample in an open tar, without holding it in memory; see ``read_member``."""
    member = _member_of(shard, entry, extension)
    digest = stream_checksum(FilePart.open(file, member.offset, member.length))
    num_bytes = max(0, min(member.length, file.seek(0, os.SEEK_END) - member.offset))
    _check(num_bytes, digest, shard, entry, extension)


def read_member(file: io.BufferedIOBase, shard: str, entry: SampleEntry, extension: str) -> bytes:
    """Read one file of a sample out of an open tar and check it.

    Args:
        file: The tar, open for reading; its position changes.
        shard: Name of the tar, for messages.
        entry: The sample, from the shard's sidecar.
        extension: Which of its files: ``"mp4"`` or ``"json"``.

    Raises:
        DamagedSample: If the bytes are not those recorded.
    """
    member = _member_of(shard, entry, extension)
    num_bytes = file.seek(0, os.SEEK_END)
    file.seek(min(member.offset, num_bytes))
    if member.length > max_bytes_of(extension):
        raise DamagedSample(f"{shard}: {entry.key}.{extension} {too_long(member.length, extension)}")
    return check_member(file.read(min(member.length, num_bytes)), shard, entry, extension)


def _member_of(shard: str, entry: SampleEntry, extension: str) -> Member:
    if (member := entry.members.get(extension)) is None:
        raise DamagedSample(f"{shard}: sample {entry.key} has no member .{extension}")
    return member


def too_long(num_bytes: int, extension: str) -> str:
    """Return the message for a file of a sample that exceeds its limit."""
    return f"has {num_bytes} bytes, more than the {max_bytes_of(extension)} that a .{extension} may have"


def check_member(data: Data, shard: str, entry: SampleEntry, extension: str) -> Data:
    """Return the bytes of a sample's file if they match the index.

    Raises:
        DamagedSample: If they don't.
    """
    _check(len(data), checksum(data), shard, entry, extension)
    return data


def _check(num_bytes: int, digest: str, shard: str, entry: SampleEntry, extension: str) -> None:
    member = entry.members[extension]
    if num_bytes != member.length:
        reason = f"{num_bytes} bytes where the index records {member.length}; the shard is cut short"
    elif digest != member.checksum:
        reason = "its checksum is not the one in the index; the shard is damaged"
    else:
        return
    raise DamagedSample(f"{shard}: {entry.key}.{extension} at byte {member.offset}: {reason}")
