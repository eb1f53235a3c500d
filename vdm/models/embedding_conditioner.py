"""Conditioner for captions, classes, first frames and crops."""

from collections.abc import Sequence

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from vdm.models.autoencoder import Autoencoder
from vdm.models.conditioner import Pixels
from vdm.models.embeddings import sinusoids
from vdm.models.text_encoders import EncodedText, TextEncoder
from vdm.prompts import LabelCondition, Prompts, TensorCondition, TextCondition
from vdm.ranges import Size, SizeOrZero, Width, WidthOrZero
from vdm.types import ClipBatch, Conditioning


class EmbeddingConditioner(nn.Module):
    """Embeds captions, classes, first frames and crops, as far as the model is conditioned on them.

    Implements ``vdm.models.conditioner.Conditioner``, which describes the arguments of the methods.

    Args:
        text_encoder: Encoder of the captions. None for a model without text.
        num_classes: Number of classes, 0 for a model without classes.
        class_channels: Width of the class embedding in the vector condition.
        image: Whether a first frame is a condition.
        crop_channels: Width of the embedding of each of four numbers at the end of the vector condition: height and
            width of the clip as stored, first row and column of its crop (Podell et al. 2023, section 2.2). A model
            that is conditioned on them learns from small and cropped clips without generating such clips. 0 for none.
        stored_size: Height and width that sampling gives for these numbers, with a crop at row 0 and column 0.
    """

    needs_motion = False
    options: None = None

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
        has = {"text": text_encoder is not None, "label": num_classes > 0, "image": image}
        self.takes = tuple(name for name, is_condition in has.items() if is_condition)
        # The last row is the embedding of "no class".
        self.embed_class = nn.Embedding(num_classes + 1, class_channels) if num_classes else None

    @property
    def needs_pixels(self) -> Pixels:
        """Latents are enough."""
        return "none"

    @property
    def text_channels(self) -> int:
        """Width of the text tokens; 0 without text."""
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
        clip_ids: Sequence[int | str],
    ) -> Prompts:
        """Return the prompts of clips in training or validation."""
        return Prompts.of_clips(batch, x0)

    def with_first_frame(
        self,
        prompts: Prompts,
        frame: UInt8[Tensor, "b c h w"],
        encoder: Autoencoder,
        seed: int = 0,
        clip_ids: Sequence[int | str] | None = None,
    ) -> Prompts:
        """Return the prompts with a first frame for each clip; nothing is random here."""
        return self.with_first_latents(prompts, encoder.encode(frame[:, :, None])[:, :, 0], encoder, seed, clip_ids)

    def with_first_latents(
        self,
        prompts: Prompts,
        latents: Float[Tensor, "b c h w"],
        encoder: Autoencoder,
        seed: int = 0,
        clip_ids: Sequence[int | str] | None = None,
    ) -> Prompts:
        """Return the prompts with these latents; decoding and encoding them again would change them."""
        return prompts.with_conditions(image=TensorCondition.given(latents))

    def forward(self, prompts: Prompts, num_frames: int) -> Conditioning:
        """Embed the conditions of clips of ``num_frames`` frames."""
        encoded = self._text(prompts)
        vectors = [] if encoded is None else [encoded.pooled]
        if self.embed_class is not None:
            vectors.append(self.embed_class(self._classes(prompts)))
        if self.crop_channels:
            vectors.append(self._crops(prompts))
        return Conditioning(
            text=None if encoded is None else encoded.tokens,
            text_mask=None if encoded is None else encoded.mask,
            vector=torch.cat(vectors, dim=-1) if vectors else None,
            image=self._image(prompts, num_frames) if "image" in self.takes else None,
        )

    def _text(self, prompts: Prompts) -> EncodedText | None:
        """Encode captions, or return the embeddings that were stored for them."""
        if self.text_encoder is None:
            return None
        text = prompts.find("text", TextCondition)
        if text is not None and text.embeddings is not None:
            return EncodedText(text.embeddings.tokens, text.embeddings.mask, text.embeddings.pooled)
        return self.text_encoder(prompts.captions)

    def _classes(self, prompts: Prompts) -> Int[Tensor, " b"]:
        """Return the row of each clip's class in the embedding table."""
        label = prompts.find("label", LabelCondition)
        if label is None:
            return torch.full((len(prompts),), self.num_classes, device=self._device(prompts))
        return torch.where(label.labels < 0, self.num_classes, label.labels)

    def _device(self, prompts: Prompts) -> torch.device | None:
        """Return the device of the weights, or that of the prompts if there are no weights."""
        return next((weight.device for weight in self.parameters()), prompts.device)

    def _crops(self, prompts: Prompts) -> Float[Tensor, "b e"]:
        given = prompts.find("crops", TensorCondition)
        if given is None:
            assert self.stored_size is not None
            crops = torch.tensor([(*self.stored_size, 0, 0)] * len(prompts), device=self._device(prompts))
        else:
            crops = given.values
        embedded = sinusoids(crops.float().flatten(), self.crop_channels)
        return rearrange(embedded, "(b n) d -> b (n d)", n=4)

    def _image(self, prompts: Prompts, num_frames: int) -> Float[Tensor, "b c t h w"] | None:
        image = prompts.find("image", TensorCondition)
        if image is None:
            return None
        mask = TensorCondition(torch.ones_like(image.values[:, :1]), image.present).masked
        return repeat(torch.cat([image.masked, mask], dim=1), "b c h w -> b c t h w", t=num_frames)
