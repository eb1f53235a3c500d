"""Files that are not finished."""

import os
import socket
from pathlib import Path


def temporary_beside(path: Path) -> Path:
    """Return where to write a file that is to be renamed to ``path``; no other process uses that name."""
    return path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.tmp")
