"""Listing the files in an untrusted tar by its headers.

A false header makes Python's ``tarfile`` fail or allocate memory; here it costs only its own member.
"""

import io
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from vdm.data.sidecars import MAX_KEY
from vdm.text import printable

BLOCK = tarfile.BLOCKSIZE
MAX_EXTENDED_BYTES = 1 << 20
"""Maximum size of an extended header, which holds a long name or other attributes of the next member."""

_LONG_NAME, _LONG_LINK = tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK
_PAX = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_DEVICES = (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE)
_WITHOUT_DATA = (tarfile.DIRTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE, *_DEVICES)
_MAGIC, _MAGIC_AT = b"ustar", 257
_SEARCHED_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class TarMember:
    """A file in a tar."""

    name: str
    offset: int
    """Offset of its content from the start of the tar, in bytes."""
    length: int


@dataclass
class _Extended:
    """Attributes of the next member, read from extended headers."""

    name: str | None = None
    link: str | None = None
    """Target of a link."""
    size: int | None = None
    fault: str | None = None


def read_members(file: io.BufferedIOBase, tar: str, faults: list[str]) -> Iterator[TarMember]:
    """Yield the usable files of a tar, in order; memory does not depend on the sizes that headers declare.

    Args:
        file: The tar, open for reading.
        tar: Its name, for messages.
        faults: Receives a line for each member that is left out, with the reason, and one if the tar is truncated.
    """
    num_bytes, position = file.seek(0, os.SEEK_END), 0
    extended = _Extended()
    found: dict[str, TarMember] = {}
    while (header := _read_header(file, position, tar, faults)) is not None:
        data = position + BLOCK
        size = header.size if extended.size is None else extended.size
        if header.type in _WITHOUT_DATA:
            size = 0
        elif header.type == tarfile.GNUTYPE_SPARSE:
            data = _after_sparse_map(file, position)
        name = printable(extended.name or header.name, 200)
        if not 0 <= size <= num_bytes - data:
            next_position = _next_header(file, data, num_bytes)
            if next_position is None:
                faults.append(f"{tar}: is cut short in {name} at byte {num_bytes}")
                return
            faults.append(f"{tar}: {name}: claims to have {size} bytes, which is not true")
            position, extended = next_position, _Extended()
            continue
        position = data + -(-size // BLOCK) * BLOCK
        if header.type in (*_PAX, _LONG_NAME, _LONG_LINK):
            _extend(extended, file, header.type, data, size)
        elif header.type != tarfile.XGLTYPE:
            member = TarMember(extended.name or header.name, data, size)
            is_link = header.type == tarfile.LNKTYPE
            original = found.get(extended.link or header.linkname) if is_link else None
            if fault := extended.fault or _fault(header, member.name, original):
                faults.append(f"{tar}: {name}: {fault}")
            elif header.type in _FILES or original is not None:
                member = member if original is None else replace(original, name=member.name)
                found.setdefault(member.name, member)
                yield member
            extended = _Extended()


def _read_header(file: io.BufferedIOBase, position: int, tar: str, faults: list[str]) -> tarfile.TarInfo | None:
    """Return the header at a position; None at the end of the tar, or if the header is damaged."""
    file.seek(position)
    block = file.read(BLOCK)
    if len(block) == BLOCK and any(block):
        try:
            return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except (tarfile.HeaderError, ValueError, OverflowError) as error:
            if position == 0:
                faults.append(f"{tar}: is not a plain tar ({error}); compressed ones must be unpacked first")
            else:
                faults.append(f"{tar}: a header at byte {position} is damaged; what follows is left out")
            return None
    if position == 0 and any(block):
        faults.append(f"{tar}: is not a plain tar (it has {len(block)} bytes)")
    elif not _only_zeros(file, position):
        faults.append(f"{tar}: a header at byte {position} is damaged; what follows is left out")
    return None


def _only_zeros(file: io.BufferedIOBase, position: int) -> bool:
    num_bytes = file.seek(0, os.SEEK_END)
    while position < num_bytes:
        try:  # skip holes in a sparse file, which are zeros
            position = os.lseek(file.fileno(), position, os.SEEK_DATA)
        except OSError:
            return True
        file.seek(position)
        block = file.read(_SEARCHED_AT_ONCE)
        if any(block):
            return False
        position += max(1, len(block))
    return True


def _next_header(file: io.BufferedIOBase, position: int, num_bytes: int) -> int | None:
    """Find the next header after a member with a false size; None if there is none."""
    while position < num_bytes:
        file.seek(position)
        part = file.read(_SEARCHED_AT_ONCE)
        place = part.find(_MAGIC)
        while place >= 0:
            if (place - _MAGIC_AT) % BLOCK == 0 and _is_header(part[place - _MAGIC_AT :][:BLOCK]):
                return position + place - _MAGIC_AT
            place = part.find(_MAGIC, place + 1)
        position += _SEARCHED_AT_ONCE
    return None


def _is_header(block: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError, OverflowError):
        return False
    return True


def _after_sparse_map(file: io.BufferedIOBase, position: int) -> int:
    """Return the offset of the content of a sparse member, after the blocks of its map."""
    file.seek(position)
    is_extended = file.read(BLOCK)[482:483] not in (b"\0", b"")
    position += BLOCK
    while is_extended:
        is_extended = file.read(BLOCK)[504:505] not in (b"\0", b"")
        position += BLOCK
    return position


def _extend(extended: _Extended, file: io.BufferedIOBase, kind: bytes, offset: int, size: int) -> None:
    if size > MAX_EXTENDED_BYTES:
        extended.fault = f"has an extended header of {size} bytes, more than {MAX_EXTENDED_BYTES}"
        return
    file.seek(offset)
    content = file.read(size)
    if kind in (_LONG_NAME, _LONG_LINK):
        text = _decoded(content.partition(b"\0")[0])
        extended.name, extended.link = (text, extended.link) if kind == _LONG_NAME else (extended.name, text)
        return
    try:
        for name, value in _pax_records(content):
            if name.startswith(b"GNU.sparse"):
                extended.fault = "is stored without its holes (sparse)"
            elif name == b"path":
                extended.name = _decoded(value)
            elif name == b"linkpath":
                extended.link = _decoded(value)
            elif name == b"size":
                extended.size = int(value[:20])
    except ValueError:
        extended.fault = "its extended header is damaged"


def _pax_records(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield names and values. A record is ``LENGTH NAME=VALUE`` and a line feed; LENGTH counts the whole record."""
    while content.strip(b"\0"):
        digits = content[:20].partition(b" ")[0]
        length = int(digits)
        name, equals, value = content[len(digits) + 1 : length - 1].partition(b"=")
        if not 0 < length <= len(content) or not equals:
            raise ValueError("no record of an extended header")
        yield name, value
        content = content[length:]


def _decoded(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _fault(header: tarfile.TarInfo, name: str, original: TarMember | None) -> str | None:
    """Return why a member is left out; None if it is not, or is a folder. ``original`` is the target of a hard link."""
    if header.type == tarfile.DIRTYPE:
        return None
    if header.type == tarfile.SYMTYPE:
        return "is a link and no file"
    if header.type == tarfile.LNKTYPE and original is None:
        return "is a hard link to a file that is not in the tar before it"
    if header.type in _DEVICES:
        return "is a device or a pipe and no file"
    if header.type == tarfile.GNUTYPE_SPARSE:
        return "is stored without its holes (sparse)"
    if header.type not in (*_FILES, tarfile.LNKTYPE):
        return "is of a kind that is not known"
    if not name or len(name) > MAX_KEY:
        return f"its name has {len(name)} characters"
    try:
        name.encode()
    except UnicodeEncodeError:
        return "its name is not UTF-8 text"
    if printable(name) != name:
        return "its name has characters that can't be seen"
    if name.startswith("/") or ".." in PurePosixPath(name).parts:
        return "its name leads out of the tar"
    return None
