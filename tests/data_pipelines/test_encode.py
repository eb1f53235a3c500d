"""Latents and text embeddings in shards are those of the encoders that a model is configured with."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from einops import rearrange
from safetensors.torch import load

from data_pipelines.clips import ChosenClip, VideoFile, choose
from data_pipelines.settings import ClipSettings
from data_pipelines.verify import VerifySettings, verify
from tests.data_pipelines.conftest import Curate
from tests.models.modelscope.pipelines import autoencoder
from tests.models.pretrained import save_t5
from tests.models.wan import save_autoencoder
from vdm.data.index import read_index
from vdm.data.reading import LATENTS, TEXT
from vdm.data.shards import EMPTY_TEXT_NAME
from vdm.data.sidecars import read_samples
from vdm.data.text_embeddings import read_text
from vdm.models.diffusers_autoencoders import FrameAutoencoder, WanAutoencoder
from vdm.models.text_encoders import PretrainedTextEncoder

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
PLAIN = ("shots=none", "filter=none", "drop_exact_duplicates=false", "precision=float32")


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Overrides that choose a small random AutoencoderKL and T5."""
    folder = tmp_path_factory.mktemp("encoders")
    autoencoder().save_pretrained(folder / "pipeline/vae")
    save_t5(folder / "t5")
    return [
        *("encoder=frames", f"encoder.name_or_path={folder / 'pipeline'}"),
        *("text_encoder=t5", f"text_encoder.name_or_path={folder / 't5'}", "text_encoder.max_tokens=12"),
    ]


@pytest.fixture
def shards(videos: Path, tmp_path: Path, run_curate: Curate, encoders: list[str]) -> Path:
    (videos / "a.txt").write_text("a red dog runs")
    run_curate(f"input={videos}", *PLAIN, *encoders)
    return tmp_path / "shards"


def _samples(shards: Path) -> list[tuple[dict[str, Any], Callable[[str], bytes]]]:
    """Metadata of every sample, and how its other members are read."""
    found = []
    for shard in read_index(shards).shards():
        data = (shards / shard.name).read_bytes()
        for sample in read_samples(shards, shard):

            def member(name: str, data: bytes = data, sample: Any = sample) -> bytes:
                place = sample.members[name]
                return data[place.offset : place.offset + place.length]

            found.append((json.loads(member("json")), member))
    return found


def test_stored_latents_and_text_are_what_the_encoders_make(shards: Path, videos: Path, encoders: list[str]) -> None:
    encoder = FrameAutoencoder(encoders[1].partition("=")[2])
    text_encoder = PretrainedTextEncoder(encoders[3].partition("=")[2], max_tokens=12)
    index = read_index(shards)

    assert index.latents is not None
    assert index.text is not None
    assert encoder.identity().items() <= index.latents.encoder.items()
    assert text_encoder.identity().items() <= index.text.encoder.items()
    assert index.latents.shapes == {(8, 32, 32): (4, 8, 16, 16)}
    for metadata, member in _samples(shards):
        start = metadata["source_start_seconds"]
        settings = ClipSettings(8, 8, 32, 32, 1.0)
        file = VideoFile(videos / metadata["source"], metadata["source"], "", settings)
        (clip,) = choose(file, [ChosenClip("x", start)]).clips()
        expected = encoder.encode(rearrange(torch.from_numpy(clip.video), "t h w c -> 1 c t h w"))[0]
        torch.testing.assert_close(load(member(LATENTS))["latents"], expected)
        tokens, mask, pooled = text_encoder([metadata["caption"]])
        stored = read_text(member(TEXT), index.text.channels)
        torch.testing.assert_close(stored.tokens, tokens[0][mask[0]])
        torch.testing.assert_close(stored.pooled, pooled[0])
    empty = read_text((shards / EMPTY_TEXT_NAME).read_bytes(), index.text.channels)
    torch.testing.assert_close(empty.pooled, text_encoder([""]).pooled[0])
    assert {m["caption"] for m, _ in _samples(shards)} == {"a red dog runs", ""}


def test_damaged_latents_are_found_by_verify(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shard = read_index(shards).splits["train"][0]
    sample = read_samples(shards, shard)[0]
    data = bytearray((shards / shard.name).read_bytes())
    data[sample.members[LATENTS].offset + 200] ^= 1
    (shards / shard.name).write_bytes(data)

    assert verify(VerifySettings(shards, num_workers=0)) == 1
    assert f"{sample.key}.{LATENTS}" in capsys.readouterr().err


def test_changed_caption_is_embedded_anew_and_nothing_is_encoded(
    shards: Path, videos: Path, run_curate: Curate, encoders: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {m["source_start_seconds"]: member("mp4") for m, member in _samples(shards) if m["source"] == "a.mp4"}
    (videos / "a.json").write_text('{"caption": ["the cat jumps", "the dog runs"]}')
    monkeypatch.setattr("data_pipelines.encoded_sources.encode_h264", None)

    outcome = run_curate(f"input={videos}", *PLAIN, *encoders)

    assert "with several captions, of which the first is embedded and the others are left out: " in outcome.out
    text_encoder = PretrainedTextEncoder(encoders[3].partition("=")[2], max_tokens=12)
    changed = [(m, member) for m, member in _samples(shards) if m["source"] == "a.mp4"]
    assert {m["source_start_seconds"]: member("mp4") for m, member in changed} == before
    for metadata, member in changed:
        assert metadata["caption"] == "the cat jumps"
        stored = read_text(member(TEXT), text_encoder.channels)
        torch.testing.assert_close(stored.pooled, text_encoder(["the cat jumps"]).pooled[0])


def test_embeddings_that_a_power_failure_left_empty_are_made_anew(
    shards: Path, videos: Path, run_curate: Curate, encoders: list[str]
) -> None:
    written = [member(TEXT) for _, member in _samples(shards)]
    results = list(shards.with_name("shards.work").rglob("*.safetensors"))
    assert results
    for result in results:
        result.write_bytes(b"")
    run_curate(f"input={videos}", *PLAIN, *encoders, "samples_per_shard=2")  # shards are written anew
    assert [member(TEXT) for _, member in _samples(shards)] == written


def test_model_trains_on_them_by_command_and_another_encoder_is_refused(
    shards: Path, encoders: list[str], tmp_path: Path
) -> None:
    def train(run: str, *overrides: str) -> subprocess.CompletedProcess[str]:
        small = ["model=unet_tiny", "data.global_batch_size=2", "data.micro_batch_size=2", "data.num_workers=0"]
        command = ["train", "data=shards", f"data.path={shards}", *small, *encoders, *overrides]
        ends = ["trainer.max_steps=2", "data.max_validation_clips=0", "logger=csv", f"hydra.run.dir={tmp_path / run}"]
        stored = ["data.stored_latents=true", "data.stored_text=true"]
        return subprocess.run(
            [sys.executable, "-m", "vdm.cli.main", *command, *ends, *stored],
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    done = train("run")
    refused = train("other", "text_encoder.max_tokens=11")

    assert done.returncode == 0, done.stderr
    assert "Trained 2 steps" in done.stdout
    assert refused.returncode == 2
    assert "the text embeddings are of another encoder" in refused.stderr


def test_latents_of_a_causal_autoencoder_have_frames_of_their_own(
    videos: Path, tmp_path: Path, run_curate: Curate
) -> None:
    encoder = ("encoder=wan", f"encoder.name_or_path={save_autoencoder(tmp_path / 'wan')}")
    run_curate(f"input={videos}", *PLAIN, *encoder, "clip.num_frames=5")

    index = read_index(tmp_path / "shards")
    assert index.latents is not None
    assert index.latents.shapes == {(5, 32, 32): (4, 2, 8, 8)}
    assert WanAutoencoder(str(tmp_path / "wan")).identity().items() <= index.latents.encoder.items()
    assert {load(member(LATENTS))["latents"].shape for _, member in _samples(tmp_path / "shards")} == {(4, 2, 8, 8)}
    assert verify(VerifySettings(tmp_path / "shards", num_workers=0)) == 0


def test_clips_that_the_encoder_does_not_take_are_refused_before_the_first_stage(
    videos: Path, tmp_path: Path, run_curate: Curate, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = ("encoder=wan", f"encoder.name_or_path={save_autoencoder(tmp_path / 'wan')}")
    monkeypatch.setattr("data_pipelines.curation.probe", None)
    with pytest.raises(ValueError, match=r"^clip\.num_frames=8: the autoencoder takes 4k \+ 1 frames: 5 or 9$"):
        run_curate(f"input={videos}", *PLAIN, *encoder)
    with pytest.raises(ValueError, match=r"^clip\.width=34: the autoencoder needs multiples of 4$"):
        run_curate(f"input={videos}", *PLAIN, *encoder, "clip.num_frames=5", "clip.width=34")


def test_encoder_that_is_trained_along_is_refused(videos: Path, run_curate: Curate) -> None:
    with pytest.raises(ValueError, match=r"text_encoder: ByteTransformer is no frozen encoder"):
        run_curate(f"input={videos}", *PLAIN, "text_encoder=bytes")
