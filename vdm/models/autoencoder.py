"""Between clips and the latents that are diffused."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float, UInt8
from torch import Tensor

from vdm.types import ClipSize


@dataclass(frozen=True)
class Compression:
    """How much smaller latents are than the clip in time and space.

    The first latent frame stands for the first frame alone, each further one for ``frames`` more frames.

    Args:
        frames: Frames in each latent frame after the first; 1 if every latent frame is one frame.
        pixels: Rows, and columns, of pixels in a latent.
    """

    frames: int = 1
    pixels: int = 1

    def latent_frames(self, num_frames: int, name: str = "num_frames") -> int:
        """Return how many latent frames a clip has.

        Args:
            num_frames: Frames of the clip.
            name: What the user calls their number, for messages.

        Raises:
            ValueError: If a clip of so many frames can't be encoded; the next numbers that can are named.
        """
        if self.frames == 1:
            return num_frames
        whole, rest = divmod(num_frames - 1, self.frames)
        if num_frames < 1 or rest:
            below = max(1, whole * self.frames + 1)
            allowed = f"{self.frames}k + 1 frames: {below} or {below + self.frames}"
            raise ValueError(f"{name}={num_frames}: the autoencoder takes {allowed}")
        return whole + 1

    def latent_size(self, clip: ClipSize) -> tuple[int, int, int]:
        """Return frames, rows and columns of the latents of a clip.

        Raises:
            ValueError: If no clip has so many frames, or its height or width is not a multiple of ``pixels``.
        """
        num_frames = self.latent_frames(clip.num_frames)
        for name, size in (("height", clip.height), ("width", clip.width)):
            if size % self.pixels:
                raise ValueError(f"{name}={size}: the autoencoder needs multiples of {self.pixels}")
        return num_frames, clip.height // self.pixels, clip.width // self.pixels


class Autoencoder(Protocol):
    """A way from clips to latents and back."""

    channels: int
    compression: Compression

    def encode(self, video: UInt8[Tensor, "b c t h w"]) -> Float[Tensor, "b d t2 h2 w2"]:
        """Return the clean latents of RGB clips."""
        ...

    def decode(self, latents: Float[Tensor, "b d t2 h2 w2"]) -> UInt8[Tensor, "b c t h w"]:
        """Return the RGB clips of latents."""
        ...

    def latent_shape(self, clip: ClipSize) -> tuple[int, int, int, int]:
        """Return channels, frames, rows and columns of the latents of a clip.

        Raises:
            ValueError: In one line, if clips of this size can't be encoded.
        """
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


class PixelAutoencoder:
    """Diffusion of the pixels themselves, scaled from 0..255 to -1..1."""

    channels = 3
    compression = Compression()

    def encode(self, video: UInt8[Tensor, "b c t h w"]) -> Float[Tensor, "b c t h w"]:
        """Scale pixels to -1..1."""
        return video.float() / 127.5 - 1

    def image_latents(self, pictures: Picture) -> Picture:
        """Return the pictures themselves."""
        return pictures

    def decode(self, latents: Float[Tensor, "b c t h w"]) -> UInt8[Tensor, "b c t h w"]:
        """Scale to 0..255 and round."""
        return ((latents.clamp(-1, 1) + 1) * 127.5).round().byte()

    def latent_shape(self, clip: ClipSize) -> tuple[int, int, int, int]:
        """Return three channels, and the size itself."""
        return self.channels, *self.compression.latent_size(clip)
