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


@cache
def video_diffusion_pytorch() -> ModuleType:
    """Return PyPI's ``video-diffusion-pytorch``.

    It imports torchvision, which it needs for reading GIFs alone and which is not installed: a stand-in is there for as
    long as the import takes.
    """
    sys.path.insert(0, str(FOLDER))
    try:
        with _stand_ins("torchvision", "torchvision.transforms", "torchvision.utils"):
            return import_module("video_diffusion_pytorch")
    except ModuleNotFoundError as error:
        sys.exit(f"{FOLDER}: has no {error.name}; make dev installs what benchmarks compare with")
    finally:
        sys.path.remove(str(FOLDER))


@contextmanager
def _stand_ins(*names: str) -> Iterator[None]:
    sys.modules.update({name: MagicMock() for name in names})
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]
