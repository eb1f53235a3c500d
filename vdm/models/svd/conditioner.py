"""Conditioner of Stable Video Diffusion: a first frame, which enters in two ways, and three numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Interval
from einops import rearrange, repeat
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from vdm.models.autoencoder import Autoencoder, Picture, PictureEncoder, to_picture
from vdm.models.svd.components import ImageEncoder
from vdm.models.svd.unet import ADDED_TIME_IDS, IMAGE_ONLY_INDICATOR
from vdm.prompts import Prompts, TensorCondition
from vdm.randomness import normal
from vdm.ranges import LogRatio, NotNegative, Positive
from vdm.types import ClipBatch, Conditioning


@dataclass(frozen=True)
class MicroConditioning:
    """Numbers that a clip is conditioned on, in the units of the published model.

    Args:
        fps: Frames per second. The network gets this number minus 1.
        motion_bucket_id: Amount of motion, 0 to 255.
        noise_aug_strength: Standard deviation of the noise on the first frame, whose pixels are from -1 to 1. With more
            noise, the video follows the first frame less closely.
    """

    fps: Annotated[Positive, Ge(1)] = 7.0
    motion_bucket_id: Annotated[float, Interval(ge=0, le=255)] = 127.0
    noise_aug_strength: NotNegative = 0.02

    def __post_init__(self) -> None:
        for name, least in (("fps", 1), ("motion_bucket_id", 0), ("noise_aug_strength", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, but is {getattr(self, name)}")
        if self.motion_bucket_id > 255:
            raise ValueError(f"motion_bucket_id must be at most 255, but is {self.motion_bucket_id}")

    @property
    def ids(self) -> list[float]:
        """The numbers as the network takes them."""
        return [self.fps - 1, self.motion_bucket_id, self.noise_aug_strength]


@dataclass(frozen=True)
class Augmentation:
    """Noise on the first frames in training; its standard deviation is drawn from a log-normal distribution.

    Args:
        p_mean: Mean of the logarithm of the standard deviation; pixels are from -1 to 1.
        p_std: Standard deviation of that logarithm.
    """

    p_mean: LogRatio = -3.0
    p_std: NotNegative = 0.5

    def __post_init__(self) -> None:
        if self.p_std < 0:
            raise ValueError(f"p_std must be at least 0, but is {self.p_std}")

    def draw(self, seed: int, clip_ids: Sequence[int | str]) -> Float[Tensor, " b"]:
        """Draw the standard deviation of each clip's noise."""
        return torch.exp(self.p_mean + self.p_std * normal(seed, "first frame augmentation level", clip_ids, ()))


@dataclass(frozen=True)
class MotionBuckets:
    """Motion buckets of clips in training: ``255 (1 - exp(-motion / scale))``, between 0 and 255.

    Stability has not published how it measured them. This function is monotonic, resolves slow clips best, does not
    saturate at a finite motion, and maps the median of everyday clips to about 127, the usual value in sampling.

    Args:
        scale: Motion whose bucket is 161, in the unit of ``vdm.data.motion``.
    """

    scale: Positive = 0.025

    def __post_init__(self) -> None:
        if self.scale <= 0:
            raise ValueError(f"scale must be > 0, but is {self.scale}")

    def __call__(self, motion: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Return the bucket of each clip, a whole number."""
        return (255 * (1 - torch.exp(-motion / self.scale))).round()


class SVDConditioner(nn.Module):
    """Conditions on a first frame, by its embedding and by its latents, and on the numbers of ``MicroConditioning``.

    Blattmann et al. 2023, section 4.2 and appendix D. A dropped embedding or dropped latents are zeros; the numbers are
    never dropped. A clip of one frame is an image, which temporal layers leave unchanged. Implements
    ``vdm.models.conditioner.Conditioner``, which describes the arguments of the methods.

    Args:
        image_encoder: Computes the embedding.
        motion: Numbers for videos whose prompts have none.
        augmentation: Noise on the first frames of clips in training.
        buckets: Motion buckets of clips in training.
    """

    text_encoder = None
    text_channels = 0
    vector_channels = 0
    num_classes = 0
    takes = ("image", "image_token")
    needs_pixels = "first"
    needs_motion = True
    options: MicroConditioning

    def __init__(
        self,
        image_encoder: ImageEncoder,
        motion: MicroConditioning | None = None,
        augmentation: Augmentation | None = None,
        buckets: MotionBuckets | None = None,
    ) -> None:
        super().__init__()
        self.image_encoder = image_encoder
        self.options = motion or MicroConditioning()
        self.augmentation = augmentation or Augmentation()
        self.buckets = buckets or MotionBuckets()

    def of_clips(
        self,
        batch: ClipBatch,
        x0: Float[Tensor, "b c t h w"],
        encoder: Autoencoder,
        seed: int,
        clip_ids: Sequence[int | str],
    ) -> Prompts:
        """Return the prompts of clips in training or validation, with noise on the first frame."""
        assert batch.motion is not None, "the loader provides it if needs_pixels is True"
        levels = self.augmentation.draw(seed, clip_ids).to(x0.device)
        ids = torch.stack([batch.fps - 1, self.buckets(batch.motion), levels], dim=1)
        pixels = batch.video[:, :, 0]
        noise = normal(seed, "first frame augmentation", clip_ids, tuple(pixels.shape[1:]))
        return self._with_first_frame_and_ids(
            Prompts.of(batch.captions, batch.labels), to_picture(pixels), ids, noise, encoder
        )

    def with_first_frame(
        self,
        prompts: Prompts,
        frame: UInt8[Tensor, "b 3 h w"],
        encoder: Autoencoder,
        seed: int = 0,
        clip_ids: Sequence[int | str] | None = None,
        motions: Sequence[MicroConditioning] | None = None,
        noise: Float[Tensor, "b 3 h w"] | None = None,
    ) -> Prompts:
        """Return the prompts with a first frame.

        Args:
            prompts: One entry a clip.
            frame: RGB first frame of each clip.
            encoder: The autoencoder.
            seed: Seed of the noise.
            clip_ids: Identifies each clip for the noise; by default its index in the batch.
            motions: The numbers of each clip; by default ``options`` for all.
            noise: Noise of unit variance for the pixels; by default a function of ``seed`` and ``clip_ids``.

        Raises:
            ValueError: If ``encoder`` can't encode single pictures.
        """
        ids = torch.tensor([motion.ids for motion in motions or [self.options] * len(frame)], device=frame.device)
        if noise is None:
            names = range(len(frame)) if clip_ids is None else clip_ids
            noise = normal(seed, "first frame augmentation", names, tuple(frame.shape[1:]))
        return self._with_first_frame_and_ids(prompts, to_picture(frame), ids, noise, encoder)

    def with_first_latents(
        self,
        prompts: Prompts,
        latents: Float[Tensor, "b c h w"],
        encoder: Autoencoder,
        seed: int = 0,
        clip_ids: Sequence[int | str] | None = None,
    ) -> Prompts:
        """Return the prompts with the decoded latents as the first frame, since the embedding needs its pixels."""
        return self.with_first_frame(prompts, encoder.decode(latents[:, :, None])[:, :, 0], encoder, seed, clip_ids)

    def forward(self, prompts: Prompts, num_frames: int) -> Conditioning:
        """Return the conditions of clips of ``num_frames`` frames."""
        device, count = next((weight.device for weight in self.parameters()), prompts.device), len(prompts)
        given_ids = prompts.find(ADDED_TIME_IDS, TensorCondition)
        ids = torch.tensor([self.options.ids] * count, device=device) if given_ids is None else given_ids.values
        extra = {ADDED_TIME_IDS: ids}
        if num_frames == 1:
            extra[IMAGE_ONLY_INDICATOR] = torch.ones(count, 1, dtype=torch.bool, device=device)
        given = prompts.find("image_token", TensorCondition)
        token = torch.zeros(count, self.image_encoder.channels, device=device) if given is None else given.masked
        image = prompts.find("image", TensorCondition)
        return Conditioning(
            text=rearrange(token, "b e -> b 1 e"),
            image=None if image is None else repeat(image.masked, "b c h w -> b c t h w", t=num_frames),
            extra=extra,
        )

    def _with_first_frame_and_ids(
        self,
        prompts: Prompts,
        picture: Picture,
        ids: Float[Tensor, "b 3"],
        noise: Float[Tensor, "b 3 h w"],
        encoder: Autoencoder,
    ) -> Prompts:
        if not isinstance(encoder, PictureEncoder):
            raise ValueError(f"encoder: Stable Video Diffusion needs encoder=svd, not {type(encoder).__name__}")
        strength = rearrange(ids[:, 2], "b -> b 1 1 1")
        conditions = {
            "image": TensorCondition.given(encoder.image_latents(picture + strength * noise.to(picture))),
            "image_token": TensorCondition.given(self.image_encoder(picture)),
            ADDED_TIME_IDS: TensorCondition(ids),
        }
        return prompts.with_conditions(**conditions)
