import re

import pytest
import torch

from vdm.models.autoencoder import Compression, PixelAutoencoder
from vdm.types import ClipSize


def test_every_pixel_value_survives_the_round_trip() -> None:
    values = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 1, 16, 16).expand(2, 3, 4, -1, -1)
    latents = PixelAutoencoder().encode(values)

    assert (latents.min().item(), latents.max().item()) == (-1.0, 1.0)
    assert torch.equal(PixelAutoencoder().decode(latents), values)


def test_latents_outside_the_range_become_black_or_white() -> None:
    latents = torch.tensor([-9.0, 9.0]).reshape(1, 1, 1, 1, 2).expand(1, 3, 1, 1, 2)

    assert PixelAutoencoder().decode(latents)[0, 0, 0, 0].tolist() == [0, 255]


def test_latents_have_the_size_of_the_frames() -> None:
    assert PixelAutoencoder().latent_shape(ClipSize(7, 48, 64)) == (3, 7, 48, 64)


@pytest.mark.parametrize(
    ("clip", "latents"), [((1, 32, 16), (1, 2, 1)), ((5, 16, 16), (2, 1, 1)), ((81, 480, 832), (21, 30, 52))]
)
def test_first_latent_frame_is_one_frame_and_each_further_one_four(
    clip: tuple[int, int, int], latents: tuple[int, int, int]
) -> None:
    assert Compression(frames=4, pixels=16).latent_size(ClipSize(*clip)) == latents


@pytest.mark.parametrize("pixels", [8, 16, 32])
@pytest.mark.parametrize(
    ("num_frames", "message"),
    [
        (0, "num_frames=0: the autoencoder takes 4k + 1 frames: 1 or 5"),
        (4, "num_frames=4: the autoencoder takes 4k + 1 frames: 1 or 5"),
        (16, "num_frames=16: the autoencoder takes 4k + 1 frames: 13 or 17"),
    ],
)
def test_clips_that_can_not_be_compressed_are_refused_with_their_neighbours(
    pixels: int, num_frames: int, message: str
) -> None:
    compression = Compression(4, pixels)
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        compression.latent_size(ClipSize(num_frames, 64, 64))
    with pytest.raises(ValueError, match=f"^height=68: the autoencoder needs multiples of {pixels}$"):
        compression.latent_size(ClipSize(5, 68, 64))
    with pytest.raises(ValueError, match=f"^width=68: the autoencoder needs multiples of {pixels}$"):
        compression.latent_size(ClipSize(5, 64, 68))
