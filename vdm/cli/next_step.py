"""The last line of a command: the next command to type, with this run's own paths."""

import re
import shlex
import sys
from pathlib import Path
from typing import TextIO

from vdm.config.quoting import shell_override

_PLAIN = re.compile(r"[\w./:+-]+")
"""A value without characters that are special to Hydra or a shell."""


def option(key: str, value: str | Path) -> str:
    """Return ``KEY=VALUE`` for a text or path, quoted if necessary."""
    text = str(value)
    return f"{key}={text}" if _PLAIN.fullmatch(text) else shell_override(key, text)


def command(words: str, *arguments: str, **options: str | Path) -> str:
    """Return a command line.

    Args:
        words: Program and command.
        arguments: Arguments that come first; quoted for the shell only.
        options: Values by key; ``__`` stands for the dot of a dotted key, and a final ``_`` is removed (``from_``).
    """
    given = [option(key.rstrip("_").replace("__", "."), value) for key, value in options.items()]
    return " ".join([words, *map(shlex.quote, arguments), *given])


def say_next(*commands: str, file: TextIO | None = None) -> None:
    """Print commands to type next, the likeliest first, each on a line of its own."""
    leads = ["Next: ", *["  or: "] * (len(commands) - 1)]
    for lead, line in zip(leads, commands, strict=True):
        print(f"{lead}{line}", file=file or sys.stdout)
