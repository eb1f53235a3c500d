"""A table of figures in the run's folder."""

from lightning.pytorch.loggers import CSVLogger, Logger

from vdm.ranges import Folder


def csv(run: Folder) -> Logger:
    """Return a logger that writes ``logs/version_0/metrics.csv``; each resume adds a version."""
    return CSVLogger(save_dir=run, name="logs")
