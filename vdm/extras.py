"""Optional packages, which extras of this project install."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec


@contextmanager
def needs_extra(extra: str, what: str) -> Iterator[None]:
    """Turn an ``ImportError`` inside the block into one line that says what to install.

    Args:
        extra: The extra that installs the package.
        what: The feature that needs it, for the message.

    Raises:
        ValueError: If an import fails.
    """
    try:
        yield
    except ImportError as error:
        name = error.name or str(error)
        raise _missing(name.partition(".")[0], extra, what) from None


def check_installed(package: str, extra: str, what: str) -> None:
    """Check that a package is installed, without importing it; see ``needs_extra``.

    Raises:
        ValueError: In one line that says what to install, if it is missing.
    """
    if find_spec(package) is None:
        raise _missing(package, extra, what)


def _missing(package: str, extra: str, what: str) -> ValueError:
    return ValueError(f"{what}: the package '{package}' is not installed: pip install '.[{extra}]'")
