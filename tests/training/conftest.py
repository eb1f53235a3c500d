from pathlib import Path

import pytest

from tests.data.shard_sets import write_set


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of 11 training and 5 validation clips of 4 frames."""
    return write_set(tmp_path_factory.mktemp("training-shards"), {"train": (5, 6), "validation": (5,)})
