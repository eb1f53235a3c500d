from pathlib import Path

import pytest
from sklearn.datasets import load_digits

from data_pipelines import moving_digits
from data_pipelines.build import build as build_shards
from data_pipelines.settings import BuildSettings, ClipOptions, MovingDigitsOptions
from tests.data.shard_sets import write_set


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of 11 training and 5 validation clips of 4 frames."""
    return write_set(tmp_path_factory.mktemp("training-shards"), {"train": (5, 6), "validation": (5,)})


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of 59 training and 5 validation clips of moving digits, 2 frames of 16x16 pixels each."""
    folder = tmp_path_factory.mktemp("digits")
    pictures, labels = load_digits(return_X_y=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(moving_digits, "load_digits", lambda return_X_y: (pictures[:64], labels[:64]))
        build_shards(
            BuildSettings(
                input="moving_digits",
                output=folder,
                clip=ClipOptions(num_frames=2, height=16, width=16),
                num_workers=0,
                moving_digits=MovingDigitsOptions(clips_per_handwriting=1),
            )
        )
    return folder
