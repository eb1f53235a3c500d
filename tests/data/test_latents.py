import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from data_pipelines.encode.shard_writer import ShardWriter
from tests.data.loading import module, take
from tests.data.shard_sets import color_of, encode_clip
from vdm.data.clips import ClipSampling
from vdm.data.index import ShardIndex, read_index, write_index
from vdm.data.latents import UnusableLatentsError, read_latents
from vdm.data.shards import StoredLatents
from vdm.data.sidecars import read_samples

CLIP, LATENT = (4, 16, 32), (2, 4, 2, 4)
ENCODER = {"name": "some-autoencoder", "checksum": "abc"}


def latents_of(number: int) -> torch.Tensor:
    return torch.full(LATENT, float(number))


@pytest.fixture
def encoded(tmp_path: Path) -> Path:
    """A set of six clips that have latents and no pixels."""
    folder = tmp_path / "encoded"
    folder.mkdir()
    with ShardWriter(folder / "train-000000.tar") as writer:
        for number in range(6):
            metadata = {"caption": f"clip {number}", "label": None, "fps": 8.0}
            latents = save({"latents": latents_of(number).half()})
            writer.add(str(number), CLIP, {"json": json.dumps(metadata).encode(), "latents.safetensors": latents})
    assert writer.entry is not None
    write_index(
        folder, ShardIndex.of({"train": (writer.entry,)}, fps=8.0, latents=StoredLatents(ENCODER, {CLIP: LATENT}))
    )
    return folder


def test_latents_are_read_in_place_of_pixels(encoded: Path) -> None:
    data = module(encoded, stored_latents=True, max_validation_clips=0)
    data.check()
    assert data.latents is not None
    assert data.latents.encoder == ENCODER
    seen: set[str] = set()
    for batch in take(data.train_dataloader(), 4):  # all kept, as the memory of their files is not
        assert batch.video.shape == (3, 3, 0, 16, 32)
        assert batch.latents is not None
        for key, latents in zip(batch.keys, batch.latents, strict=True):
            assert torch.equal(latents, latents_of(int(key)))
        seen |= set(batch.keys)
    assert len(seen) == 6


def test_damaged_latents_keep_their_position_with_weight_zero(encoded: Path) -> None:
    shard = read_index(encoded).splits["train"][0]
    member = read_samples(encoded, shard)[2].members["latents.safetensors"]
    with (encoded / shard.name).open("r+b") as file:
        file.seek(member.offset + member.length - 1)
        file.write(b"X")
    data = module(encoded, stored_latents=True, max_validation_clips=0)
    batches = take(data.train_dataloader(), 2)
    assert sum(float(batch.weights.sum()) for batch in batches) == 5
    for batch in batches:
        assert batch.latents is not None
        assert not batch.latents[batch.weights == 0].any()


def test_a_stored_posterior_is_drawn_from_by_seed_and_position() -> None:
    shape = (4, 8, 16, 16)
    data = save({"latents": torch.full(shape, 2.0), "std": torch.full(shape, 0.5)})
    drawn = read_latents(data, shape, 0, 5)
    standard = (drawn - 2.0) / 0.5
    assert abs(float(standard.mean())) < 4 / drawn.numel() ** 0.5
    assert float(standard.std()) == pytest.approx(1.0, abs=4 / (2 * drawn.numel()) ** 0.5)
    assert torch.equal(read_latents(data, shape, 0, 5), drawn)
    assert not torch.equal(read_latents(data, shape, 0, 6), drawn)
    assert not torch.equal(read_latents(data, shape, 1, 5), drawn)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"nonsense", "can't be read"),
        (save({"other": torch.zeros(LATENT)}), "lack the tensor 'latents'"),
        (save({"latents": torch.zeros(1, 4, 2, 4)}), "have shape .* where the index records"),
        (save({"latents": torch.zeros(LATENT), "std": torch.zeros(1)}), "have shape .* where the index records"),
    ],
)
def test_unusable_latents_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(UnusableLatentsError, match=message):
        read_latents(data, LATENT, 0, 0)


def test_mistakes_about_latents_are_one_line(encoded: Path, shard_set: Path) -> None:
    with pytest.raises(ValueError, match=r"the set has no latents; stored_latents=false trains on its pixels$"):
        module(shard_set, stored_latents=True).check()
    for changes in ({"clips": ClipSampling(mirror_fraction=0.5)}, {"num_images_per_clip": 1}):
        with pytest.raises(ValueError, match=r"^stored_latents=True: latents can't be cut"):
            module(encoded, stored_latents=True, **changes)
    index = read_index(encoded)
    write_index(encoded, ShardIndex(index.splits, latents=StoredLatents(ENCODER, {(1, 2, 3): LATENT})))
    with pytest.raises(ValueError, match="no latents for clips of 4x16x32"):
        module(encoded, stored_latents=True, max_validation_clips=0).check()


def test_the_first_frame_is_read_beside_latents_for_image_conditions(tmp_path: Path) -> None:
    metadata = {"caption": "", "label": None, "fps": 8.0, "scores": {"motion_pixels_per_frame": 16}}
    with ShardWriter(tmp_path / "train-000000.tar") as writer:
        for number in range(3):
            files = {
                "json": json.dumps(metadata).encode(),
                "latents.safetensors": save({"latents": latents_of(number)}),
            }
            writer.add(str(number), CLIP, {**files, "mp4": encode_clip(number, CLIP)})
    assert writer.entry is not None
    write_index(
        tmp_path, ShardIndex.of({"train": (writer.entry,)}, fps=8.0, latents=StoredLatents(ENCODER, {CLIP: LATENT}))
    )

    data = module(tmp_path, stored_latents=True, max_validation_clips=0)
    data.add_image_conditions("first", motion=True)
    (batch,) = take(data.train_dataloader(), 1)
    assert batch.video.shape[1:] == (3, 1, 16, 32)
    assert batch.motion is not None
    for key, pixels, latents, motion in zip(batch.keys, batch.video, batch.latents, batch.motion, strict=True):
        first = torch.tensor(color_of(int(key), 0)).view(3, 1, 1, 1)
        assert (pixels.int() - first).abs().max() <= 3
        assert torch.equal(latents, latents_of(int(key)))
        assert motion == 16 / 256 * 8
