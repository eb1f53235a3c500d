"""How a mistake in the configuration is reported."""

import difflib
from collections.abc import Iterable


class ConfigError(ValueError):
    """A mistake in the configuration; its message is one line that names the key, the value and what is allowed."""


def nearest(word: str, allowed: Iterable[str]) -> str:
    """Return a question about the word most like a mistyped one, empty where none is."""
    near = difflib.get_close_matches(word, sorted(allowed), n=1)
    return f"did you mean '{near[0]}'?" if near else ""


def did_you_mean(word: str, allowed: Iterable[str]) -> str:
    """Return the end of a message about a mistyped ``word``: the nearest allowed word, and all of them."""
    words = sorted(allowed)
    return ": " + f"{nearest(word, words)} (allowed: {', '.join(words) or 'nothing'})".lstrip()
