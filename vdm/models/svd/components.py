"""The parts of Stable Video Diffusion that are used as they are: its autoencoder and its image encoder."""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from vdm.models.frozen import Frozen

Picture = Float[Tensor, "b 3 h w"]
"""RGB from -1 to 1."""


class TemporalAutoencoder(Frozen):
    """diffusers' ``AutoencoderKLTemporalDecoder``: each frame is encoded by itself, clips are decoded.

    Latents are the mean of the posterior, scaled to about unit variance.

    Args:
        name_or_path: Folder of a pipeline, or its name on the hub.
        subfolder: The autoencoder's folder in it; the empty text where ``name_or_path`` is that folder.
        variant: As in the files' names, e.g. ``fp16``; what is computed is fp32 all the same.
        chunk_frames: Frames that are encoded or decoded at once; fewer take less memory, but the decoder sees less far
            in time. None for all frames of a clip.
    """

    def __init__(
        self,
        name_or_path: str,
        subfolder: str = "vae",
        variant: str | None = None,
        chunk_frames: int | None = 8,
    ) -> None:
        if chunk_frames is not None and chunk_frames < 1:
            raise ValueError(f"chunk_frames must be at least 1, or null for all frames, but is {chunk_frames}")

        def load() -> nn.Module:
            from diffusers.models.autoencoders.autoencoder_kl_temporal_decoder import AutoencoderKLTemporalDecoder

            # Without accelerate, diffusers can't begin on the meta device, and would warn of it.
            return AutoencoderKLTemporalDecoder.from_pretrained(
                name_or_path,
                subfolder=subfolder or None,
                variant=variant,
                use_safetensors=True,
                torch_dtype=torch.float32,
                low_cpu_mem_usage=False,
            )

        super().__init__(_loaded(load, name_or_path, subfolder))
        self.name_or_path, self.subfolder, self.chunk_frames = name_or_path, subfolder, chunk_frames
        self.channels: int = self.frozen.config.latent_channels
        self.scaling_factor: float = self.frozen.config.scaling_factor
        self.pixels_per_latent = 2 ** (len(self.frozen.config.block_out_channels) - 1)

    def identity(self) -> dict[str, Any]:
        """Return what the latents depend on; see ``Frozen``."""
        return {**super().identity(), "scaling_factor": self.scaling_factor}

    @torch.no_grad()
    def encode(self, video: UInt8[Tensor, "b c t h w"]) -> Float[Tensor, "b d t h2 w2"]:
        """Return the scaled latents of RGB frames."""
        frames = rearrange(video, "b c t h w -> (b t) c h w")
        latents = [self.image_latents(to_picture(part)) for part in frames.split(self.chunk_frames or len(frames))]
        return rearrange(self.scaling_factor * torch.cat(latents), "(b t) d h w -> b d t h w", b=len(video))

    @torch.no_grad()
    def image_latents(self, pictures: Picture) -> Float[Tensor, "b d h2 w2"]:
        """Return the latents of pictures, not scaled, as the network is given them for its condition."""
        return self.frozen.encode(pictures).latent_dist.mode()

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, "b d t h2 w2"]) -> UInt8[Tensor, "b c t h w"]:
        """Return the RGB frames of scaled latents, a chunk of frames of one clip at a time."""
        clips = []
        for clip in latents / self.scaling_factor:
            frames = rearrange(clip, "d t h w -> t d h w")
            parts = frames.split(self.chunk_frames or len(frames))
            decoded = torch.cat([self.frozen.decode(part, num_frames=len(part)).sample for part in parts])
            clips.append(rearrange(((decoded.clamp(-1, 1) + 1) * 127.5).round().byte(), "t c h w -> c t h w"))
        return torch.stack(clips)

    def latent_size(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width of the latents of frames of this size.

        Raises:
            ValueError: If they are no multiples of the pixels in a latent.
        """
        for name, size in (("height", height), ("width", width)):
            if size % self.pixels_per_latent:
                raise ValueError(f"{name}={size}: the autoencoder needs multiples of {self.pixels_per_latent}")
        return height // self.pixels_per_latent, width // self.pixels_per_latent


class ImageEncoder(Protocol):
    """Turns pictures into one embedding each, of width ``channels``."""

    channels: int

    def __call__(self, pictures: Picture) -> Float[Tensor, "b e"]:
        """Embed pictures."""
        ...


class ClipImageEncoder(Frozen):
    """transformers' ``CLIPVisionModelWithProjection``, to which pictures are scaled as Stable Video Diffusion does.

    Args:
        name_or_path: Folder of a pipeline, or its name on the hub.
        subfolder: The encoder's folder in it.
        feature_extractor: Folder in it with the mean and deviation of pixels that the encoder was trained with.
        variant: As in the files' names, e.g. ``fp16``; what is computed is fp32 all the same.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        name_or_path: str,
        subfolder: str = "image_encoder",
        feature_extractor: str = "feature_extractor",
        variant: str | None = None,
    ) -> None:
        def load() -> nn.Module:
            from transformers import CLIPVisionModelWithProjection

            return CLIPVisionModelWithProjection.from_pretrained(
                name_or_path, subfolder=subfolder, variant=variant, use_safetensors=True, dtype=torch.float32
            )

        def load_statistics() -> dict[str, Any]:
            from transformers import CLIPImageProcessor

            return CLIPImageProcessor.get_image_processor_dict(name_or_path, subfolder=feature_extractor)[0]

        super().__init__(_loaded(load, name_or_path, subfolder))
        statistics = _loaded(load_statistics, name_or_path, feature_extractor)
        self.name_or_path, self.subfolder, self.feature_extractor = name_or_path, subfolder, feature_extractor
        self.channels: int = self.frozen.config.projection_dim
        self.image_size: int = self.frozen.config.image_size
        for name in ("mean", "std"):
            values = torch.tensor(statistics[f"image_{name}"])
            self.register_buffer(name, rearrange(values, "c -> c 1 1"), persistent=False)

    @torch.no_grad()
    def forward(self, pictures: Picture) -> Float[Tensor, "b e"]:
        """Embed pictures of any size."""
        scaled = (resized(pictures, self.image_size) + 1) / 2
        return self.frozen(pixel_values=(scaled - self.mean) / self.std).image_embeds


def to_picture(frames: UInt8[Tensor, "b 3 h w"]) -> Picture:
    """Scale 0..255 to -1..1."""
    return frames.float() / 127.5 - 1


def resized(pictures: Picture, size: int) -> Float[Tensor, "b 3 size size"]:
    """Scale pictures to a square, blurred before as far as they shrink: what the network was trained with.

    Stability's code and diffusers' do it so: a Gaussian blur of deviation ``(factor - 1) / 2`` in each direction, then
    bicubic interpolation between the centres of the corner pixels.
    """
    for axis in (2, 3):
        pictures = _blurred(pictures, axis, max((pictures.shape[axis] / size - 1) / 2, 0.001))
    return F.interpolate(pictures, size=(size, size), mode="bicubic", align_corners=True)


def _blurred(pictures: Picture, axis: int, deviation: float) -> Picture:
    """Blur along one axis; edges are mirrored."""
    length = int(max(4 * deviation, 3)) // 2 * 2 + 1
    places = torch.arange(length, device=pictures.device) - length // 2
    kernel = torch.exp(-(places**2) / (2 * deviation**2))
    kernel = (kernel / kernel.sum()).to(pictures.dtype)
    margin = (0, 0, length // 2, length // 2) if axis == 2 else (length // 2, length // 2, 0, 0)
    if length // 2 >= pictures.shape[axis]:  # nothing to mirror: less than the blur reaches
        padded = F.pad(pictures, margin, mode="replicate")
    else:
        padded = F.pad(pictures, margin, mode="reflect")
    shaped = kernel.view(1, 1, -1, 1) if axis == 2 else kernel.view(1, 1, 1, -1)
    return F.conv2d(padded, shaped.expand(pictures.shape[1], 1, -1, -1), groups=pictures.shape[1])


def _loaded(load: Callable[[], Any], name_or_path: str, subfolder: str) -> Any:
    """Load a component; what libraries stumble over becomes one line."""
    place = f"{name_or_path}/{subfolder}".rstrip("/")
    try:
        return load()
    except ImportError:
        raise ValueError(f"{place}: needs diffusers and transformers; install the extra 'pretrained'") from None
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ValueError(f"name_or_path: can't load {place}: {str(error).strip().splitlines()[0]}") from None
