"""Wan's autoencoder as diffusers' pipelines use it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.models.wan import autoencoder, save_autoencoder
from vdm.models.autoencoder import Compression
from vdm.models.diffusers_autoencoders import WanAutoencoder
from vdm.randomness import generator
from vdm.training.planning.structure import pretrained_by_configuration
from vdm.types import ClipSize


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_autoencoder(tmp_path_factory.mktemp("wan"))


@pytest.fixture(scope="module")
def encoder(folder: Path) -> WanAutoencoder:
    return WanAutoencoder(str(folder))


@pytest.fixture(scope="module")
def video() -> Tensor:
    return torch.randint(0, 256, (2, 3, 9, 8, 16), dtype=torch.uint8, generator=generator(0, "frames", 0))


@torch.no_grad()
def test_clips_are_encoded_and_decoded_as_diffusers_pipelines_do(encoder: WanAutoencoder, video: Tensor) -> None:
    """``latents_mean`` and the inverse of ``latents_std``, as in ``WanImageToVideoPipeline`` and ``WanPipeline``."""
    theirs = autoencoder()
    mean = torch.tensor(theirs.config.latents_mean).view(1, 4, 1, 1, 1)
    inverse_std = 1.0 / torch.tensor(theirs.config.latents_std).view(1, 4, 1, 1, 1)
    expected = (theirs.encode(video / 127.5 - 1).latent_dist.mode() - mean) * inverse_std
    latents = encoder.encode(video)
    torch.testing.assert_close(latents, expected, rtol=1e-4, atol=1e-4)
    assert latents.shape == (2, *encoder.latent_shape(ClipSize(9, 8, 16))) == (2, 4, 3, 2, 4)

    pixels = theirs.decode(latents / inverse_std + mean).sample
    decoded = encoder.decode(latents)
    assert decoded.shape == video.shape
    assert (decoded - (pixels + 1) * 127.5).abs().max() < 0.51


def test_no_latent_frame_depends_on_later_frames(encoder: WanAutoencoder, video: Tensor) -> None:
    latents = encoder.encode(video)

    torch.testing.assert_close(encoder.encode(video[:, :, :1]), latents[:, :, :1])
    torch.testing.assert_close(encoder.encode(video[:, :, :5]), latents[:, :, :2])


def test_latents_from_the_middle_of_a_clip_are_no_beginning_of_another(encoder: WanAutoencoder, video: Tensor) -> None:
    assert (encoder.encode(video[:, :, 4:])[:, :, 0] - encoder.encode(video)[:, :, 1]).abs().max() > 0.01


def test_patches_and_residual_levels_of_wan_2_2_count_in_the_compression(tmp_path: Path, video: Tensor) -> None:
    options = {"patch_size": 2, "in_channels": 12, "out_channels": 12, "is_residual": True, "scale_factor_spatial": 8}
    encoder = WanAutoencoder(str(save_autoencoder(tmp_path, **options)))

    assert encoder.compression == Compression(frames=4, pixels=8)
    assert encoder.encode(video).shape[1:] == encoder.latent_shape(ClipSize(9, 8, 16)) == (4, 3, 1, 2)
    assert encoder.decode(encoder.encode(video)).shape == video.shape


@pytest.mark.parametrize(
    ("name", "channels", "pixels"),
    [("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", 16, 8), ("Wan-AI/Wan2.2-TI2V-5B-Diffusers", 48, 16)],
)
def test_published_kinds_have_their_published_compression(name: str, channels: int, pixels: int) -> None:
    with torch.device("meta"), pretrained_by_configuration():
        encoder = WanAutoencoder(name)

    assert (encoder.channels, encoder.compression) == (channels, Compression(frames=4, pixels=pixels))
    assert encoder.frozen.config.scale_factor_spatial == pixels
    assert encoder.frozen.config.scale_factor_temporal == 4


def test_frames_that_diffusers_would_leave_out_are_refused(encoder: WanAutoencoder, video: Tensor) -> None:
    with pytest.raises(ValueError, match=r"^num_frames=8: the autoencoder takes 4k \+ 1 frames: 5 or 9$"):
        encoder.encode(video[:, :, :8])
    with pytest.raises(ValueError, match=r"^height=6: the autoencoder needs multiples of 4$"):
        encoder.encode(video[:, :, :, :6])


def test_identity_tells_normalizations_and_weights_apart(tmp_path: Path, encoder: WanAutoencoder) -> None:
    other = WanAutoencoder(str(save_autoencoder(tmp_path, latents_std=[0.5, 1.0, 2.0, 0.5]))).identity()
    own = encoder.identity()

    assert {key for key in own if own[key] != other[key]} == {"normalization"}
    with torch.no_grad():
        changed = WanAutoencoder(encoder.name_or_path)
        changed.frozen.quant_conv.bias += 1
    assert {key for key, value in changed.identity().items() if value != own[key]} == {"weights"}
    assert json.loads(json.dumps(own)) == own


def test_half_precision_around_it_changes_nothing(encoder: WanAutoencoder, video: Tensor) -> None:
    latents = encoder.encode(video)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(encoder.encode(video), latents)
        in_half = encoder.decode(latents)
    assert torch.equal(in_half, encoder.decode(latents))


def test_weights_and_normalization_stay_out_of_checkpoints(encoder: WanAutoencoder) -> None:
    assert encoder.state_dict() == {}
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"latents_mean": [0.0] * 3}, "name_or_path: latents_mean of FOLDER must be 4 numbers"),
        ({"latents_std": [1.0, 1.0, 0.0, 1.0]}, "name_or_path: latents_std of FOLDER must be 4 numbers above 0"),
        (
            {"temperal_downsample": [True, False]},
            "name_or_path: temperal_downsample=[True, False]: 2 frames a latent frame",
        ),
        ({"z_dim": 10**9}, "name_or_path: can't load FOLDER/vae: "),
        ({"dim_mult": [1] * 100}, "name_or_path: can't load FOLDER/vae: "),
    ],
)
def test_unfit_configurations_are_refused_in_one_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    file = save_autoencoder(tmp_path, **(changes if "temperal_downsample" in changes else {})) / "vae/config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    with pytest.raises(ValueError, match=f"^{re.escape(message.replace('FOLDER', str(tmp_path)))}") as refused:
        WanAutoencoder(str(tmp_path))
    assert "\n" not in str(refused.value)
