"""Frozen components of Stable Video Diffusion: its autoencoder and its image encoder."""

from dataclasses import dataclass
from typing import Annotated, Any, Protocol

import torch
from annotated_types import Interval
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vdm.models.autoencoder import Picture
from vdm.models.clip_vision import ClipVision, read_preprocessing
from vdm.models.diffusers_autoencoders import FrameAutoencoder
from vdm.ranges import Location, Name, NameOrNothing, Positive


class TemporalAutoencoder(FrameAutoencoder):
    """diffusers' ``AutoencoderKLTemporalDecoder``: frames are encoded independently and decoded jointly.

    Latents are the mean of the posterior, scaled to about unit variance. Arguments are those of ``FrameAutoencoder``.
    Here ``chunk_frames`` also limits the temporal context of the decoder.
    """

    @staticmethod
    def load(name_or_path: str, **options: Any) -> nn.Module:
        """Load the autoencoder with diffusers."""
        from diffusers.models.autoencoders.autoencoder_kl_temporal_decoder import AutoencoderKLTemporalDecoder

        return AutoencoderKLTemporalDecoder.from_pretrained(name_or_path, **options)

    def decode_frames(self, latents: Float[Tensor, "t d h w"]) -> Float[Tensor, "t 3 h2 w2"]:
        """Decode adjacent frames of a clip to RGB from -1 to 1; values may be slightly outside."""
        with self.full_precision():
            return self.frozen.decode(latents, num_frames=len(latents)).sample


class ImageEncoder(Protocol):
    """Computes one embedding of width ``channels`` for each picture."""

    channels: int

    def __call__(self, pictures: Picture) -> Float[Tensor, "b e"]:
        """Embed pictures."""
        ...


class ClipImageEncoder(ClipVision):
    """transformers' ``CLIPVisionModelWithProjection``; pictures are resized as in Stable Video Diffusion.

    Args:
        name_or_path: Folder of a pipeline, or its name on the hub.
        subfolder: The encoder's folder in it.
        feature_extractor: Folder in it with the mean and standard deviation that normalize the encoder's pixels.
        variant: Variant of the weights in the file names, e.g. ``fp16``. Computation is in fp32 in any case.
    """

    def __init__(
        self,
        name_or_path: Location,
        subfolder: NameOrNothing = "image_encoder",
        feature_extractor: NameOrNothing = "feature_extractor",
        variant: Name | None = None,
    ) -> None:
        super().__init__("CLIPVisionModelWithProjection", name_or_path, subfolder, variant)
        statistics = read_preprocessing(PixelStatistics, name_or_path, feature_extractor)
        self.set_statistics(statistics.image_mean, statistics.image_std)
        self.name_or_path, self.subfolder, self.feature_extractor = name_or_path, subfolder, feature_extractor
        self.channels: int = self.frozen.config.projection_dim
        self.image_size: int = self.frozen.config.image_size

    @torch.no_grad()
    def forward(self, pictures: Picture) -> Float[Tensor, "b e"]:
        """Embed pictures of any size."""
        with self.full_precision():
            scaled = (resized(pictures, self.image_size) + 1) / 2
            return self.frozen(pixel_values=(scaled - self.mean) / self.std).image_embeds


@dataclass(frozen=True)
class PixelStatistics:
    """The keys read from ``preprocessor_config.json``: mean and standard deviation of RGB pixels from 0 to 1."""

    image_mean: tuple[float, float, float]
    image_std: tuple[Positive, Positive, Positive]


class ThumbnailEncoder:
    """The pixels of a thumbnail as the embedding: needs no weights, for models that are trained from scratch.

    Args:
        size: Height and width of the thumbnail.
    """

    def __init__(self, size: Annotated[int, Interval(ge=1, le=1024)] = 8) -> None:
        if size < 1:
            raise ValueError(f"size must be at least 1, but is {size}")
        self.size = size
        self.channels = 3 * size**2

    def __call__(self, pictures: Picture) -> Float[Tensor, "b e"]:
        """Return the thumbnails' pixels."""
        return F.adaptive_avg_pool2d(pictures, self.size).flatten(1)


def resized(pictures: Picture, size: int) -> Float[Tensor, "b 3 size size"]:
    """Resize pictures to a square with antialiasing, as in the training of the network.

    As in Stability's code and diffusers: a Gaussian blur with standard deviation ``(factor - 1) / 2`` along each axis,
    then bicubic interpolation between the centres of the corner pixels.
    """
    for axis in (2, 3):
        pictures = _blurred(pictures, axis, max((pictures.shape[axis] / size - 1) / 2, 0.001))
    return F.interpolate(pictures, size=(size, size), mode="bicubic", align_corners=True)


def _blurred(pictures: Picture, axis: int, deviation: float) -> Picture:
    """Blur along one axis, with reflection padding."""
    length = int(max(4 * deviation, 3)) // 2 * 2 + 1
    places = torch.arange(length, device=pictures.device) - length // 2
    kernel = torch.exp(-(places**2) / (2 * deviation**2))
    kernel = (kernel / kernel.sum()).to(pictures.dtype)
    margin = (0, 0, length // 2, length // 2) if axis == 2 else (length // 2, length // 2, 0, 0)
    if length // 2 >= pictures.shape[axis]:  # too small for reflection padding
        padded = F.pad(pictures, margin, mode="replicate")
    else:
        padded = F.pad(pictures, margin, mode="reflect")
    shaped = kernel.view(1, 1, -1, 1) if axis == 2 else kernel.view(1, 1, 1, -1)
    return F.conv2d(padded, shaped.expand(pictures.shape[1], 1, -1, -1), groups=pictures.shape[1])
