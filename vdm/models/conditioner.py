"""From captions, classes and first frames to the network's conditions."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from einops import rearrange, repeat
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from vdm.models.encoders import Autoencoder
from vdm.models.svd.layers import sinusoids
from vdm.models.text_encoders import EncodedText, TextEncoder
from vdm.ranges import Size, SizeOrZero, Width, WidthOrZero
from vdm.types import ClipBatch, Conditioning, Prompts


class Conditioner(nn.Module):
    """Embeds what the network is guided by.

    Args:
        text_encoder: Embeds captions, none for a model without text.
        num_classes: Number of classes, 0 for a model without classes.
        class_channels: Width of the class embedding in the vector condition.
        image: Whether a first frame is a condition.
        crop_channels: Width of the embedding of each of four numbers that the vector condition ends with: rows and
            columns of the clip as stored, first row and column of its crop (Podell et al. 2023, section 2.2). 0 for a
            model that is not told; the others learn from small and cropped clips without making such ones.
        stored_size: Rows and columns that clips to be made are said to have been stored in, uncropped.
    """

    def __init__(
        self,
        text_encoder: TextEncoder | None = None,
        num_classes: SizeOrZero = 0,
        class_channels: Width = 128,
        image: bool = False,
        crop_channels: WidthOrZero = 0,
        stored_size: tuple[Size, Size] | None = None,
    ) -> None:
        super().__init__()
        if crop_channels < 0 or crop_channels % 2:
            raise ValueError(f"crop_channels must be an even number, at least 0, but is {crop_channels}")
        if crop_channels and stored_size is None:
            raise ValueError(f"stored_size must be given as [rows, columns] where crop_channels is {crop_channels}")
        self.crop_channels = crop_channels
        self.stored_size = stored_size
        self.text_encoder = text_encoder
        self.num_classes = num_classes
        self.uses_image = image
        self.uses_image_token = False
        self.needs_pixels = False
        # The last row stands for "no class".
        self.embed_class = nn.Embedding(num_classes + 1, class_channels) if num_classes else None

    @property
    def text_channels(self) -> int:
        """Width of the text tokens, 0 without text."""
        return self.text_encoder.channels if self.text_encoder is not None else 0

    @property
    def vector_channels(self) -> int:
        """Width of the vector condition: pooled text, then class, then crop."""
        of_class = self.embed_class.embedding_dim if self.embed_class is not None else 0
        return self.text_channels + of_class + 4 * self.crop_channels

    def of_clips(
        self,
        batch: ClipBatch,
        x0: Float[Tensor, "b c t h w"],
        encoder: Autoencoder,
        seed: int,
        draws: Sequence[int | str],
    ) -> Prompts:
        """Return what clips in training or validation are asked for: what they are.

        Args:
            batch: The clips.
            x0: Their clean latents.
            encoder: Has made the latents.
            seed: Of what is random in conditions.
            draws: Names each clip there: its position in training, its key in validation.
        """
        return Prompts.of(batch, x0)

    def with_first_frame(
        self,
        prompts: Prompts,
        frame: UInt8[Tensor, "b c h w"],
        encoder: Autoencoder,
        seed: int = 0,
        draws: Sequence[int | str] | None = None,
    ) -> Prompts:
        """Return the prompts with a first frame for each clip; nothing of it is random here, so no draw is made."""
        return self.with_first_latents(prompts, encoder.encode(frame[:, :, None])[:, :, 0])

    def with_first_latents(self, prompts: Prompts, latents: Float[Tensor, "b c h w"]) -> Prompts:
        """Return the prompts with the latents of a first frame for each clip.

        Conditioners whose ``needs_pixels`` is True lack this method: they are given the frame itself.
        """
        has_image = torch.ones(len(latents), dtype=torch.bool, device=latents.device)
        return replace(prompts, image=latents, has_image=has_image)

    def forward(self, prompts: Prompts, num_frames: int) -> Conditioning:
        """Embed conditions of clips of ``num_frames`` frames."""
        encoded = self._text(prompts)
        vectors = [] if encoded is None else [encoded.pooled]
        if self.embed_class is not None:
            vectors.append(self.embed_class(torch.where(prompts.labels < 0, self.num_classes, prompts.labels)))
        if self.crop_channels:
            vectors.append(self._crops(prompts))
        return Conditioning(
            text=None if encoded is None else encoded.tokens,
            text_mask=None if encoded is None else encoded.mask,
            vector=torch.cat(vectors, dim=-1) if vectors else None,
            image=self._image(prompts, num_frames) if self.uses_image else None,
        )

    def _text(self, prompts: Prompts) -> EncodedText | None:
        """Encode captions, unless that was done beforehand."""
        if self.text_encoder is None:
            return None
        if prompts.text is not None:
            return EncodedText(prompts.text.tokens, prompts.text.mask, prompts.text.pooled)
        return self.text_encoder(prompts.captions)

    def _crops(self, prompts: Prompts) -> Float[Tensor, "b e"]:
        crops = prompts.crops
        if crops is None:
            assert self.stored_size is not None
            crops = torch.tensor([(*self.stored_size, 0, 0)] * len(prompts), device=prompts.labels.device)
        embedded = sinusoids(crops.float().flatten(), self.crop_channels)
        return rearrange(embedded, "(b n) d -> b (n d)", n=4)

    def _image(self, prompts: Prompts, num_frames: int) -> Float[Tensor, "b c t h w"] | None:
        if prompts.image is None or prompts.has_image is None:
            return None
        given = rearrange(prompts.has_image.to(prompts.image.dtype), "b -> b 1 1 1")
        image = torch.cat([prompts.image * given, given.expand(-1, -1, *prompts.image.shape[-2:])], dim=1)
        return repeat(image, "b c h w -> b c t h w", t=num_frames)


def append_images(clips: Conditioning, images: Conditioning, num_frames: int, num_images: int) -> Conditioning:
    """Return conditions one a frame: each clip's for all its frames, then those of its ``k`` independent images.

    Args:
        clips: Conditions of ``b`` clips of ``num_frames`` frames.
        images: Conditions of ``b k`` images, those of a clip adjacent.
        num_frames: Frames of a clip.
        num_images: Images beside a clip, ``k``.
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
        # No first frame is given for the images.
        image=None if clips.image is None else nn.functional.pad(clips.image, (0, 0, 0, 0, 0, num_images)),
        extra=clips.extra,
    )


def _pad_tokens(tokens: Tensor | None, length: int) -> Tensor | None:
    if tokens is None:
        return None
    return torch.cat([tokens, tokens.new_zeros(tokens.shape[0], length - tokens.shape[1], *tokens.shape[2:])], dim=1)
