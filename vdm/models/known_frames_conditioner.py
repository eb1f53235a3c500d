"""Conditioner that tells the network known frames in further channels: Wan's image to video."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Protocol, Self

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from vdm.known_frames import BothEnds, FirstFrames, FrameChoice, IsKnown
from vdm.models.autoencoder import Autoencoder, KnownFramesEncoder
from vdm.models.conditioner import Pixels
from vdm.models.dit.transformer import IMAGE_TOKENS
from vdm.models.embedding_conditioner import EmbeddingConditioner
from vdm.models.text_encoders import TextEncoder
from vdm.prompts import Condition, Prompts
from vdm.randomness import uniform
from vdm.ranges import SizeOrZero, Width
from vdm.types import ClipBatch, Conditioning

FRAMES = "frames"
"""Name of the condition."""


class ImageTokenEncoder(Protocol):
    """Computes ``num_tokens`` tokens of width ``channels`` for each picture."""

    channels: int
    num_tokens: int

    def __call__(self, frames: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b l e"]:
        """Return the tokens of RGB pictures."""
        ...


@dataclass(frozen=True)
class KnownFramesCondition(Condition):
    """Known frames of clips: their latents, which of them they are, and their image tokens."""

    is_guided_by: ClassVar[bool] = False
    """As in Wan's pipelines, guidance compares two predictions that both know the frames."""

    latents: Float[Tensor, "b c t h w"]
    """Latents of the clips, of which unknown frames are grey."""
    is_known: Bool[Tensor, "b n t"]
    """For each latent frame, which of the ``n`` frames that it stands for are known. The first latent frame stands for
    one frame, which is repeated."""
    present: Bool[Tensor, " b"]
    """False for clips that have lost the condition."""
    tokens: Float[Tensor, "b l e"] | None = None
    """Image tokens of the known frames that have some; those of unknown frames are zeros."""

    def __len__(self) -> int:
        return len(self.latents)

    def drop(self, where: Bool[Tensor, " b"]) -> Self:
        """Mark the clips where ``where`` is True as having no known frames."""
        return replace(self, present=self.present & ~where.to(self.present.device))

    @property
    def channels(self) -> Float[Tensor, "b c2 t h w"]:
        """The channels that tell the network: the mask of known frames, then the latents; zeros if nothing is known."""
        height, width = self.latents.shape[3:]
        mask = repeat(self.is_known.to(self.latents), "b n t -> b n t h w", h=height, w=width)
        return _where(self.present, torch.cat([mask, self.latents], dim=1))

    @property
    def present_tokens(self) -> Float[Tensor, "b l e"] | None:
        """The image tokens; zeros for clips that have lost the condition."""
        return None if self.tokens is None else _where(self.present, self.tokens)


class KnownFramesConditioner(EmbeddingConditioner):
    """Embeds captions and classes as ``EmbeddingConditioner`` does, and tells the network any known frames.

    Wan 2.1 and 2.2, image to video: the network's input has channels for a mask of the known frames and for the latents
    of the clip whose other frames are grey. Wan 2.1 also attends to the image tokens of the first frame, or of the
    first and the last one. All frames are noised and count in the loss, unlike those of
    ``vdm.diffusion.frame_levels.KnownFramesClean``.

    Args:
        text_encoder: Encoder of the captions. None for a model without text.
        num_classes: Number of classes, 0 for a model without classes.
        class_channels: Width of the class embedding in the vector condition.
        frames: Which frames of a clip are known in training. None for those of ``pictures``.
        image_encoder: Computes image tokens of known frames. None for a network without.
        pictures: The frames that have image tokens: ``first``, or ``both_ends`` for the first and the last.
    """

    def __init__(
        self,
        text_encoder: TextEncoder | None = None,
        num_classes: SizeOrZero = 0,
        class_channels: Width = 128,
        frames: FrameChoice | None = None,
        image_encoder: ImageTokenEncoder | None = None,
        pictures: Literal["first", "both_ends"] = "first",
    ) -> None:
        super().__init__(text_encoder, num_classes, class_channels)
        self.takes = (*self.takes, FRAMES)
        self.frames: FrameChoice = frames or (BothEnds() if pictures == "both_ends" else FirstFrames())
        self.image_encoder, self.pictures = image_encoder, pictures
        self._places = (0, -1) if pictures == "both_ends" else (0,)

    @property
    def needs_pixels(self) -> Pixels:
        """Frames that batches need beside stored latents."""
        return "first" if self.frames.is_first_frame and self.pictures == "first" else "all"

    @property
    def takes_last_frame(self) -> bool:
        """Not if the network attends to the image tokens of the first frame alone."""
        return self.image_encoder is None or self.pictures == "both_ends"

    @property
    def image_token_channels(self) -> int:
        """Width of the image tokens; 0 if there are none."""
        return 0 if self.image_encoder is None else self.image_encoder.channels

    @property
    def num_image_tokens(self) -> int:
        """Number of image tokens of a clip; 0 if there are none."""
        return 0 if self.image_encoder is None else len(self._places) * self.image_encoder.num_tokens

    def image_channels(self, encoder: Autoencoder) -> int:
        """Return the number of channels beside those of the noised latents."""
        return encoder.compression.frames + encoder.channels

    def of_clips(
        self,
        batch: ClipBatch,
        x0: Float[Tensor, "b c t h w"],
        encoder: Autoencoder,
        seed: int,
        clip_ids: Sequence[int | str],
    ) -> Prompts:
        """Return the prompts of clips in training or validation, of which some frames are known."""
        num_frames = encoder.compression.frames * (x0.shape[2] - 1) + 1
        is_known = self.frames(lambda purpose: uniform(seed, f"known frames, {purpose}", clip_ids), num_frames)
        # Frames that were not read are not known either.
        video = F.pad(batch.video, (0, 0, 0, 0, 0, num_frames - batch.video.shape[2]))
        return self.with_known_frames(Prompts.of_clips(batch, x0), video, is_known.to(video.device), encoder)

    def with_known_frames(
        self, prompts: Prompts, video: UInt8[Tensor, "b 3 t h w"], is_known: IsKnown, encoder: Autoencoder
    ) -> Prompts:
        """Return the prompts with known frames; implements ``vdm.models.conditioner.TakesKnownFrames``.

        Raises:
            ValueError: If ``encoder`` can't encode clips of which some frames are known.
        """
        if not isinstance(encoder, KnownFramesEncoder):
            raise ValueError(
                f"encoder: known frames are told in channels with encoder=wan or encoder=pixels, not"
                f" {type(encoder).__name__}"
            )
        span = encoder.compression.frames
        folded = torch.cat([is_known[:, :1].expand(-1, span), is_known[:, 1:]], dim=1)
        condition = KnownFramesCondition(
            latents=encoder.encode_known(video, is_known),
            is_known=rearrange(folded, "b (t n) -> b n t", n=span),
            present=is_known.any(1),  # nothing known is told as nothing given is
            tokens=self._tokens(video, is_known),
        )
        return prompts.with_conditions(**{FRAMES: condition})

    def forward(self, prompts: Prompts, num_frames: int) -> Conditioning:
        """Embed the conditions of clips of ``num_frames`` latent frames."""
        conditioning, known = super().forward(prompts, num_frames), prompts.find(FRAMES, KnownFramesCondition)
        tokens = None if known is None else known.present_tokens
        if tokens is None and self.image_encoder is not None:
            tokens = torch.zeros(
                len(prompts), self.num_image_tokens, self.image_token_channels, device=self._device(prompts)
            )
        extra = {} if tokens is None else {IMAGE_TOKENS: tokens}
        return replace(conditioning, image=None if known is None else known.channels, extra=extra)

    def _tokens(self, video: UInt8[Tensor, "b 3 t h w"], is_known: IsKnown) -> Float[Tensor, "b l e"] | None:
        if self.image_encoder is None:
            return None
        return torch.cat(
            [_where(is_known[:, place], self.image_encoder(video[:, :, place])) for place in self._places], dim=1
        )


def _where(present: Bool[Tensor, " b"], values: Float[Tensor, "b *shape"]) -> Float[Tensor, "b *shape"]:
    """Replace the values of clips by zeros where ``present`` is False."""
    return torch.where(present.view(-1, *[1] * (values.ndim - 1)), values, 0)
