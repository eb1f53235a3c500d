import sys
from pathlib import Path
from unittest.mock import MagicMock

import pytest


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let cd-fvd and torch-fidelity be imported, which lie in a folder of their own; see the Makefile.

    They import torchvision, which is not installed; what is compared does not use it.
    """
    monkeypatch.setattr(sys, "path", [*sys.path, str(Path(sys.prefix) / "peers")])
    for name in ("", ".datasets", ".datasets.video_utils", ".transforms", ".transforms.functional"):
        monkeypatch.setitem(sys.modules, f"torchvision{name}", MagicMock())
