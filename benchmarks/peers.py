"""Other projects that benchmarks compare with, from the folder where ``make dev`` installs them."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from unittest.mock import MagicMock

FOLDER = Path(sys.prefix) / "peers"


@contextmanager
def importable(*stand_ins: str) -> Iterator[None]:
    """Let the projects be imported, with stand-ins for modules that they import and that what is compared does not use.

    Args:
        stand_ins: Names of those modules, such as torchvision, which is not installed.
    """
    sys.path.append(str(FOLDER))
    sys.modules.update({name: MagicMock() for name in stand_ins})
    try:
        yield
    finally:
        sys.path.remove(str(FOLDER))
        for name in stand_ins:
            del sys.modules[name]


@cache
def video_diffusion_pytorch() -> ModuleType:
    """Return PyPI's ``video-diffusion-pytorch``."""
    try:
        with importable("torchvision", "torchvision.transforms", "torchvision.utils"):
            return import_module("video_diffusion_pytorch")
    except ModuleNotFoundError as error:
        sys.exit(f"{FOLDER}: has no {error.name}; make dev installs what benchmarks compare with")
