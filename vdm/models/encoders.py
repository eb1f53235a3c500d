"""Between pixels and the latents that are diffused."""

from typing import Protocol, runtime_checkable

from jaxtyping import Float, UInt8
from torch import Tensor


class Autoencoder(Protocol):
    """A way from pixels to latents and back."""

    channels: int

    def encode(self, video: UInt8[Tensor, "b c t h w"]) -> Float[Tensor, "b d t h2 w2"]:
        """Return the clean latents of RGB frames."""
        ...

    def decode(self, latents: Float[Tensor, "b d t h2 w2"]) -> UInt8[Tensor, "b c t h w"]:
        """Return the RGB frames of latents."""
        ...

    def latent_size(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width of the latents of frames of this size."""
        ...


Picture = Float[Tensor, "b 3 h w"]
"""RGB from -1 to 1, or beyond with noise on it."""


@runtime_checkable
class PictureEncoder(Protocol):
    """A way from single pictures, which may have noise on them, to latents that are a condition."""

    def image_latents(self, pictures: Picture) -> Float[Tensor, "b d h2 w2"]:
        """Return the latents of pictures, in the unit in which they are a condition."""
        ...


def to_picture(frames: UInt8[Tensor, "b 3 h w"]) -> Picture:
    """Scale 0..255 to -1..1."""
    return frames.float() / 127.5 - 1


class PixelEncoder:
    """Diffusion of the pixels themselves, scaled from 0..255 to -1..1."""

    channels = 3

    def encode(self, video: UInt8[Tensor, "b c t h w"]) -> Float[Tensor, "b c t h w"]:
        """Scale pixels to -1..1."""
        return video.float() / 127.5 - 1

    def image_latents(self, pictures: Picture) -> Picture:
        """Return the pictures themselves."""
        return pictures

    def decode(self, latents: Float[Tensor, "b c t h w"]) -> UInt8[Tensor, "b c t h w"]:
        """Scale to 0..255 and round."""
        return ((latents.clamp(-1, 1) + 1) * 127.5).round().byte()

    def latent_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the size itself."""
        return height, width
