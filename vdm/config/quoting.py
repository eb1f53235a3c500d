"""Texts as Hydra's grammar, OmegaConf's and a shell take them, whatever is in them."""

import re
import shlex
from collections.abc import Mapping
from typing import Any


def hydra_quoted(text: str) -> str:
    """Return what Hydra reads as ``text``; it resolves ``${...}`` in quotes too."""
    return "'" + re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), text) + "'"


def shell_word(text: str) -> str:
    """Return what a POSIX shell reads as the one word ``text``."""
    if "!" in text:  # which interactive shells expand in double quotes, with a backslash before it too
        return shlex.quote(text)
    return '"' + re.sub(r'(["$`\\])', r"\\\1", text) + '"'


def shell_override(key: str, value: str) -> str:
    """Return what to type into a shell to give ``key`` the text ``value``."""
    return shell_word(f"{key}={hydra_quoted(value)}")


def shell_list(key: str, values: list[str]) -> str:
    """Return what to type into a shell to give ``key`` a list of texts."""
    return shell_word(f"{key}=[{','.join(map(hydra_quoted, values))}]")


def escaped(node: Any) -> Any:
    """Return plain values as OmegaConf resolves them to what they are: ``${`` in them means nothing."""
    if isinstance(node, Mapping):
        return {name: escaped(value) for name, value in node.items()}
    if isinstance(node, list | tuple):
        return [escaped(value) for value in node]
    # A backslash has a meaning directly before "${" alone, and there it is doubled.
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", node) if isinstance(node, str) else node
