"""The folder that a set is written to: what is in it already must be of the same making."""

import fcntl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vdm.files import write_json
from vdm.outside import read_json

SETTINGS_NAME = "build.json"
"""Records what the set is built with, from the first moment on."""


_UNRECORDED: Mapping[str, Any] = {"hdr": "map"}
"""What sets are built with that earlier versions have made, which did not record it."""


def claim_output(output: Path, command: str, wanted: Mapping[str, Any]) -> None:
    """Make the output folder, or check that what is in it was begun with the same settings.

    Args:
        output: The folder.
        command: What makes the set, for messages.
        wanted: Settings by the names that the user knows.

    Raises:
        ValueError: In one line, if the folder can't be made or holds something else.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"output={output}: can't be made a folder: {error.strerror}") from None
    if all(path.name.startswith(".") for path in output.iterdir()):
        write_json(output / SETTINGS_NAME, dict(wanted), indent=1)
        return
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
