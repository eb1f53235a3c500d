"""Packages that not everybody needs."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec


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
        raise _missing(name.partition(".")[0], extra, what) from None


def check_installed(package: str, extra: str, what: str) -> None:
    """Find out, without importing it, whether a package is there.

    Raises:
        ValueError: In one line that says what to install, if it is not.
    """
    if find_spec(package) is None:
        raise _missing(package, extra, what)


def _missing(package: str, extra: str, what: str) -> ValueError:
    return ValueError(f"{what}: the package '{package}' is not installed: pip install '.[{extra}]'")
