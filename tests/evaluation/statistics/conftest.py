import sys
from unittest.mock import MagicMock

import pytest


@pytest.fixture
def torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let peers import torchvision, which is not installed: their statistics do not use it."""
    for name in ("", ".datasets", ".datasets.video_utils", ".transforms", ".transforms.functional"):
        monkeypatch.setitem(sys.modules, f"torchvision{name}", MagicMock())
