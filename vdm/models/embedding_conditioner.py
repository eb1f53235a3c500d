"""From captions, classes, first frames and crops to the network's conditions."""

from collections.abc import Sequence

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from vdm.models.autoencoder import Autoencoder
from vdm.models.embeddings import sinusoids
from vdm.models.text_encoders import EncodedText, TextEncoder
from vdm.prompts import LabelCondition, Prompts, TensorCondition, TextCondition
from vdm.ranges import Size, SizeOrZero, Width, WidthOrZero
from vdm.types import ClipBatch, Conditioning


class EmbeddingConditioner(nn.Module):
    """Embeds captions, classes, first frames and crops, those of them that the model has.

    A ``vdm.models.conditioner.Conditioner``; the arguments of its methods are described there.

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

    needs_pixels = False
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
        clip_ids: Sequence[int | str],
    ) -> Prompts:
        """Return what clips in training or validation are asked for: what they are."""
        return Prompts.of_clips(batch, x0)

    def with_first_frame(
        self,
        prompts: Prompts,
        frame: UInt8[Tensor, "b c h w"],
        encoder: Autoencoder,
        seed: int = 0,
        clip_ids: Sequence[int | str] | None = None,
    ) -> Prompts:
        """Return the prompts with a first frame for each clip; nothing of it is random here, so no draw is made."""
        return self.with_first_latents(prompts, encoder.encode(frame[:, :, None])[:, :, 0], encoder, seed, clip_ids)

    def with_first_latents(
        self,
        prompts: Prompts,
        latents: Float[Tensor, "b c h w"],
        encoder: Autoencoder,
        seed: int = 0,
        clip_ids: Sequence[int | str] | None = None,
    ) -> Prompts:
        """Return the prompts with the latents as they are, not decoded and encoded again: that would round them."""
        return prompts.with_conditions(image=TensorCondition.given(latents))

    def forward(self, prompts: Prompts, num_frames: int) -> Conditioning:
        """Embed conditions of clips of ``num_frames`` frames."""
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
        """Encode captions, unless that was done beforehand."""
        if self.text_encoder is None:
            return None
        text = prompts.find("text", TextCondition)
        if text is not None and text.embeddings is not None:
            return EncodedText(text.embeddings.tokens, text.embeddings.mask, text.embeddings.pooled)
        return self.text_encoder(prompts.captions)

    def _classes(self, prompts: Prompts) -> Int[Tensor, " b"]:
        """Return the row of each clip's class in the table."""
        label = prompts.find("label", LabelCondition)
        if label is None:
            return torch.full((len(prompts),), self.num_classes, device=self._device(prompts))
        return torch.where(label.labels < 0, self.num_classes, label.labels)

    def _device(self, prompts: Prompts) -> torch.device | None:
        """Return where the weights are, or the prompts, if there are no weights."""
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
