from collections.abc import Iterator

import pytest

from benchmarks.peers import importable


@pytest.fixture
def peers() -> Iterator[None]:
    """Let cd-fvd and torch-fidelity be imported, which lie in a folder of their own; see the Makefile."""
    parts = ("", ".datasets", ".datasets.video_utils", ".transforms", ".transforms.functional")
    with importable(*(f"torchvision{part}" for part in parts)):
        yield
