"""The error for mistakes in a configuration, and parts of its messages."""

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class ConfigError(ValueError):
    """A mistake in the configuration; its message is one line that names the key, the value and what is allowed."""


@contextmanager
def errors_at(key: str, kinds: type[Exception] | tuple[type[Exception], ...] = ValueError) -> Iterator[None]:
    """Report errors in the block as mistakes at a key, in one line: ``KEY: MESSAGE``.

    Args:
        key: Dotted key of the configuration.
        kinds: Classes of errors that are reported so.

    Raises:
        ConfigError: In place of such an error.
    """
    try:
        yield
    except kinds as error:
        raise ConfigError(f"{key}: {' '.join(str(error).split())}") from error


def nearest(word: str, allowed: Iterable[str], parent: str = "") -> str:
    """Return the end of a message about a mistyped word: "did you mean", with the nearest allowed word, if any.

    Args:
        word: The mistyped word.
        allowed: Allowed words.
        parent: Dotted key above the words; the message then names the whole key.
    """
    near = difflib.get_close_matches(word, sorted(allowed), n=1)
    return f": did you mean '{f'{parent}.{near[0]}'.lstrip('.')}'?" if near else ""


def did_you_mean(word: str, allowed: Iterable[str], parent: str = "") -> str:
    """Return ``nearest`` and the list of all allowed words."""
    words = sorted(allowed)
    return f"{nearest(word, words, parent) or ':'} (allowed: {', '.join(words) or 'nothing'})"
