"""What guides Stable Video Diffusion: a first frame, seen twice, and three numbers."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from einops import rearrange, repeat
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from vdm.models.encoders import Encoder, to_picture
from vdm.models.svd.components import ImageEncoder, TemporalAutoencoder
from vdm.models.svd.unet import ADDED_TIME_IDS
from vdm.randomness import normal
from vdm.types import Conditioning, Prompts

IMAGE_TOKEN = "image_token"
"""Name in ``Prompts.extra`` of the first frame's embedding (b, e)."""


@dataclass(frozen=True)
class Motion:
    """The numbers a clip is made with, all in the units of the published model.

    Args:
        fps: Frames per second; the network is told one less.
        motion_bucket_id: How much moves, 0 to 255.
        noise_aug_strength: Standard deviation of the noise on the first frame, whose pixels run from -1 to 1; more
            noise leaves more to the network.
    """

    fps: float = 7.0
    motion_bucket_id: float = 127.0
    noise_aug_strength: float = 0.02

    def __post_init__(self) -> None:
        for name, least in (("fps", 1), ("motion_bucket_id", 0), ("noise_aug_strength", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, but is {getattr(self, name)}")

    @property
    def ids(self) -> list[float]:
        """The numbers as the network is told them."""
        return [self.fps - 1, self.motion_bucket_id, self.noise_aug_strength]


class SVDConditioner(nn.Module):
    """Shows the network a first frame: one token of what is in it, and its latents beside those of every frame.

    Blattmann et al. 2023, section 4.2 and appendix D. Where a clip has no first frame, both are zeros, and the numbers
    stay.

    Args:
        image_encoder: Makes the token.
        motion: The numbers of clips that come with none of their own.
    """

    text_encoder = None
    text_channels = 0
    vector_channels = 0
    num_classes = 0
    uses_image = True

    def __init__(self, image_encoder: ImageEncoder, motion: Motion | None = None) -> None:
        super().__init__()
        self.image_encoder = image_encoder
        self.motion = motion or Motion()

    def with_first_frame(
        self,
        prompts: Prompts,
        frame: UInt8[Tensor, "b 3 h w"],
        encoder: Encoder,
        motions: Sequence[Motion] | None = None,
        noise: Float[Tensor, "b 3 h w"] | None = None,
    ) -> Prompts:
        """Return the prompts with a first frame.

        Args:
            prompts: One entry a clip.
            frame: RGB first frame of each clip.
            encoder: The autoencoder.
            motions: The numbers of each clip, by default ``motion`` for all.
            noise: Noise of unit variance for the pixels, by default a function of the clip's row.

        Raises:
            ValueError: If ``encoder`` is none that Stable Video Diffusion can have.
        """
        if not isinstance(encoder, TemporalAutoencoder):
            raise ValueError("encoder: Stable Video Diffusion needs encoder=svd")
        picture = to_picture(frame)
        if noise is None:
            noise = normal(0, "first frame augmentation", range(len(frame)), tuple(frame.shape[1:]))
        ids = torch.tensor([motion.ids for motion in motions or [self.motion] * len(frame)], device=frame.device)
        strength = rearrange(ids[:, 2], "b -> b 1 1 1")
        return replace(
            prompts,
            image=encoder.image_latents(picture + strength * noise.to(picture)),
            has_image=torch.ones(len(frame), dtype=torch.bool, device=frame.device),
            extra={**prompts.extra, IMAGE_TOKEN: self.image_encoder(picture), ADDED_TIME_IDS: ids},
        )

    def forward(self, prompts: Prompts, num_frames: int) -> Conditioning:
        """Return the conditions of clips of ``num_frames`` frames."""
        device = prompts.labels.device
        ids = prompts.extra.get(ADDED_TIME_IDS)
        if ids is None:
            ids = torch.tensor([self.motion.ids] * len(prompts), device=device)
        if prompts.image is None or prompts.has_image is None:
            return Conditioning(extra={ADDED_TIME_IDS: ids})
        given = prompts.has_image.to(prompts.image.dtype)
        return Conditioning(
            text=rearrange(prompts.extra[IMAGE_TOKEN] * given[:, None], "b e -> b 1 e"),
            image=repeat(prompts.image * rearrange(given, "b -> b 1 1 1"), "b c h w -> b c t h w", t=num_frames),
            extra={ADDED_TIME_IDS: ids},
        )
