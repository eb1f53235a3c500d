"""The folder of the YAMLs: package data of an installed wheel, or ``conf/`` of the checkout."""

from pathlib import Path


def conf_dir() -> Path:
    """Return the absolute path of the folder that holds ``train.yaml`` and the configuration groups."""
    package = Path(__file__).resolve().parents[1]
    in_wheel = package / "conf"
    return in_wheel if in_wheel.is_dir() else package.parent / "conf"
