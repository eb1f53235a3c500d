"""Lists of shards and of sets in WebDataset's syntax: ``SETS/{a,b}``, ``A::B``, ``SET/train-{000000..000009}.tar``.

Without PyTorch: commands read the lists before they know that their settings are sound.
"""

import math
import os
import re
from dataclasses import dataclass

from braceexpand import braceexpand

SEPARATOR = "::"
MAX_LOCATIONS = 100_000
"""Paths that a list may expand to."""
_RANGE = re.compile(r"\{(-?\d{1,99})\.\.(-?\d{1,99})(?=[.}])")
_ESCAPED = re.compile(r"\\.")


@dataclass(frozen=True)
class ListedSet:
    """A set of a list."""

    path: str
    """Its folder or URL."""
    shards: frozenset[str] | None = None
    """Names of the shards that the list names; None stands for all."""


def expand(text: str) -> list[str]:
    """Return the paths and URLs that a list stands for, in order.

    ``::`` lies between the parts of a list, and braces expand as in a shell, like those of WebDataset: ``{a,b}``,
    ``{000..099}``, ``{0..90..10}``; a backslash before a brace keeps it. Environment variables are not looked up. A
    local path that exists as it is written is taken as it is.

    Raises:
        ValueError: In one line, if a part is empty or a command (``pipe:``), braces do not match, or there are too many
            paths.
    """
    if "://" not in text and os.path.exists(text):  # noqa: PTH110 (a Path raises for names that are too long)
        return [text]
    parts = text.split(SEPARATOR)
    if sum(map(_count, parts)) > MAX_LOCATIONS:  # braceexpand would make them all at once
        raise ValueError(f"{text}: stands for more than {MAX_LOCATIONS} paths")
    return [path for part in parts for path in _expanded(part, text)]


def _expanded(part: str, text: str) -> list[str]:
    if not part:
        raise ValueError(f"{text}: has an empty part; write A{SEPARATOR}B for two sets")
    if part.startswith("pipe:"):
        raise ValueError(f"{text}: pipe: is a command, which is not run; give folders or URLs of sets of shards")
    if "{" not in part and "}" not in part:  # a backslash is part of such a name
        return [part]
    try:
        return list(braceexpand(part))
    except (ValueError, RecursionError):
        raise ValueError(f"{text}: its braces do not match") from None


def _count(part: str) -> int:
    """Return how many paths a part of a list stands for, or more if it has alternatives within alternatives."""
    count = math.prod(abs(int(last) - int(first)) + 1 for first, last in _RANGE.findall(part))
    open_braces: list[int] = []
    for character in _ESCAPED.sub("", part):
        if character == "{":
            open_braces.append(1)
        elif character == "," and open_braces:
            open_braces[-1] += 1
        elif character == "}" and open_braces:
            count *= open_braces.pop()
    return count


def listed_sets(text: str) -> list[ListedSet]:
    """Return the sets that ``data.path`` lists; tars of one folder are one set of these shards alone.

    Raises:
        ValueError: See ``expand``; also if a set is listed twice.
    """
    found: dict[str, set[str] | None] = {}
    for location in expand(text):
        folder, _, name = location.rpartition("/")
        is_folder = "://" not in location and os.path.isdir(location)  # noqa: PTH112 (as above)
        is_shard = name.endswith(".tar") and not is_folder
        place = (folder or "." if is_shard else location).rstrip("/") or "/"
        shards = found.get(place, set())
        if shards is None or (place in found and not is_shard) or (is_shard and name in shards):
            raise ValueError(f"{text}: lists {location} twice")
        found[place] = shards | {name} if is_shard else None
    return [ListedSet(place, None if names is None else frozenset(names)) for place, names in found.items()]
