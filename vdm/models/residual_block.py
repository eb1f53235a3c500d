"""Residual block of the space-time U-Net, on activations laid out as ``b t h w c``."""

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from vdm.models.attention import Activations, zeroed
from vdm.models.blocks import FrameNorm, SpatialConv
from vdm.models.normalized_conv import convolve_normalized


class ResidualBlock(nn.Module):
    """Residual block of two convolutions; the noise-level embedding scales and shifts the input of the second.

    Args:
        in_channels: Width of the input.
        out_channels: Width of the output.
        embedding_channels: Width of the embedding.
        dropout: Dropout probability.
    """

    def __init__(self, in_channels: int, out_channels: int, embedding_channels: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = FrameNorm(in_channels)
        self.conv1 = SpatialConv(in_channels, out_channels)
        self.modulation = nn.Linear(embedding_channels, 2 * out_channels)
        self.norm2 = FrameNorm(out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = zeroed(SpatialConv(out_channels, out_channels))
        self.skip = nn.Identity() if in_channels == out_channels else nn.Linear(in_channels, out_channels)

    def forward(self, x: Activations, embedding: Float[Tensor, "b t_or_1 d"]) -> Float[Tensor, "b t h w c2"]:
        """Apply the block; there is one embedding a clip, or one a frame."""
        scale, shift = rearrange(self.modulation(embedding), "b t (n c) -> n b t c", n=2)
        h = convolve_normalized(x, self.norm1, self.conv1)
        return convolve_normalized(
            h, self.norm2, self.conv2, residual=self.skip(x), modulation=(scale, shift), dropout=self.dropout
        )
