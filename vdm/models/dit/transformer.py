"""The space-time transformer of Wan 2.1 and 2.2 (Wan Team 2025, "Wan: Open and Advanced Large-Scale Video Models")."""

from typing import Annotated

import torch
from annotated_types import Interval
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from vdm.models.attention import Activations, mask_bias, zeroed
from vdm.models.diffusers_layers import Tokens
from vdm.models.dit.embedders import ConditionEmbedder, PatchEmbedding
from vdm.models.dit.layers import EPS, TokenConditioning, TransformerBlock
from vdm.models.dit.lean import linears_of_modulated_norm
from vdm.models.dit.rotary import rotation_of_tokens
from vdm.models.embeddings import NumberEmbedding, embedding_in_clip
from vdm.models.lean_function import wide
from vdm.ranges import NumLayers, SizeOrZero, Width, WidthOrZero
from vdm.types import Conditioning

Heads = Annotated[int, Interval(ge=1, le=1024)]
"""A number of attention heads, or the width of one; their product stays far below what tensors can be."""
IMAGE_TOKENS = "image_tokens"
"""Name in ``Conditioning.extra`` of the tokens ``b l e`` of the images that a clip is conditioned on."""


class SpaceTimeTransformer(nn.Module):
    """Transformer over patches of all frames at once, conditioned on noise level, text and images.

    Parameters have the names and shapes of diffusers' ``WanTransformer3DModel``, and outputs are the same. Independent
    images beside a clip are treated as clips of one frame.

    Args:
        num_layers: Number of blocks.
        num_heads: Attention heads; the width of the network is their number times ``head_channels``.
        head_channels: Width of an attention head, an even number of at least 6; 128 in published networks.
        hidden_channels: Width inside the feed-forward networks.
        in_channels: Channels of the latents.
        out_channels: Channels of the prediction. None for as many as the latents have.
        patch_size: Height and width of the patches of latents that are one token.
        text_channels: Width of the text tokens, 0 for a network without text.
        num_text_tokens: Number of tokens to which text is padded with zeros that are attended to, as in published
            networks (512). 0 for text of any length, whose padding is masked.
        vector_channels: Width of the vector condition (pooled text, class).
        vector_conditioned: Whether the vector condition is added to the embedding of the noise level. Otherwise it is
            ignored, as in published networks, and may hold the pooled text alone.
        frame_embedding: Whether an embedding of each frame's index is added to that of the noise level, as in the
            space-time U-Net. Without it, as in published networks, attention knows only how far frames lie apart. With
            it, motion is learned sooner.
        image_conditioned: Whether a first frame can be given, whose latents are concatenated to the channels.
        image_channels: Channels of that condition. None for one more than the latents have.
        image_token_channels: Width of the tokens of images that are attended to, 0 for none.
        num_image_tokens: Number of image tokens if they have learned positions, 0 if not.
    """

    def __init__(
        self,
        num_layers: NumLayers,
        num_heads: Heads,
        head_channels: Heads,
        hidden_channels: Width,
        in_channels: Width = 16,
        out_channels: Width | None = None,
        patch_size: Width = 2,
        text_channels: WidthOrZero = 4096,
        num_text_tokens: SizeOrZero = 0,
        vector_channels: SizeOrZero = 0,
        vector_conditioned: bool = False,
        frame_embedding: bool = False,
        image_conditioned: bool = False,
        image_channels: Width | None = None,
        image_token_channels: WidthOrZero = 0,
        num_image_tokens: SizeOrZero = 0,
    ) -> None:
        super().__init__()
        _check(num_heads, head_channels)
        if not vector_conditioned and vector_channels > text_channels:
            raise ValueError("vector_conditioned=false: model.conditioner must have no classes or crops")
        channels = num_heads * head_channels
        self.num_heads, self.head_channels, self.hidden_channels = num_heads, head_channels, hidden_channels
        self.in_channels, self.patch_size, self.vector_conditioned = in_channels, patch_size, vector_conditioned
        self.text_channels, self.num_text_tokens = text_channels, num_text_tokens
        self.image_channels = (image_channels or in_channels + 1) if image_conditioned else 0
        self.image_token_channels, self.num_image_tokens = image_token_channels, num_image_tokens
        self.frame_multiple = patch_size

        self.patch_embedding = PatchEmbedding(in_channels + self.image_channels, channels, patch_size)
        self.condition_embedder = ConditionEmbedder(channels, text_channels, image_token_channels, num_image_tokens)
        self.embed_vector = nn.Linear(vector_channels, channels) if vector_conditioned and vector_channels else None
        self.embed_frame = NumberEmbedding(channels) if frame_embedding else None
        has_text, has_images = text_channels > 0, image_token_channels > 0
        self.blocks = nn.ModuleList(
            [TransformerBlock(channels, num_heads, hidden_channels, has_text, has_images) for _ in range(num_layers)]
        )
        self.proj_out = nn.Linear(channels, (out_channels or in_channels) * patch_size**2)
        self.scale_shift_table = nn.Parameter(torch.randn(1, 2, channels) / channels**0.5)
        self._initialize()

    def forward(
        self,
        xt: Float[Tensor, "b c t h w"],
        c_noise: Float[Tensor, "b *frames"],
        condition: Conditioning,
        num_images: int = 0,
    ) -> Float[Tensor, "b c_out t h w"]:
        """Return the raw prediction.

        Args:
            xt: Noised latents; height and width are multiples of ``patch_size``.
            c_noise: Noise level of each clip, or of each frame: 1000 sigma in published networks.
            condition: The conditions. Those that the network was built without are ignored.
            num_images: How many of the last frames are independent images.

        Raises:
            ValueError: If the patch size does not divide height or width, or text has another width or is too long.
        """
        for name, size in (("height", xt.shape[-2]), ("width", xt.shape[-1])):
            if size % self.patch_size:
                raise ValueError(f"{name} of the latents must be a multiple of {self.patch_size}, but is {size}")
        x = self.patch_embedding(self._with_image(xt, condition).to(self.patch_embedding.weight.dtype))
        embedding, modulation = self.condition_embedder(c_noise, self._vector(condition, xt.shape[2], num_images))
        conditioning = self._conditioning(x, modulation, condition, num_images)
        for block in self.blocks:
            x = block(x, conditioning)

        shift, scale = rearrange(self.scale_shift_table + wide(embedding)[:, :, None], "b t n c -> n b t 1 1 c")
        (x,) = linears_of_modulated_norm(x, shift, scale, EPS, [self.proj_out])
        return rearrange(x, "b t h w (p q c) -> b c t (h p) (w q)", p=self.patch_size, q=self.patch_size)

    def blocks_by_level(self) -> list[tuple[int, nn.Module]]:
        """Return each block in the order in which they run, with its level; a transformer has only level 0."""
        return [(0, block) for block in self.blocks]

    def _initialize(self) -> None:
        """Initialize weights for training from scratch, as Wan does; the first prediction is zero."""
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
        nn.init.xavier_uniform_(self.patch_embedding.weight.flatten(1))
        embedder = self.condition_embedder
        for mlp in (embedder.time_embedder, embedder.text_embedder):
            if mlp is not None:
                nn.init.normal_(mlp.linear_1.weight, std=0.02)
                nn.init.normal_(mlp.linear_2.weight, std=0.02)
        zeroed(self.proj_out)

    def _with_image(self, xt: Float[Tensor, "b c t h w"], condition: Conditioning) -> Float[Tensor, "b c2 t h w"]:
        """Concatenate the latents of the first frame, or zeros, to the channels."""
        if not self.image_channels:
            return xt
        given = condition.image
        if given is None:
            given = xt.new_zeros(xt.shape[0], self.image_channels, *xt.shape[2:])
        return torch.cat([xt, given.to(xt.dtype)], dim=1)

    def _vector(
        self, condition: Conditioning, num_frames: int, num_images: int
    ) -> Float[Tensor, "b_or_1 t_or_1 c"] | None:
        """Return what is added to the embedding of the noise level: of pooled text, class and frames."""
        embedded = None
        if self.embed_vector is not None and condition.vector is not None:
            vector = condition.vector if condition.vector.ndim == 3 else condition.vector[:, None]
            embedded = self.embed_vector(vector)
        if self.embed_frame is not None:
            frames = embedding_in_clip(self.embed_frame, num_frames, num_images)
            embedded = frames if embedded is None else embedded + frames
        return embedded

    def _conditioning(
        self, x: Activations, modulation: Float[Tensor, "b t_or_1 n c"], condition: Conditioning, num_images: int
    ) -> TokenConditioning:
        (_, t, h, w, _), dtype = x.shape, self.proj_out.weight.dtype
        frames = torch.arange(t, device=x.device)
        # Independent images stand at the start of a clip of their own.
        frames = torch.where(frames < t - num_images, frames, 0)
        text, mask = self._text(condition)
        embed_text, embed_image = self.condition_embedder.text_embedder, self.condition_embedder.image_embedder
        image = condition.extra.get(IMAGE_TOKENS)
        return TokenConditioning(
            modulation=wide(modulation),
            rotation=rotation_of_tokens(frames, h, w, self.head_channels),
            text=None if text is None or embed_text is None else embed_text(text.to(dtype)),
            text_bias=None if mask is None else mask_bias(mask, x.dtype),
            image=None if image is None or embed_image is None else embed_image(image.to(dtype)),
            num_images=num_images,
        )

    def _text(self, condition: Conditioning) -> tuple[Tokens | None, Bool[Tensor, "b *t l"] | None]:
        """Return the text tokens, and the mask of those to attend to; None for all."""
        text, mask = condition.text, condition.text_mask
        if not self.text_channels:
            return None, None
        if text is None or text.shape[-1] != self.text_channels:
            found = "there is no text" if text is None else f"tokens are {text.shape[-1]} wide"
            raise ValueError(f"text_channels={self.text_channels}: {found}")
        if not self.num_text_tokens:
            return text, mask
        if text.shape[-2] > self.num_text_tokens:
            raise ValueError(f"num_text_tokens={self.num_text_tokens}: a text has {text.shape[-2]} tokens")
        if mask is not None:
            text = text * mask[..., None]
        return F.pad(text, (0, 0, 0, self.num_text_tokens - text.shape[-2])), None


def _check(num_heads: int, head_channels: int) -> None:
    if num_heads < 1:
        raise ValueError(f"num_heads must be at least 1, but is {num_heads}")
    if head_channels % 2 or head_channels < 6:
        raise ValueError(f"head_channels must be an even number of at least 6, but is {head_channels}")
