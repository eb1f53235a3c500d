"""``vdm COMMAND --help``, optionally with ``all``, a key or a group, and with choices of groups."""

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote, urlparse

from vdm.cli.manual.page import Manual, width
from vdm.cli.manual.tree import Conf
from vdm.config.conf_dir import conf_dir

_CHOICE = re.compile(r"\+{0,2}(?P<key>[A-Za-z_][\w/.@]*)=(?P<value>.*)", re.DOTALL)
_OF_A_RUN = ("sample", "evaluate")
"""Commands whose help shows the facts of a checkpoint."""


def help_text(program: str, command: str, arguments: Sequence[str]) -> tuple[str, int]:
    """Return the help for a command line, and the exit code.

    Args:
        program: ``vdm`` or ``vdm-data``.
        command: The command.
        arguments: All arguments after the command.
    """
    given = {found["key"]: found["value"] for found in map(_CHOICE.fullmatch, arguments) if found}
    topics = [word for word in arguments if not word.startswith("-") and "=" not in word]
    manual = Manual(program, command, conf_of(arguments), given)
    if topics == ["all"]:
        text = manual.everything()
    elif topics:
        return _about(manual, topics)
    else:
        text = manual.short()
    if command in _OF_A_RUN and "checkpoint" in given:
        from vdm.cli.manual.of_checkpoint import of_checkpoint  # imports pydantic

        checkpoint = given["checkpoint"].strip("'\"")
        text += "\n\n" + "\n".join(of_checkpoint(checkpoint, given.get("allow_own_code") == "true", width()))
    return text, 0


def _about(manual: Manual, topics: Sequence[str]) -> tuple[str, int]:
    texts: list[str] = []
    for topic in topics:
        found = manual.about(topic)
        if found is None:
            from vdm.config.errors import nearest  # imports pydantic

            call = f"{manual.program} {manual.command} --help all"
            return f"--help {topic}: no such key or group{nearest(topic, manual.topics())}; {call} shows them", 2
        texts.append(found)
    return "\n\n".join(texts), 0


def conf_of(arguments: Sequence[str]) -> Conf:
    """Return the folders of YAMLs, with the user's own, in the order in which Hydra searches them."""
    return Conf([conf_dir(), *_own_folders(arguments)])


def _own_folders(arguments: Sequence[str]) -> Iterator[Path]:
    words = iter(arguments)
    for word in words:
        name, has_value, value = word.partition("=")
        if name in ("--config-dir", "-cd"):
            yield Path(value if has_value else next(words, ""))
        elif name == "hydra.searchpath":
            for one in value.strip("[]").split(","):
                path = one.strip().strip("'\"")
                if path and not path.startswith("pkg:"):
                    yield Path(unquote(urlparse(path).path) if path.startswith("file:") else path)


def print_help(program: str, command: str, arguments: Sequence[str]) -> int:
    """Print the help of a command; return the exit code."""
    try:
        text, code = help_text(program, command, arguments)
    except (OSError, ValueError) as error:  # in a YAML of the user
        text, code = " ".join(str(error).split()), 2
    print(text, file=sys.stderr if code else sys.stdout)
    return code
