"""The log on the terminal: records of this project and of the user's own code, but not those of libraries.

Users can't act on a library's retries and deprecations; if these lead to a failure, this project reports it. A run's
log file has all records.
"""

import logging
import sysconfig
import warnings
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from vdm.text import PrintableFormatter

OWN_PACKAGES = ("vdm", "data_pipelines")

_OWN = Path(__file__).parent
_LIBRARIES = tuple(Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
_INSTALLED = ("site-packages", "dist-packages")
_LEVELS = {
    "TORCH_CPP_LOG_LEVEL": "ERROR",  # for PyTorch's C++ code
    "TRANSFORMERS_VERBOSITY": "error",
    "DIFFUSERS_VERBOSITY": "error",
    "HF_HUB_VERBOSITY": "error",
}
"""Log levels of libraries that write to the terminal by themselves; they read these variables when imported."""
_WARNINGS = logging.getLogger("py.warnings")


class NotOfLibraries(logging.Filter):
    """Lets through the records of this project and of code that is not installed, such as the user's own."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether a record is for the terminal."""
        if record.name.partition(".")[0] in OWN_PACKAGES:
            return True
        return record.name != _WARNINGS.name and not _is_of_library(record.pathname)


def _is_of_library(file: str) -> bool:
    path = Path(file)
    return any(map(path.is_relative_to, _LIBRARIES)) or not set(_INSTALLED).isdisjoint(path.parts)


def quieten_libraries(variables: MutableMapping[str, str]) -> None:
    """Restrict libraries that write to the terminal by themselves to errors, unless the user wants more."""
    for name, level in _LEVELS.items():
        variables.setdefault(name, level)


@contextmanager
def library_warnings_logged() -> Iterator[None]:
    """Log the warnings of libraries instead of printing them, also those that name a line of this project."""
    before = warnings.showwarning

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if file is None and (_is_of_library(filename) or Path(filename).is_relative_to(_OWN)):
            _WARNINGS.warning("%s:%d: %s: %s", filename, lineno, category.__name__, message)
        else:
            before(message, category, filename, lineno, file, line)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = before


def log_to_terminal() -> None:
    """Set up logging in a process without a logging configuration, such as a loader's worker."""
    handler = logging.StreamHandler()
    handler.addFilter(NotOfLibraries())
    handler.setFormatter(PrintableFormatter("%(levelname)s %(name)s: %(message)s"))
    logging.getLogger().addHandler(handler)
