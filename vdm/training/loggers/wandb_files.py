"""What a run's folder holds of Weights & Biases: its id there, and offline files.

A killed process loses what it had not written yet. A ``.wandb`` file is a log in LevelDB's format
(https://github.com/google/leveldb/blob/main/doc/log_format.md): after 7 bytes of its own, blocks of 32 KiB with
fragments of records, each a ``wandb_internal.Record``.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from vdm.files import write_file
from vdm.outside import read_text

IDENTITY_NAME = "wandb_id"
"""File in the run's folder with its id."""
STEP = "trainer/global_step"
"""Name under which W&B has the number of optimizer steps."""
_MAX_IDENTITY_BYTES = 1000
_HEADER_BYTES, _BLOCK_BYTES = 7, 1 << 15
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
_TAIL_BLOCKS = 64
"""Blocks at the end of a file in which its last step is looked for."""


class Identity(NamedTuple):
    """What a run's folder keeps of its W&B run."""

    name: str = ""
    """Id of the W&B run; "" for none."""
    ahead: int = 0
    """How far W&B's step is ahead of the optimizer's."""
    settings: str = ""
    """Checksum of the settings on which the figures depend; "" if an earlier version wrote the file."""


def read_identity(run: Path) -> Identity:
    """Return what a run's folder keeps of its W&B run.

    Raises:
        ValueError: If the file is damaged.
    """
    file = run / IDENTITY_NAME
    words = read_text(file, _MAX_IDENTITY_BYTES).split() if file.exists() else []
    if len(words) > 1 and not words[1].isdecimal():
        raise ValueError(f"{file}: '{words[1]}' is no number of steps")
    name, ahead, settings, *_ = [*words, *("", "0", "")[len(words) :]]
    return Identity(name, int(ahead), settings)


def write_identity(run: Path, identity: Identity) -> None:
    """Keep it; what ``read_identity`` returns."""
    write_file(run / IDENTITY_NAME, f"{identity.name} {identity.ahead} {identity.settings}".rstrip())


def last_step(run: Path, identity: str) -> int:
    """Return the last step that the offline files of a W&B run hold; -1 if they hold none.

    Args:
        run: Folder of the run, in which W&B has a folder ``wandb``.
        identity: Id of the W&B run.
    """
    files = sorted((run / "wandb").glob(f"*run-*-{identity}/run-{identity}.wandb"))
    return max((step for file in files for step in _steps(file)), default=-1)


def _steps(file: Path) -> Iterator[int]:
    from google.protobuf.message import DecodeError
    from wandb.proto.wandb_internal_pb2 import Record  # pyright: ignore[reportAttributeAccessIssue]

    for content in _records(file):
        record = Record()
        try:
            record.ParseFromString(content)
        except DecodeError:
            continue
        if record.WhichOneof("record_type") == "history":
            yield int(record.history.step.num)


def _records(file: Path) -> Iterator[bytes]:
    """Yield the records at the end of a file; what a killed process began is left out."""
    with file.open("rb") as opened:
        opened.seek(0, 2)
        first = max(0, opened.tell() // _BLOCK_BYTES - _TAIL_BLOCKS)
        opened.seek(first * _BLOCK_BYTES)
        content = opened.read()
    position = _HEADER_BYTES if first == 0 else 0
    begun: bytes | None = None
    while position + _HEADER_BYTES <= len(content):
        if _BLOCK_BYTES - position % _BLOCK_BYTES < _HEADER_BYTES:  # padding
            position += _BLOCK_BYTES - position % _BLOCK_BYTES
            continue
        _, length, kind = struct.unpack_from("<IHB", content, position)
        position += _HEADER_BYTES
        fragment, position = content[position : position + length], position + length
        if kind not in (_FULL, _FIRST, _MIDDLE, _LAST) or len(fragment) < length:
            return
        begun = fragment if kind in (_FULL, _FIRST) else None if begun is None else begun + fragment
        if kind in (_FULL, _LAST) and begun is not None:
            yield begun
