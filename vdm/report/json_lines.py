"""Reading of files with one JSON object a line, to which training may be writing, or may have been killed writing."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vdm.outside import parse_object
from vdm.regular_files import open_regular

MAX_LINES = 1_000_000
MAX_LINE_BYTES = 1 << 20


def read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects in a file, none if it does not exist; lines that can't be read are passed over.

    Raises:
        ValueError: In one line, if the file can't be opened.
    """
    try:
        file = open_regular(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise ValueError(f"{path}: can't be read: {error.strerror}") from None
    with file:
        for _, raw in zip(range(MAX_LINES), iter(lambda: file.readline(MAX_LINE_BYTES), b""), strict=False):
            try:
                yield parse_object(raw.decode(), path)
            except ValueError:  # the last line of a killed run, or of one that is writing it
                continue
