"""Autoencoder and image encoder as Stable Video Diffusion uses them, against diffusers' pipeline."""

from pathlib import Path

import numpy as np
import pytest
import torch
from einops import rearrange
from PIL import Image
from torch import nn

from tests.models.svd.pipelines import autoencoder, pipeline, save_pipeline
from vdm.models.autoencoder import to_picture
from vdm.models.svd.components import ClipImageEncoder, TemporalAutoencoder, resized
from vdm.randomness import generator
from vdm.types import ClipSize


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pipeline(tmp_path_factory.mktemp("svd"))


def frames(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator(0, "frames", 0))


@pytest.mark.parametrize("size", [(40, 56), (224, 224), (300, 500), (9, 700)], ids=str)
def test_pictures_are_embedded_as_diffusers_does(folder: Path, size: tuple[int, int]) -> None:
    picture = frames(*size, 3)
    expected = pipeline()._encode_image(Image.fromarray(picture.numpy()), "cpu", 1, False)
    encoder = ClipImageEncoder(str(folder))

    embedded = encoder(to_picture(rearrange(picture, "h w c -> 1 c h w")))
    torch.testing.assert_close(embedded, expected[:, 0].detach(), rtol=1e-5, atol=1e-5)
    assert encoder.channels == 16


def test_half_precision_around_them_changes_nothing(folder: Path) -> None:
    video, encoder, autoencoder = (
        frames(1, 3, 2, 16, 24),
        ClipImageEncoder(str(folder)),
        TemporalAutoencoder(str(folder)),
    )
    picture = to_picture(video[:, :, 0])
    embedded, latents = encoder(picture), autoencoder.encode(video)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(encoder(picture), embedded)
        assert torch.equal(autoencoder.encode(video), latents)
        in_half = autoencoder.decode(latents)
    assert torch.equal(in_half, autoencoder.decode(latents))


@pytest.mark.parametrize("size", [(1, 1), (2, 1000)], ids=str)
def test_pictures_smaller_than_the_blur_are_scaled_too(size: tuple[int, int]) -> None:
    grey = torch.full((1, 3, *size), 0.25)
    torch.testing.assert_close(resized(grey, 8), torch.full((1, 3, 8, 8), 0.25))


@pytest.mark.parametrize("chunk_frames", [None, 3, 1])
def test_clips_are_encoded_and_decoded_as_diffusers_does(folder: Path, chunk_frames: int | None) -> None:
    video = frames(2, 3, 4, 16, 24)
    ours, theirs = TemporalAutoencoder(str(folder), chunk_frames=chunk_frames), pipeline()
    with torch.no_grad():
        flat = rearrange(video, "b c t h w -> (b t) c h w").float() / 127.5 - 1
        expected = theirs.vae.encode(flat).latent_dist.mode() * theirs.vae.config.scaling_factor
        latents = ours.encode(video)
        torch.testing.assert_close(rearrange(latents, "b d t h w -> (b t) d h w"), expected, rtol=1e-5, atol=1e-5)

        decoded = ours.decode(latents)
        for clip, of_clip in zip(decoded, latents, strict=True):
            by_frame = rearrange(of_clip, "d t h w -> 1 t d h w")
            frames_there = theirs.decode_latents(by_frame, 4, chunk_frames or 4)
            wanted = theirs.video_processor.postprocess_video(frames_there, output_type="np")[0]
            ours_there = rearrange(clip, "c t h w -> t h w c").numpy() / 255
            assert np.abs(ours_there - wanted).max() <= 0.5 / 255 + 1e-4


def test_what_is_frozen_stays_out_of_checkpoints(folder: Path) -> None:
    module = nn.ModuleDict({"encoder": TemporalAutoencoder(str(folder)), "trained": nn.Linear(1, 1)}).train()

    assert list(module.state_dict()) == ["trained.weight", "trained.bias"]
    module.load_state_dict(nn.ModuleDict({"trained": nn.Linear(1, 1)}).state_dict())
    assert not any(parameter.requires_grad for parameter in module["encoder"].parameters())
    assert not module["encoder"].frozen.training


def test_sizes_that_the_autoencoder_can_not_halve_are_named(folder: Path) -> None:
    encoder = TemporalAutoencoder(str(folder))
    assert encoder.latent_shape(ClipSize(3, 16, 24)) == (4, 3, 8, 12)
    with pytest.raises(ValueError, match=r"^width=25: the autoencoder needs multiples of 2$"):
        encoder.latent_shape(ClipSize(3, 16, 25))
    with pytest.raises(ValueError, match=r"^chunk_frames must be at least 1, or null for all frames, but is 0$"):
        TemporalAutoencoder(str(folder), chunk_frames=0)


def test_a_folder_without_the_component_is_named_in_one_line(tmp_path: Path) -> None:
    for component, name in ((TemporalAutoencoder, "vae"), (ClipImageEncoder, "image_encoder")):
        with pytest.raises(ValueError, match=f"^name_or_path: can't load {tmp_path}/{name}: ") as error:
            component(str(tmp_path))
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["/nowhere", "./nowhere", "a/b/c", "~/weights"])
def test_a_path_without_a_folder_is_not_asked_of_the_hub(name: str) -> None:
    with pytest.raises(ValueError, match=f"^name_or_path: {name}: no such folder, nor a name on the hub, which"):
        TemporalAutoencoder(name)


def test_a_truncated_autoencoder_is_named_in_one_line(tmp_path: Path) -> None:
    autoencoder().save_pretrained(tmp_path / "vae")
    weights = tmp_path / "vae" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match=f"^name_or_path: can't load {tmp_path}/vae: ") as error:
        TemporalAutoencoder(str(tmp_path))
    assert "\n" not in str(error.value)
