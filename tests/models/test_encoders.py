import torch

from vdm.models.encoders import PixelEncoder


def test_every_pixel_value_survives_the_round_trip() -> None:
    values = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 1, 16, 16).expand(2, 3, 4, -1, -1)
    latents = PixelEncoder().encode(values)

    assert (latents.min().item(), latents.max().item()) == (-1.0, 1.0)
    assert torch.equal(PixelEncoder().decode(latents), values)


def test_latents_outside_the_range_become_black_or_white() -> None:
    latents = torch.tensor([-9.0, 9.0]).reshape(1, 1, 1, 1, 2).expand(1, 3, 1, 1, 2)

    assert PixelEncoder().decode(latents)[0, 0, 0, 0].tolist() == [0, 255]


def test_latents_have_the_size_of_the_frames() -> None:
    assert PixelEncoder().latent_size(48, 64) == (48, 64)
