"""How a mistake in the configuration is reported."""

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
        kinds: Which errors.

    Raises:
        ConfigError: In the place of such an error.
    """
    try:
        yield
    except kinds as error:
        raise ConfigError(f"{key}: {' '.join(str(error).split())}") from error


def nearest(word: str, allowed: Iterable[str], parent: str = "") -> str:
    """Return the end of a message about a mistyped ``word``: a question about the nearest allowed word, if any.

    Args:
        word: What was typed.
        allowed: Words that may stand there.
        parent: The dotted key below which they stand, so that the whole key is given.
    """
    near = difflib.get_close_matches(word, sorted(allowed), n=1)
    return f": did you mean '{f'{parent}.{near[0]}'.lstrip('.')}'?" if near else ""


def did_you_mean(word: str, allowed: Iterable[str], parent: str = "") -> str:
    """Return ``nearest`` and the list of all allowed words."""
    words = sorted(allowed)
    return f"{nearest(word, words, parent) or ':'} (allowed: {', '.join(words) or 'nothing'})"
