"""Training on, and sampling of, the latents of a causal autoencoder that compresses time."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from einops import rearrange
from omegaconf import OmegaConf

from data_pipelines.encode.frozen import describe, encode_clip, latent_shape
from data_pipelines.encode.shard_writer import ShardWriter
from tests.cli.calling import composed, frames_of
from tests.data import shard_sets
from tests.data_pipelines.videos import write_video
from tests.models.wan import save_autoencoder
from tests.training.runs import SGD, configuration, train
from vdm.cli import sample
from vdm.config import ConfigError, build
from vdm.data.decoding import decode_clip
from vdm.data.index import ShardIndex, read_index, write_index
from vdm.data.shards import Kind, StoredLatents
from vdm.models.diffusers_autoencoders import WanAutoencoder
from vdm.objectives.batch_randomness import HeldOutRandomness
from vdm.objectives.latents import latents_of
from vdm.training.training_run import build_training

SHAPE = (5, 16, 32)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_autoencoder(tmp_path_factory.mktemp("wan"))


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory, pipeline: Path) -> Path:
    """A set of clips with pixels, and latents as ``vdm-data`` makes them."""
    folder = tmp_path_factory.mktemp("encoded")
    node = json.dumps({"_target_": "vdm.models.diffusers_autoencoders.WanAutoencoder", "name_or_path": str(pipeline)})
    splits = {}
    for split, count in (("train", 6), ("validation", 3)):
        with ShardWriter(folder / f"{split}-000000.tar", durable=False) as writer:
            for number in range(count):
                mp4 = shard_sets.encode_clip(number, SHAPE)
                pixels = rearrange(decode_clip(mp4, SHAPE), "c t h w -> t h w c").numpy()
                members = {"mp4": mp4, "json": json.dumps({"caption": f"clip {number}", "fps": 8.0}).encode()}
                latents = encode_clip(node, pixels, "float32")
                writer.add(f"{split}-{number}", SHAPE, {**members, "latents.safetensors": latents})
        splits[split] = (writer.entry,)
    stored = StoredLatents(describe(node, "encoder"), {SHAPE: latent_shape(node, SHAPE)})
    write_index(folder, ShardIndex.of(splits, fps=8.0, latents=stored))
    return folder


def config_of(path: Path, pipeline: Path, *overrides: str) -> dict[str, Any]:
    encoder = ("encoder=wan", f"encoder.name_or_path={pipeline}", "diffusion.clip_denoised=null")
    without = ("model.network", "text_encoder") if "model=dit_tiny" in overrides else ()
    return configuration(path, *encoder, "training.condition_dropout.all=0.4", *overrides, without=without)


def test_training_on_stored_latents_equals_training_on_pixels(
    encoded: Path, pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = ("model.conditioner.image=true", "validate.every_steps=3", "trainer.max_steps=3", *SGD)
    plain = train(tmp_path / "plain", config_of(encoded, pipeline, *image))

    def refuse(*args: object) -> None:
        raise AssertionError("something is encoded though it is stored")

    monkeypatch.setattr(WanAutoencoder, "encode", refuse)
    stored = train(tmp_path / "stored", config_of(encoded, pipeline, *image, "data.stored_latents=true"))
    batch = next(iter(stored.data.val_dataloader()))
    assert batch.latents is not None
    assert batch.latents.shape[1:] == (4, 2, 4, 8)
    for name in ("train/loss", "val/loss"):
        assert stored.module.scalars[name] == pytest.approx(plain.module.scalars[name], rel=1e-4)
    for name, weight in plain.module.state_dict().items():
        torch.testing.assert_close(stored.module.state_dict()[name], weight, rtol=1e-4, atol=1e-6)


def test_independent_images_are_latent_frames_beside_those_of_the_clip(
    encoded: Path, pipeline: Path, tmp_path: Path
) -> None:
    run = train(tmp_path, config_of(encoded, pipeline, "data.num_images_per_clip=2", "trainer.max_steps=1"))
    batch = next(iter(run.data.train_dataloader()))
    assert batch.images is not None
    model = run.module.model
    x0 = latents_of(model, batch, HeldOutRandomness(batch.keys)).x0

    assert x0.shape == (4, 4, 2 + 2, 4, 8)
    torch.testing.assert_close(x0[:, :, :2], model.encoder.encode(batch.video))
    for k in range(2):
        image = model.encoder.encode(batch.images.pixels[:, :, k : k + 1])
        torch.testing.assert_close(x0[:, :, 2 + k : 3 + k], image)


@pytest.mark.parametrize(
    ("shape", "stored", "message"),
    [
        (SHAPE, (4, 5, 4, 8), "latents of 5x16x32 have shape (4, 5, 4, 8) where the encoder's have (4, 2, 4, 8)"),
        ((4, 16, 32), (4, 1, 4, 8), "latents of 4x16x32: num_frames=4: the autoencoder takes 4k + 1 frames: 1 or 5"),
    ],
)
def test_stored_latents_of_another_shape_are_refused_in_one_line(
    encoded: Path,
    pipeline: Path,
    tmp_path: Path,
    shape: tuple[int, int, int],
    stored: tuple[int, int, int, int],
    message: str,
) -> None:
    path = tmp_path / "set"
    path.mkdir()
    for file in encoded.iterdir():
        (path / file.name).write_bytes(file.read_bytes())
    index = read_index(path)
    assert index.latents is not None
    latents = StoredLatents(index.latents.encoder, {**index.latents.shapes, shape: stored})
    write_index(path, ShardIndex(index.splits, fps=8.0, latents=latents))
    with pytest.raises(ConfigError, match=f"^{re.escape(f'data.path={path}: {message}')}$"):
        build_training(config_of(path, pipeline, "data.stored_latents=true"), tmp_path)


def test_clips_that_the_autoencoder_does_not_take_are_refused_before_training(pipeline: Path, tmp_path: Path) -> None:
    shards = shard_sets.write_set(tmp_path / "set", {"train": (4,), "validation": (1,)})
    message = f"data.path={shards}: clips are 4x16x32; num_frames=4: the autoencoder takes 4k + 1 frames: 1 or 5"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        build_training(config_of(shards, pipeline), tmp_path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, encoded: Path, pipeline: Path) -> Path:
    """A run of one step on stored latents, which shows samples."""
    run = tmp_path_factory.mktemp("trained") / "run"
    sampling = "{_target_: vdm.training.callbacks.samples.SampleVideos, every_steps: 1, num_videos: 2, seed: 0}"
    chosen = ("model.conditioner.image=true", "trainer.max_steps=1", "data.stored_latents=true")
    train(run, config_of(encoded, pipeline, *chosen, f"callbacks.samples={sampling}"))
    return run


def test_sample_videos_of_training_have_as_many_frames_as_its_clips(trained: Path) -> None:
    (grid,) = trained.glob("samples/*/grid.mp4")
    assert len(frames_of(grid)) == 5


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of 6 frames of one colour each."""
    path = tmp_path_factory.mktemp("film") / "film.mkv"
    return write_video(path, [np.full((16, 32, 3), 40 * n, dtype=np.uint8) for n in range(6)], fps=8)


def sampled(trained: Path, folder: Path, *overrides: str) -> np.ndarray:
    options = [f"checkpoint={trained}", f"output={folder}", "sampler.num_steps=2", "prompts=[a dog]", *overrides]
    sample.run(composed("sample", *options))
    return frames_of(folder / "0000-a-dog.mp4")


@pytest.mark.parametrize(
    ("overrides", "num_frames"),
    [
        ("", 5),
        ("num_frames=13", 13),
        ("num_frames=13 block_frames=9", 13),
        ("task=extend input_frames=5", 9),
        ("task=extend", 5),
    ],
)
def test_videos_are_made_in_blocks_of_clips(
    trained: Path, film: Path, tmp_path: Path, overrides: str, num_frames: int
) -> None:
    given = [f"input={film}", "method=replacement"] if "task" in overrides else []
    video = sampled(trained, tmp_path, *overrides.split(), *given)

    assert video.shape == (num_frames, 16, 32, 3)
    if given:
        number = 5 if "input_frames" in overrides else 1  # else what a block of 5 knows of another one
        assert [float(frame.mean()) for frame in video[:number]] == pytest.approx(
            [40, 80, 120, 160, 200][-number:], abs=3
        )


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("num_frames=8", "num_frames=8: the autoencoder takes 4k + 1 frames: 5 or 9"),
        ("height=18", "height=18: the autoencoder needs multiples of 4"),
        ("num_frames=13 block_frames=6", "block_frames=6: the autoencoder takes 4k + 1 frames: 5 or 9"),
        ("num_frames=13 overlap=2", "overlap=2: the autoencoder takes 4k + 1 frames: 1 or 5"),
        ("task=extend FILM input_frames=6", "input_frames=6: the autoencoder takes 4k + 1 frames: 5 or 9"),
        ("task=interpolate FILM", "task=interpolate: a latent frame of the model stands for 4 frames"),
        ("task=superres FILM", "task=superres: the model must diffuse pixels"),
    ],
)
def test_wishes_that_do_not_fit_latent_frames_are_one_line(
    trained: Path, film: Path, tmp_path: Path, overrides: str, message: str
) -> None:
    options = overrides.replace("FILM", f"input={film}").split()
    with pytest.raises(ValueError, match=f"^{re.escape(message)}") as refused:
        sampled(trained, tmp_path, *options)
    assert "\n" not in str(refused.value)


def test_recipe_for_footage_of_any_shape_has_shapes_that_the_models_take() -> None:
    config = composed("train", "experiment=wan_shapes", "data.path=x", "model.pretrained=x")
    patch = 8 * config["model"]["network"]["patch_size"]
    clips = build(OmegaConf.to_container(config.data.clips), "data.clips")
    for frames, height, width in clips.shapes:
        assert frames % 4 == 1
        assert height % patch == width % patch == 0
    for footage, shape in {
        (480, 854): (480, 832),
        (1080, 1920): (720, 1248),
        (854, 480): (832, 480),
        (1280, 720): (1248, 720),
        (576, 768): (544, 736),
        (1080, 1440): (816, 1104),
        (768, 576): (736, 544),
        (700, 700): (640, 640),
        (2000, 2000): (960, 960),
    }.items():
        assert clips.shape_of(Kind((150, *footage), 25.0)) == (81, *shape)
        assert clips.shape_of(Kind((81, *footage), 25.0)) is None, "too short at 16 frames a second"


TINY = (
    "text_encoder=none",
    "model=dit_tiny",
    "model.network.num_layers=2",
    "model.network.num_heads=2",
    "model.network.head_channels=12",
    "model.network.hidden_channels=32",
    "diffusion=rectified_flow",
    "sampler=euler",
)


def told_in_channels(frames: str, **of_frames: int) -> tuple[str, ...]:
    node = {"_target_": f"vdm.known_frames.{frames}", **of_frames}
    target = "vdm.models.known_frames_conditioner.KnownFramesConditioner"
    conditioner = {"_target_": target, "num_classes": 0, "class_channels": 8, "frames": node}
    shown = json.dumps(conditioner).replace('"', "")
    return (*TINY, "~model.conditioner", f"+model.conditioner={shown}")


@pytest.mark.parametrize("known", [("FirstFrames", {}), ("EveryKthFrame", {"every": 2})], ids=str)
def test_known_frames_are_told_beside_stored_latents_as_beside_pixels(
    known: tuple[str, dict[str, int]], encoded: Path, pipeline: Path, tmp_path: Path
) -> None:
    frames, options = known
    wishes = (*told_in_channels(frames, **options), "trainer.max_steps=2", "validate.every_steps=2", *SGD)
    plain = train(tmp_path / "plain", config_of(encoded, pipeline, *wishes))
    stored = train(tmp_path / "stored", config_of(encoded, pipeline, *wishes, "data.stored_latents=true"))

    batch = next(iter(stored.data.val_dataloader()))
    assert batch.latents is not None
    assert batch.video.shape[2] == (1 if frames == "FirstFrames" else SHAPE[0])
    assert batch.motion is None
    for name in ("train/loss", "val/loss"):
        assert stored.module.scalars[name] == pytest.approx(plain.module.scalars[name], rel=1e-4)


@pytest.mark.parametrize(
    "wishes",
    [
        told_in_channels("FirstFrames"),
        (*TINY, "diffusion/frame_levels=known_frames"),
        (*TINY, "diffusion/frame_levels=known_frames", "known_frames@diffusion.frame_levels.frames=last"),
    ],
    ids=["in channels", "first in its place", "last in its place"],
)
def test_training_with_known_frames_lowers_the_held_out_loss(
    wishes: tuple[str, ...], encoded: Path, pipeline: Path, tmp_path: Path
) -> None:
    def loss(steps: int) -> float:
        lengths = (f"trainer.max_steps={steps}", f"validate.every_steps={steps}", "data.stored_latents=true")
        learning = ("optimizer.lr=3e-3", "lr_schedule.warmup_steps=1")
        run = train(tmp_path / str(steps), config_of(encoded, pipeline, *wishes, *lengths, *learning))
        return float(run.module.scalars["val/loss"])

    assert loss(40) < 0.9 * loss(1)


def test_a_network_without_such_channels_is_refused(encoded: Path, pipeline: Path, tmp_path: Path) -> None:
    conditioner = told_in_channels("FirstFrames")[-2:]
    config = config_of(encoded, pipeline, *conditioner)
    with pytest.raises(
        ConfigError, match=r"^model\.network: SpaceTimeUNet has no image_channels, in which known frames"
    ):
        build_training(config, tmp_path)
