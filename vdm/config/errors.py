"""How a mistake in the configuration is reported."""

import difflib
from collections.abc import Iterable


class ConfigError(ValueError):
    """A mistake in the configuration; its message is one line that names the key, the value and what is allowed."""


def nearest(word: str, allowed: Iterable[str]) -> str:
    """Return the end of a message about a mistyped ``word``: a question about the nearest allowed word, if any."""
    near = difflib.get_close_matches(word, sorted(allowed), n=1)
    return f": did you mean '{near[0]}'?" if near else ""


def did_you_mean(word: str, allowed: Iterable[str]) -> str:
    """Return ``nearest`` and the list of all allowed words."""
    words = sorted(allowed)
    return f"{nearest(word, words) or ':'} (allowed: {', '.join(words) or 'nothing'})"
