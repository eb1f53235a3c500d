"""Quoting and escaping of texts for Hydra's grammar, OmegaConf and a shell."""

import re
import shlex
from collections.abc import Mapping
from typing import Any


def hydra_quoted(text: str) -> str:
    """Quote a text for Hydra, which resolves ``${...}`` in quotes too."""
    return "'" + re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), text) + "'"


def shell_word(text: str) -> str:
    """Quote a text as one word of a POSIX shell."""
    if "!" in text:  # interactive shells expand it in double quotes, even after a backslash
        return shlex.quote(text)
    return '"' + re.sub(r'(["$`\\])', r"\\\1", text) + '"'


def shell_override(key: str, value: str) -> str:
    """Return what to type into a shell to give ``key`` the text ``value``."""
    return shell_word(f"{key}={hydra_quoted(value)}")


def shell_list(key: str, values: list[str]) -> str:
    """Return what to type into a shell to give ``key`` a list of texts."""
    return shell_word(f"{key}=[{','.join(map(hydra_quoted, values))}]")


def escaped(node: Any) -> Any:
    """Escape ``${`` in plain values, so that OmegaConf resolves them to themselves."""
    if isinstance(node, Mapping):
        return {name: escaped(value) for name, value in node.items()}
    if isinstance(node, list | tuple):
        return [escaped(value) for value in node]
    # A backslash has a meaning only directly before "${"; there it is doubled.
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", node) if isinstance(node, str) else node
