"""The autoencoder of latent image diffusion, used frame by frame."""

from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from vdm.models.encoders import Picture, to_picture
from vdm.models.frozen import Frozen, loaded
from vdm.ranges import Location, Name, NameOrNothing, Size


class FrameAutoencoder(Frozen):
    """diffusers' ``AutoencoderKL``: each frame is encoded and decoded by itself.

    Latents are the mean of the posterior, scaled to about unit variance.

    Args:
        name_or_path: Folder of a pipeline, or its name on the hub.
        subfolder: The autoencoder's folder in it; the empty text where ``name_or_path`` is that folder.
        variant: As in the files' names, e.g. ``fp16``; what is computed is fp32 all the same.
        chunk_frames: Frames that are encoded or decoded at once; fewer take less memory. None for all frames of a clip.
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
        # Without accelerate, diffusers can't begin on the meta device, and would warn of it.
        options: dict[str, Any] = {"torch_dtype": torch.float32, "use_safetensors": True, "low_cpu_mem_usage": False}
        options |= {"subfolder": subfolder or None, "variant": variant}
        super().__init__(loaded(lambda: self.load(name_or_path, **options), name_or_path, subfolder))
        self.name_or_path, self.subfolder, self.chunk_frames = name_or_path, subfolder, chunk_frames
        self.channels: int = self.frozen.config.latent_channels
        self.scaling_factor: float = self.frozen.config.scaling_factor
        self.pixels_per_latent = 2 ** (len(self.frozen.config.block_out_channels) - 1)

    @staticmethod
    def load(name_or_path: str, **options: Any) -> nn.Module:
        """Load the autoencoder with diffusers."""
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

        return AutoencoderKL.from_pretrained(name_or_path, **options)

    def identity(self) -> dict[str, Any]:
        """Return what the latents depend on; see ``Frozen``."""
        return {**super().identity(), "scaling_factor": self.scaling_factor}

    @torch.no_grad()
    def encode(self, video: UInt8[Tensor, "b c t h w"]) -> Float[Tensor, "b d t h2 w2"]:
        """Return the scaled latents of RGB frames."""
        frames = rearrange(video, "b c t h w -> (b t) c h w")
        parts = frames.split(self.chunk_frames or len(frames))  # as whole numbers they take a quarter
        latents = torch.cat([self.image_latents(to_picture(part)) for part in parts])
        return rearrange(self.scaling_factor * latents, "(b t) d h w -> b d t h w", b=len(video))

    @torch.no_grad()
    def image_latents(self, pictures: Picture) -> Float[Tensor, "b d h2 w2"]:
        """Return the latents of pictures, not scaled, as a network is given them for its condition."""
        with self.full_precision():
            parts = pictures.split(self.chunk_frames or len(pictures))
            return torch.cat([self.frozen.encode(part).latent_dist.mode() for part in parts])

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, "b d t h2 w2"]) -> UInt8[Tensor, "b c t h w"]:
        """Return the RGB frames of scaled latents, a chunk of frames of one clip at a time."""
        clips = []
        for clip in latents / self.scaling_factor:
            frames = rearrange(clip, "d t h w -> t d h w")
            decoded = torch.cat([self.decode_frames(part) for part in frames.split(self.chunk_frames or len(frames))])
            clips.append(rearrange(((decoded.clamp(-1, 1) + 1) * 127.5).round().byte(), "t c h w -> c t h w"))
        return torch.stack(clips)

    def decode_frames(self, latents: Float[Tensor, "t d h w"]) -> Float[Tensor, "t 3 h2 w2"]:
        """Return what adjacent frames of a clip look like, from -1 to 1 or a little beyond."""
        with self.full_precision():
            return self.frozen.decode(latents).sample

    def latent_size(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width of the latents of frames of this size.

        Raises:
            ValueError: If they are no multiples of the pixels in a latent.
        """
        for name, size in (("height", height), ("width", width)):
            if size % self.pixels_per_latent:
                raise ValueError(f"{name}={size}: the autoencoder needs multiples of {self.pixels_per_latent}")
        return height // self.pixels_per_latent, width // self.pixels_per_latent
