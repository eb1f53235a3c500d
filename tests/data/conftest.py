from collections.abc import Callable
from pathlib import Path

import pytest

from tests.data.shard_sets import SHAPE, TRAIN_COUNTS, VALIDATION_COUNTS, write_set
from vdm.data.shards import Shape


@pytest.fixture(scope="session")
def shard_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of 23 training and 7 validation clips, not to be changed."""
    return write_set(tmp_path_factory.mktemp("shards"), {"train": TRAIN_COUNTS, "validation": VALIDATION_COUNTS})


@pytest.fixture
def make_shard_set(tmp_path: Path) -> Callable[..., Path]:
    """Makes a set that a test may damage: ``make_shard_set(train=(5, 3), validation=(2,))``."""

    def make(shapes: tuple[Shape, ...] = (SHAPE,), **counts: tuple[int, ...]) -> Path:
        folder = tmp_path / "shards"
        folder.mkdir()
        return write_set(folder, counts, shapes)

    return make
