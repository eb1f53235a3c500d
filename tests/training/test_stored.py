"""Training on what was encoded beforehand, against training that encodes as it goes."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from data_pipelines.encode.shard_writer import ShardWriter
from tests.data.shard_sets import SHAPE, encode_clip
from tests.models.pretrained import save_t5
from tests.models.svd.pipelines import autoencoder
from tests.training.runs import SGD, configuration, train
from vdm.config import ConfigError
from vdm.data.decoding import decode_clip
from vdm.data.index import ShardIndex, read_index, write_index
from vdm.data.shards import EMPTY_TEXT_NAME, StoredLatents, StoredText, checksum
from vdm.data.text_embeddings import TextEmbedding, write_text
from vdm.models.svd.components import TemporalAutoencoder
from vdm.models.text_encoders import PretrainedTextEncoder
from vdm.training.training_run import build_training

CAPTIONS = ("a red dog runs", "a cat", "", "the dog jumps over the fence", "the cat runs", "a fence")


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("encoders")
    autoencoder().save_pretrained(root / "vae")
    return {"vae": root / "vae", "t5": save_t5(root / "t5")}


def embedding(encoder: PretrainedTextEncoder, caption: str) -> TextEmbedding:
    encoded = encoder([caption])
    return TextEmbedding(encoded.tokens[0][encoded.mask[0]], encoded.pooled[0])


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory, encoders: dict[str, Path]) -> Path:
    """A set of clips with pixels, latents and text embeddings."""
    folder = tmp_path_factory.mktemp("encoded")
    vae, text_encoder = TemporalAutoencoder(str(encoders["vae"]), ""), PretrainedTextEncoder(str(encoders["t5"]))
    splits = {}
    for split in ("train", "validation"):
        with ShardWriter(folder / f"{split}-000000.tar", durable=False) as writer:
            for number, caption in enumerate(CAPTIONS):
                mp4 = encode_clip(number)
                latents = vae.encode(decode_clip(mp4, SHAPE)[None])[0]
                members = {
                    "mp4": mp4,
                    "json": json.dumps({"caption": caption, "label": None, "fps": 8.0}).encode(),
                    "latents.safetensors": save({"latents": latents.contiguous()}),
                    "text.safetensors": write_text(embedding(text_encoder, caption)),
                }
                writer.add(f"{split}-{number}", SHAPE, members)
        splits[split] = (writer.entry,)
    empty = write_text(embedding(text_encoder, ""))
    (folder / EMPTY_TEXT_NAME).write_bytes(empty)
    stored_latents = StoredLatents({**vae.identity(), "name": "some vae"}, {SHAPE: tuple(latents.shape)})
    stored_text = StoredText(text_encoder.identity(), text_encoder.channels, checksum(empty))
    write_index(folder, ShardIndex.of(splits, fps=8.0, latents=stored_latents, text=stored_text))
    return folder


LATENT_ENCODER = ("encoder=svd", "encoder.name_or_path=VAE", "+encoder.subfolder=''")
TEXT_ENCODER = ("text_encoder=t5", "text_encoder.name_or_path=T5", "text_encoder.max_tokens=77")
STORED = ("data.stored_latents=true", "data.stored_text=true")


def config_of(path: Path, encoders: dict[str, Path], *overrides: str) -> dict[str, Any]:
    """Return a configuration in which conditions are often dropped."""
    placed = [one.replace("VAE", str(encoders["vae"])).replace("T5", str(encoders["t5"])) for one in overrides]
    return configuration(
        path, "training.condition_dropout.all=0.4", "validate.every_steps=4", *SGD, *placed, without=("text_encoder.",)
    )


def test_training_on_stored_latents_and_text_equals_training_that_encodes(
    encoded: Path, encoders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = train(tmp_path / "plain", config_of(encoded, encoders, *LATENT_ENCODER, *TEXT_ENCODER))

    def refuse(*args: object) -> None:
        raise AssertionError("something is encoded though it is stored")

    monkeypatch.setattr(TemporalAutoencoder, "encode", refuse)
    monkeypatch.setattr(PretrainedTextEncoder, "forward", refuse)
    stored = train(tmp_path / "stored", config_of(encoded, encoders, *LATENT_ENCODER, *TEXT_ENCODER, *STORED))
    assert stored.data.position == plain.data.position == 16
    for name, weight in plain.module.state_dict().items():
        torch.testing.assert_close(stored.module.state_dict()[name], weight, rtol=1e-4, atol=1e-6)
    assert stored.module.scalars["val/loss"] == pytest.approx(plain.module.scalars["val/loss"], rel=1e-4)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ("vae", "encoder: data.path=SET: the latents are of another encoder, some vae: weights"),
        ("t5", "text_encoder: data.path=SET: the text embeddings are of another encoder, T5EncoderModel: weights"),
        ("pixels", "encoder: data.path=SET: the latents are of some vae; encoder is PixelAutoencoder, which made none"),
        ("no text", "text_encoder: data.path=SET: the text embeddings are of T5EncoderModel; text_encoder is none"),
        ("shape", "data.path=SET: latents of 4x16x32 have shape (4, 4, 8, 8) where the encoder's have (4, 4, 8, 16)"),
        ("empty", f"data.path: SET/{EMPTY_TEXT_NAME}: no such file, though the index speaks of it"),
        ("damaged", f"data.path: SET/{EMPTY_TEXT_NAME}: its checksum is not the one in the index"),
    ],
)
def test_what_other_encoders_made_is_refused_in_one_line(
    changed: str, message: str, encoded: Path, encoders: dict[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / "set"
    path.mkdir()
    for file in encoded.iterdir():
        (path / file.name).write_bytes(file.read_bytes())
    index = read_index(path)
    assert index.latents is not None
    assert index.text is not None
    latents, text, overrides = index.latents, index.text, (*LATENT_ENCODER, *TEXT_ENCODER, *STORED)
    if changed == "vae":
        latents = StoredLatents({**latents.encoder, "weights": "0"}, latents.shapes)
    elif changed == "t5":
        text = StoredText({**text.encoder, "weights": "0"}, text.channels, text.empty_checksum)
    elif changed == "pixels":
        overrides = (*TEXT_ENCODER, *STORED)
    elif changed == "no text":
        overrides = (*LATENT_ENCODER, "text_encoder=none", *STORED)
    elif changed == "shape":
        latents = StoredLatents(latents.encoder, {SHAPE: (4, 4, 8, 8)})
    elif changed == "empty":
        (path / EMPTY_TEXT_NAME).unlink()
    elif changed == "damaged":
        (path / EMPTY_TEXT_NAME).write_bytes(b"something else")
    write_index(path, ShardIndex(index.splits, fps=8.0, latents=latents, text=text))
    config = config_of(path, encoders, *overrides)
    with pytest.raises(ConfigError, match=f"^{re.escape(message.replace('SET', str(path)))}") as refused:
        build_training(config, tmp_path)
    assert "\n" not in str(refused.value)


def test_sample_videos_begin_with_decoded_first_frames_where_pixels_are_not_read(
    encoded: Path, encoders: dict[str, Path], tmp_path: Path
) -> None:
    sampling = "{_target_: vdm.training.callbacks.samples.SampleVideos, every_steps: 1, num_videos: 2, seed: 0}"
    config = config_of(
        encoded,
        encoders,
        *(*LATENT_ENCODER, *TEXT_ENCODER, *STORED),
        f"callbacks.samples={sampling}",
        "model.conditioner.image=true",
        "trainer.max_steps=1",
    )
    train(tmp_path, config)
    assert list(tmp_path.glob("samples/*/grid.mp4"))
