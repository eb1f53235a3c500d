"""Autoencoders of diffusers: one for single frames, one for clips."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn

from vdm.models.autoencoder import Compression, Picture, PixelAutoencoder, known_or_grey, to_picture
from vdm.models.frozen import Frozen, loaded, tensors_checksum
from vdm.models.wan_autoencoder_file import load_autoencoder
from vdm.ranges import Location, Name, NameOrNothing, Size
from vdm.types import ClipSize


class FrameAutoencoder(Frozen):
    """diffusers' ``AutoencoderKL``, which encodes and decodes each frame on its own.

    Latents are the mean of the posterior, scaled to about unit variance.

    Args:
        name_or_path: Folder of a pipeline, or its name on the hub.
        subfolder: The autoencoder's folder in it. Empty if ``name_or_path`` itself is that folder.
        variant: Variant of the weights in the file names, e.g. ``fp16``. Computation is in fp32 in any case.
        chunk_frames: Number of frames encoded or decoded at once. Fewer need less memory; None means all frames.
    """

    def __init__(
        self,
        name_or_path: Location,
        subfolder: NameOrNothing = "vae",
        variant: Name | None = None,
        chunk_frames: Size | None = 8,
    ) -> None:
        if chunk_frames is not None and chunk_frames < 1:
            raise ValueError(f"chunk_frames must be at least 1, or null for all frames, but is {chunk_frames}")
        options = _loading(subfolder, variant)
        super().__init__(loaded(lambda: self.load(name_or_path, **options), name_or_path, subfolder))
        self.name_or_path, self.subfolder, self.chunk_frames = name_or_path, subfolder, chunk_frames
        self.channels: int = self.frozen.config.latent_channels
        self.scaling_factor: float = self.frozen.config.scaling_factor
        self.compression = Compression(pixels=2 ** (len(self.frozen.config.block_out_channels) - 1))

    @staticmethod
    def load(name_or_path: str, **options: Any) -> nn.Module:
        """Load the autoencoder with diffusers."""
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

        return AutoencoderKL.from_pretrained(name_or_path, **options)

    def identity(self) -> dict[str, Any]:
        """Return the properties that determine the latents; see ``Frozen``."""
        return {**super().identity(), "scaling_factor": self.scaling_factor}

    @torch.no_grad()
    def encode(self, video: UInt8[Tensor, "b c t h w"]) -> Float[Tensor, "b d t h2 w2"]:
        """Return the scaled latents of RGB frames."""
        frames = rearrange(video, "b c t h w -> (b t) c h w")
        parts = frames.split(self.chunk_frames or len(frames))  # split while they are uint8: a quarter of the memory
        latents = torch.cat([self.image_latents(to_picture(part)) for part in parts])
        return rearrange(self.scaling_factor * latents, "(b t) d h w -> b d t h w", b=len(video))

    @torch.no_grad()
    def image_latents(self, pictures: Picture) -> Float[Tensor, "b d h2 w2"]:
        """Return the latents of pictures without scaling, which is how networks take them as a condition."""
        with self.full_precision():
            parts = pictures.split(self.chunk_frames or len(pictures))
            return torch.cat([self.frozen.encode(part).latent_dist.mode() for part in parts])

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, "b d t h2 w2"]) -> UInt8[Tensor, "b c t h w"]:
        """Return the RGB frames of scaled latents; decodes one chunk of frames of one clip at a time."""
        clips = []
        for clip in latents / self.scaling_factor:
            frames = rearrange(clip, "d t h w -> t d h w")
            decoded = torch.cat([self.decode_frames(part) for part in frames.split(self.chunk_frames or len(frames))])
            clips.append(rearrange(((decoded.clamp(-1, 1) + 1) * 127.5).round().byte(), "t c h w -> c t h w"))
        return torch.stack(clips)

    def decode_frames(self, latents: Float[Tensor, "t d h w"]) -> Float[Tensor, "t 3 h2 w2"]:
        """Decode adjacent frames of a clip to RGB from -1 to 1; values may be slightly outside."""
        with self.full_precision():
            return self.frozen.decode(latents).sample

    def latent_shape(self, clip: ClipSize) -> tuple[int, int, int, int]:
        """Return channels, frames, rows and columns of the latents of a clip.

        Raises:
            ValueError: If height or width is not a multiple of ``compression.pixels``.
        """
        return self.channels, *self.compression.latent_size(clip)


class WanAutoencoder(Frozen):
    """diffusers' ``AutoencoderKLWan``, the causal autoencoder of Wan 2.1 and 2.2 (Wan 2025, section 4.1).

    The first latent frame encodes the first frame, each further one four more frames; none depends on later frames.
    Latents are the mode of the posterior, normalized by ``latents_mean`` and ``latents_std`` of its configuration.

    Clips are encoded and decoded one at a time, and each clip four frames at a time. The layers cache the features of
    earlier frames, so the result is the same as for all frames at once.

    Args:
        name_or_path: Folder of a pipeline, or its name on the hub.
        subfolder: The autoencoder's folder in it. Empty if ``name_or_path`` itself is that folder. Or the file of the
            authors in it, ``Wan2.1_VAE.pth`` or ``Wan2.2_VAE.pth``.
        variant: Variant of the weights in the file names, e.g. ``fp16``. Computation is in fp32 in any case.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name_or_path: Location, subfolder: NameOrNothing = "vae", variant: Name | None = None) -> None:
        options = _loading(subfolder, variant)
        super().__init__(loaded(lambda: self.load(name_or_path, **options), name_or_path, subfolder))
        self.name_or_path, self.subfolder = name_or_path, subfolder
        config = self.frozen.config
        self.channels: int = config.z_dim
        self.compression = _compression_of_wan(config)
        for name, values in (("mean", config.latents_mean), ("std", config.latents_std)):
            if len(values) != self.channels:
                raise ValueError(f"name_or_path: latents_{name} of {name_or_path} must be {self.channels} numbers")
            self.register_buffer(name, rearrange(torch.tensor(values), "d -> d 1 1 1"), persistent=False)
        if min(config.latents_std) <= 0:
            raise ValueError(f"name_or_path: latents_std of {name_or_path} must be {self.channels} numbers above 0")

    @staticmethod
    def load(name_or_path: str, **options: Any) -> nn.Module:
        """Load the autoencoder with diffusers, or from a file of its authors."""
        from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

        file = Path(name_or_path) / (options["subfolder"] or "")
        if file.suffix == ".pth":
            return load_autoencoder(file)
        return AutoencoderKLWan.from_pretrained(name_or_path, **options)

    def identity(self) -> dict[str, Any]:
        """Return the properties that determine the latents; see ``Frozen``."""
        return {**super().identity(), "normalization": tensors_checksum({"mean": self.mean, "std": self.std})}

    @torch.no_grad()
    def encode(self, video: UInt8[Tensor, "b c t h w"]) -> Float[Tensor, "b d t2 h2 w2"]:
        """Return the normalized latents of RGB clips.

        Raises:
            ValueError: As in ``latent_shape``. diffusers would silently drop the last frames.
        """
        return self._encode(PixelAutoencoder().encode(clip) for clip in self._checked(video).split(1))

    @torch.no_grad()
    def encode_known(
        self, video: UInt8[Tensor, "b 3 t h w"], is_known: Bool[Tensor, "b t"]
    ) -> Float[Tensor, "b d t2 h2 w2"]:
        """Return the normalized latents of clips whose unknown frames are grey; see ``KnownFramesEncoder``."""
        clips = zip(self._checked(video).split(1), is_known.split(1), strict=True)
        return self._encode(known_or_grey(clip, known) for clip, known in clips)

    def _checked(self, video: UInt8[Tensor, "b c t h w"]) -> UInt8[Tensor, "b c t h w"]:
        self.latent_shape(ClipSize(*video.shape[2:]))
        return video

    def _encode(self, clips: Iterable[Float[Tensor, "1 c t h w"]]) -> Float[Tensor, "b d t2 h2 w2"]:
        with self.full_precision():
            latents = torch.cat([self.frozen.encode(clip).latent_dist.mode() for clip in clips])
            return (latents - self.mean) / self.std

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, "b d t2 h2 w2"]) -> UInt8[Tensor, "b c t h w"]:
        """Return the RGB clips of normalized latents."""
        with self.full_precision():
            clips = (latents * self.std + self.mean).split(1)
            return torch.cat([PixelAutoencoder().decode(self.frozen.decode(clip).sample) for clip in clips])

    def latent_shape(self, clip: ClipSize) -> tuple[int, int, int, int]:
        """Return channels, frames, rows and columns of the latents of a clip.

        Raises:
            ValueError: If the number of frames is not 4k + 1, or height or width is not a multiple of
                ``compression.pixels``.
        """
        return self.channels, *self.compression.latent_size(clip)


_WAN_FRAMES = 4
"""Frames that diffusers feeds to the layers at once, whatever the configuration says."""


def _compression_of_wan(config: Any) -> Compression:
    """Return the compression that follows from the layers; ``scale_factor_*`` of the configuration may contradict."""
    halvings = len(config.dim_mult) - 1
    frames = 2 ** sum(config.temperal_downsample[:halvings])
    if frames != _WAN_FRAMES:
        raise ValueError(
            f"name_or_path: temperal_downsample={list(config.temperal_downsample)}: {frames} frames a latent frame,"
            f" but diffusers encodes {_WAN_FRAMES} at a time"
        )
    return Compression(frames, 2**halvings * (config.patch_size or 1))


def _loading(subfolder: str, variant: str | None) -> dict[str, Any]:
    """Return the options with which diffusers loads an autoencoder."""
    # Without accelerate, diffusers can't start on the meta device, and would warn about it.
    options: dict[str, Any] = {"torch_dtype": torch.float32, "use_safetensors": True, "low_cpu_mem_usage": False}
    return {**options, "subfolder": subfolder or None, "variant": variant}
