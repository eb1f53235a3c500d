"""The last line of a command: what to type next, with this run's own paths."""

import re
import shlex
import sys
from pathlib import Path
from typing import TextIO

from vdm.config.quoting import shell_override

_PLAIN = re.compile(r"[\w./:+-]+")
"""A value that neither Hydra nor a shell gives a meaning."""


def option(key: str, value: str | Path) -> str:
    """Return what to type to give a key a text or a path, in quotes where it needs them."""
    text = str(value)
    return f"{key}={text}" if _PLAIN.fullmatch(text) else shell_override(key, text)


def command(words: str, *arguments: str, **options: str | Path) -> str:
    """Return a command line.

    Args:
        words: Program and command.
        arguments: What comes first as it is: any texts.
        options: Values by their keys; of a dotted key, ``__`` stands for the dot.
    """
    given = [option(key.rstrip("_").replace("__", "."), value) for key, value in options.items()]
    return " ".join([words, *map(shlex.quote, arguments), *given])


def say_next(*commands: str, file: TextIO | None = None) -> None:
    """Print what may be typed next: the likeliest first, each on a line of its own, to be copied."""
    leads = ["Next: ", *["  or: "] * (len(commands) - 1)]
    for lead, line in zip(leads, commands, strict=True):
        print(f"{lead}{line}", file=file or sys.stdout)
