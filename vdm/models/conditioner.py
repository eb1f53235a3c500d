"""Interface of a conditioner, which turns prompts into the conditions of a network."""

from collections.abc import Collection, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from einops import rearrange, repeat
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from vdm.known_frames import FrameChoice, IsKnown
from vdm.models.autoencoder import Autoencoder
from vdm.models.text_encoders import TextEncoder
from vdm.prompts import Prompts
from vdm.types import ClipBatch, Conditioning

Pixels = Literal["none", "first", "all"]
"""Frames of a clip: none, the first, or all."""


@runtime_checkable
class TakesKnownFrames(Protocol):
    """A conditioner that tells the network any known frames of a clip: pictures, or parts of a video."""

    frames: FrameChoice
    """Which frames were known in training."""

    @property
    def takes_last_frame(self) -> bool:
        """Whether a last frame can be known as well."""
        ...

    def with_known_frames(
        self, prompts: Prompts, video: UInt8[Tensor, "b 3 t h w"], is_known: IsKnown, encoder: Autoencoder
    ) -> Prompts:
        """Return the prompts with known frames.

        Args:
            prompts: One entry a clip.
            video: RGB clips; only known frames are used.
            is_known: True for known frames.
            encoder: The autoencoder.
        """
        ...


@runtime_checkable
class Conditioner(Protocol):
    """Embeds prompts for the network; an ``nn.Module`` that trains with the network.

    Everything that training, sampling and the command line know about a model's conditions is declared here. A new kind
    of condition needs a conditioner that lists its name in ``takes``, adds it to the prompts in ``of_clips``, and
    embeds it in ``forward``.
    """

    options: Any
    """Defaults of the numbers that videos are conditioned on, if the prompts have none: a frozen dataclass, or None.

    The fields of this dataclass become options of ``vdm sample``, which sets the attribute; their annotations give the
    ranges. The class of the dataclass is read from the annotation of the attribute: ``options: MicroConditioning``.
    """

    @property
    def takes(self) -> Collection[str]:
        """Names of the conditions that the model takes.

        Four of them can be given on the command line: ``text``, ``label``, ``image``, the first frame, and ``frames``,
        known frames, of which ``TakesKnownFrames`` says more. All can be named in ``training.condition_dropout``. A
        condition that is missing from the prompts counts as dropped.
        """
        ...

    @property
    def text_encoder(self) -> TextEncoder | None:
        """Encoder of the captions; None unless ``takes`` has ``text``."""
        ...

    @property
    def num_classes(self) -> int:
        """Number of classes; 0 unless ``takes`` has ``label``."""
        ...

    @property
    def text_channels(self) -> int:
        """Width of the tokens that the network attends to; 0 if there are none."""
        ...

    @property
    def vector_channels(self) -> int:
        """Width of the vector that is added to the embedding of the noise level; 0 if there is none."""
        ...

    @property
    def needs_pixels(self) -> Pixels:
        """Frames whose pixels batches need even if stored latents are read."""
        ...

    @property
    def needs_motion(self) -> bool:
        """Whether batches need the motion of clips."""
        ...

    def of_clips(
        self,
        batch: ClipBatch,
        x0: Float[Tensor, "b c t h w"],
        encoder: Autoencoder,
        seed: int,
        clip_ids: Sequence[int | str],
    ) -> Prompts:
        """Return the prompts of clips in training or validation, which describe the clips themselves.

        Args:
            batch: The clips.
            x0: Their clean latents.
            encoder: The autoencoder that made the latents.
            seed: Seed of random conditions, such as noise on the first frame.
            clip_ids: Identifies each clip for random conditions: its position in training, its key in validation.
        """
        ...

    def with_first_frame(
        self,
        prompts: Prompts,
        frame: UInt8[Tensor, "b c h w"],
        encoder: Autoencoder,
        seed: int = 0,
        clip_ids: Sequence[int | str] | None = None,
    ) -> Prompts:
        """Return the prompts with a first frame for each clip; called only if ``takes`` has ``image``.

        Args:
            prompts: One entry a clip.
            frame: RGB first frame of each clip.
            encoder: The autoencoder.
            seed: Seed of random conditions.
            clip_ids: Identifies each clip for random conditions; by default its index in the batch.
        """
        ...

    def with_first_latents(
        self,
        prompts: Prompts,
        latents: Float[Tensor, "b c h w"],
        encoder: Autoencoder,
        seed: int = 0,
        clip_ids: Sequence[int | str] | None = None,
    ) -> Prompts:
        """Return the prompts with a first frame given as latents, such as the last frame of a generated block.

        Arguments are those of ``with_first_frame``, which also says when this is called.
        """
        ...

    def __call__(self, prompts: Prompts, num_frames: int) -> Conditioning:
        """Embed the conditions of clips of ``num_frames`` frames."""
        ...


def append_images(clips: Conditioning, images: Conditioning, num_frames: int, num_images: int) -> Conditioning:
    """Return one condition a frame: that of the clip for each of its frames, then those of its independent images.

    Args:
        clips: Conditions of ``b`` clips of ``num_frames`` frames.
        images: Conditions of ``b k`` images; the images of a clip are adjacent.
        num_frames: Number of frames of a clip.
        num_images: Number of images that are trained on with each clip, ``k``.
    """

    def per_frame(clip: Tensor | None, image: Tensor | None) -> Tensor | None:
        if clip is None or image is None:
            return None
        of_images = rearrange(image, "(b k) ... -> b k ...", k=num_images)
        return torch.cat([repeat(clip, "b ... -> b t ...", t=num_frames), of_images], dim=1)

    longest = max((c.text.shape[1] for c in (clips, images) if c.text is not None), default=0)
    return Conditioning(
        text=per_frame(_pad_tokens(clips.text, longest), _pad_tokens(images.text, longest)),
        text_mask=per_frame(_pad_tokens(clips.text_mask, longest), _pad_tokens(images.text_mask, longest)),
        vector=per_frame(clips.vector, images.vector),
        # Independent images have no first frame as a condition.
        image=None if clips.image is None else nn.functional.pad(clips.image, (0, 0, 0, 0, 0, num_images)),
        extra=clips.extra,
    )


def _pad_tokens(tokens: Tensor | None, length: int) -> Tensor | None:
    if tokens is None:
        return None
    return torch.cat([tokens, tokens.new_zeros(tokens.shape[0], length - tokens.shape[1], *tokens.shape[2:])], dim=1)
