"""Interface of an autoencoder, and the one that leaves pixels as they are."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from vdm.types import ClipSize


@dataclass(frozen=True)
class Compression:
    """Compression of an autoencoder in time and space.

    The first latent frame encodes the first frame alone, each further one ``frames`` more frames.

    Args:
        frames: Frames in each latent frame after the first; 1 if every latent frame is one frame.
        pixels: Height, and width, in pixels of one latent.
    """

    frames: int = 1
    pixels: int = 1

    def latent_frames(self, num_frames: int, name: str = "num_frames") -> int:
        """Return the number of latent frames of a clip.

        Args:
            num_frames: Number of frames of the clip.
            name: Name of the option that sets this number, for messages.

        Raises:
            ValueError: If a clip with this number of frames can't be encoded. The message names the nearest numbers
                that can.
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
            ValueError: If the number of frames can't be encoded, or height or width is not a multiple of ``pixels``.
        """
        num_frames = self.latent_frames(clip.num_frames)
        for name, size in (("height", clip.height), ("width", clip.width)):
            if size % self.pixels:
                raise ValueError(f"{name}={size}: the autoencoder needs multiples of {self.pixels}")
        return num_frames, clip.height // self.pixels, clip.width // self.pixels


class Autoencoder(Protocol):
    """Encodes clips to latents, and decodes latents to clips."""

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
            ValueError: One line, if clips of this size can't be encoded.
        """
        ...


Picture = Float[Tensor, "b 3 h w"]
"""RGB images with values from -1 to 1, or outside if noise was added."""


@runtime_checkable
class PictureEncoder(Protocol):
    """Encodes single pictures, possibly noisy ones, to the latents that an image condition consists of."""

    def image_latents(self, pictures: Picture) -> Float[Tensor, "b d h2 w2"]:
        """Return the latents of pictures, scaled as the network takes them as a condition."""
        ...


@runtime_checkable
class KnownFramesEncoder(Protocol):
    """Encodes clips of which only some frames are known."""

    def encode_known(
        self, video: UInt8[Tensor, "b 3 t h w"], is_known: Bool[Tensor, "b t"]
    ) -> Float[Tensor, "b d t2 h2 w2"]:
        """Return the latents of RGB clips whose unknown frames are replaced by grey: 0, between -1 and 1.

        Raises:
            ValueError: As in ``Autoencoder.latent_shape``.
        """
        ...


def known_or_grey(video: UInt8[Tensor, "b 3 t h w"], is_known: Bool[Tensor, "b t"]) -> Float[Tensor, "b 3 t h w"]:
    """Scale the known frames from 0..255 to -1..1; other frames are 0."""
    return torch.where(is_known[:, None, :, None, None], to_picture(video), 0)


def to_picture(frames: UInt8[Tensor, "b 3 *t_h_w"]) -> Float[Tensor, "b 3 *t_h_w"]:
    """Scale 0..255 to -1..1."""
    return frames.float() / 127.5 - 1


class PixelAutoencoder:
    """The identity: pixels are the latents, scaled from 0..255 to -1..1."""

    channels = 3
    compression = Compression()

    def encode(self, video: UInt8[Tensor, "b c t h w"]) -> Float[Tensor, "b c t h w"]:
        """Scale pixels to -1..1."""
        return video.float() / 127.5 - 1

    def image_latents(self, pictures: Picture) -> Picture:
        """Return the pictures themselves."""
        return pictures

    def encode_known(
        self, video: UInt8[Tensor, "b 3 t h w"], is_known: Bool[Tensor, "b t"]
    ) -> Float[Tensor, "b 3 t h w"]:
        """Scale known frames to -1..1; other frames are 0."""
        return known_or_grey(video, is_known)

    def decode(self, latents: Float[Tensor, "b c t h w"]) -> UInt8[Tensor, "b c t h w"]:
        """Scale to 0..255 and round."""
        return ((latents.clamp(-1, 1) + 1) * 127.5).round().byte()

    def latent_shape(self, clip: ClipSize) -> tuple[int, int, int, int]:
        """Return three channels, and frames, height and width of the clip."""
        return self.channels, *self.compression.latent_size(clip)
