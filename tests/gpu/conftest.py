from pathlib import Path

import pytest
import torch

from tests.data.shard_sets import write_set


@pytest.fixture(scope="session", autouse=True)
def device(request: pytest.FixtureRequest) -> str:
    """Where tests run: ``cuda``, unless ``--gpu-device=cpu`` is given."""
    chosen: str = request.config.option.gpu_device
    if chosen == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU: torch.cuda.is_available() is false")
    return chosen


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of 11 training and 5 validation clips of 4 frames."""
    return write_set(tmp_path_factory.mktemp("gpu-shards"), {"train": (5, 6), "validation": (5,)})
