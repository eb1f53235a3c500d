"""Packages that not everybody needs."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def needs_extra(extra: str, what: str) -> Iterator[None]:
    """Say in one line what to install, where an import inside the block fails.

    Raises:
        ValueError: If it does.
    """
    try:
        yield
    except ImportError as error:
        name = error.name or str(error)
        raise ValueError(
            f"{what}: the package '{name.partition('.')[0]}' is not installed: pip install '.[{extra}]'"
        ) from None
