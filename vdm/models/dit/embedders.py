"""Embedders of the space-time transformer: of patches, of the noise level, of text and image tokens.

Parameters have the names and shapes of diffusers' ``WanTransformer3DModel``.
"""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vdm.models.dit.layers import UngatedFeedForward, WideLayerNorm
from vdm.models.embeddings import EmbeddingMLP, sinusoids

NUM_SINUSOIDS = 256
"""Sines and cosines of a noise level."""


class PatchEmbedding(nn.Conv3d):
    """Embeds square patches of each frame; a convolution that does not overlap, computed as a matrix product."""

    def __init__(self, in_channels: int, out_channels: int, patch_size: int) -> None:
        size = (1, patch_size, patch_size)
        super().__init__(in_channels, out_channels, kernel_size=size, stride=size)

    def forward(self, input: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b t h2 w2 d"]:
        """Return one token a patch."""
        _, _, _, p, q = self.weight.shape
        patches = rearrange(input, "b c t (h p) (w q) -> b t h w (c p q)", p=p, q=q)
        return F.linear(patches, rearrange(self.weight, "d c 1 p q -> d (c p q)"), self.bias)


class TextMLP(nn.Module):
    """Two linear layers with GELU between them; embeds text tokens."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(in_channels, channels)
        self.linear_2 = nn.Linear(channels, channels)

    def forward(self, x: Float[Tensor, "*b e"]) -> Float[Tensor, "*b c"]:
        """Embed each token."""
        return self.linear_2(F.gelu(self.linear_1(x), approximate="tanh"))


class ImageMLP(nn.Module):
    """A normalized feed-forward network; embeds the tokens of the images that a clip is conditioned on.

    Args:
        in_channels: Width of the tokens.
        channels: Width of the embedding.
        num_positions: Number of tokens that have learned positions, as where first and last frame are given; 0 for
            tokens without positions.
    """

    def __init__(self, in_channels: int, channels: int, num_positions: int) -> None:
        super().__init__()
        self.pos_embed = nn.Parameter(torch.zeros(1, num_positions, in_channels)) if num_positions else None
        self.norm1 = WideLayerNorm(in_channels)
        self.ff = UngatedFeedForward(in_channels, in_channels, channels, approximate="none")
        self.norm2 = WideLayerNorm(channels)

    def forward(self, tokens: Float[Tensor, "b l e"]) -> Float[Tensor, "b l c"]:
        """Embed each token."""
        if self.pos_embed is not None:
            tokens = tokens + self.pos_embed
        embedded = self.ff(self.norm1(tokens).to(tokens.dtype))
        return self.norm2(embedded).to(embedded.dtype)


class ConditionEmbedder(nn.Module):
    """Embeds noise levels, text and images.

    Args:
        channels: Width.
        text_channels: Width of the text tokens, 0 for none.
        image_token_channels: Width of the image tokens, 0 for none.
        num_image_tokens: Number of image tokens with learned positions, 0 for none.
    """

    def __init__(self, channels: int, text_channels: int, image_token_channels: int, num_image_tokens: int) -> None:
        super().__init__()
        self.time_embedder = EmbeddingMLP(NUM_SINUSOIDS, channels, channels)
        self.time_proj = nn.Linear(channels, 6 * channels)
        self.text_embedder = TextMLP(text_channels, channels) if text_channels else None
        self.image_embedder = (
            ImageMLP(image_token_channels, channels, num_image_tokens) if image_token_channels else None
        )

    def forward(
        self, c_noise: Float[Tensor, "b *frames"], vector: Float[Tensor, "b_or_1 t2_or_1 c"] | None = None
    ) -> tuple[Float[Tensor, "b t_or_1 c"], Float[Tensor, "b t_or_1 six c"]]:
        """Embed the noise level of each clip or frame.

        Args:
            c_noise: Noise levels.
            vector: Embedding of further conditions, which is added.

        Returns:
            The embedding, and the modulations of the blocks that follow from it.
        """
        levels = c_noise[:, None] if c_noise.ndim == 1 else c_noise
        # In bf16, levels that sampling tells apart would have the same embedding.
        with torch.autocast(c_noise.device.type, enabled=False):
            embedding = self.time_embedder(sinusoids(levels.flatten(), NUM_SINUSOIDS)).unflatten(0, levels.shape)
            if vector is not None:
                embedding = embedding + vector.to(embedding.dtype)
            modulation = self.time_proj(F.silu(embedding))
        return embedding, rearrange(modulation, "b t (n c) -> b t n c", n=6)
