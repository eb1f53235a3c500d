"""Progress bars on stderr."""

import sys

from tqdm import tqdm


def progress_bar(total: int, description: str, unit: str) -> tqdm:
    """Return a progress bar that updates ten times a second in a terminal, and every ten seconds in a log file."""
    interval = 0.1 if sys.stderr.isatty() else 10.0
    return tqdm(total=total, desc=description, unit=unit, mininterval=interval, disable=total == 0)
