"""The text-to-video U-Net of ModelScope (Wang et al. 2023, "ModelScope Text-to-Video Technical Report")."""

from collections.abc import Sequence

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vdm.models.attention import mask_bias
from vdm.models.blocks import FrameNorm, SpatialConv
from vdm.models.diffusers_layers import BlockConditioning, SpatialResidual
from vdm.models.embeddings import EmbeddingMLP, sinusoids
from vdm.models.modelscope.layers import SpatialTransformer, TemporalConvs, TemporalTransformer
from vdm.models.normalized_conv import convolve_normalized
from vdm.models.unet_stages import Stage, blocks_with_levels, check_levels, down_stages, run_stages, up_stages
from vdm.ranges import Levels, NumLayers, ShareBelowOne, SizeOrZero, Width, WidthOfLevels, WidthOrZero
from vdm.types import Conditioning

_HEADS_AT_ENTRANCE = 8
"""Number of attention heads of the transformer before the first level."""


class ModelScopeUNet(nn.Module):
    """U-Net conditioned on text.

    Parameters have the names and shapes of diffusers' ``UNet3DConditionModel``, and outputs are the same. The defaults
    are those of text-to-video-ms-1.7b and of Zeroscope (1,411,233,860 parameters). Independent images beside a clip are
    treated as clips of one frame.

    Args:
        channels: Width of each level, from the full resolution down; multiples of 32.
        in_channels: Channels of the latents.
        num_blocks: Residual blocks a level on the way down; one more on the way up.
        attention_levels: Levels (0 is the full resolution) with transformers.
        head_channels: Width of an attention head; divides the width of each level.
        text_channels: Width of the text tokens.
        temporal_dropout: Dropout probability in convolutions over time.
        vector_channels: Width of the vector condition, which is ignored and may hold the pooled text alone.
        image_conditioned: Must be false.
    """

    def __init__(
        self,
        channels: WidthOfLevels = (320, 640, 1280, 1280),
        in_channels: Width = 4,
        num_blocks: NumLayers = 2,
        attention_levels: Levels = (0, 1, 2),
        head_channels: Width = 64,
        text_channels: WidthOrZero = 1024,
        temporal_dropout: ShareBelowOne = 0.1,
        vector_channels: SizeOrZero = 0,
        image_conditioned: bool = False,
    ) -> None:
        super().__init__()
        if image_conditioned or vector_channels > text_channels:
            raise ValueError("is conditioned on text alone: model.conditioner must have no image, classes or crops")
        _check(channels, in_channels, num_blocks, attention_levels, head_channels, text_channels, temporal_dropout)
        self.channels, self.in_channels, self.num_blocks = tuple(channels), in_channels, num_blocks
        self.attention_levels, self.head_channels = tuple(attention_levels), head_channels
        self.text_channels, self.temporal_dropout = text_channels, temporal_dropout
        embedding = 4 * channels[0]

        self.conv_in = SpatialConv(in_channels, channels[0])
        self.time_embedding = EmbeddingMLP(channels[0], embedding, embedding)
        self.transformer_in = TemporalTransformer(channels[0], _HEADS_AT_ENTRANCE, head_channels)

        self.down_blocks = down_stages(channels, num_blocks, self._stage)
        last = len(channels) - 1
        self.mid_block = self._make_stage(last, [channels[-1]] * 2, num_transformers=1)
        self.up_blocks = up_stages(channels, num_blocks, self._stage)

        self.conv_norm_out = FrameNorm(channels[0])
        self.conv_out = SpatialConv(channels[0], in_channels)

    def forward(
        self,
        xt: Float[Tensor, "b c t h w"],
        c_noise: Float[Tensor, "b *frames"],
        condition: Conditioning,
        num_images: int = 0,
    ) -> Float[Tensor, "b c t h w"]:
        """Return the raw prediction.

        Args:
            xt: Noised latents, of any height and width.
            c_noise: Timestep of each clip, or of each frame, counted from 0.
            condition: ``text`` holds the tokens; ``text_mask`` is False for padding.
            num_images: How many of the last frames are independent images.

        Raises:
            ValueError: If there is no text, or the width of its tokens is not ``text_channels``.
        """
        conditioning = self._conditioning(c_noise, condition, num_images)
        x = self.conv_in(rearrange(xt, "b c t h w -> b t h w c").contiguous().to(self.conv_in.weight.dtype))
        x = self.transformer_in(x, conditioning)
        x = run_stages(x, conditioning, self.down_blocks, self.mid_block, self.up_blocks)
        return rearrange(convolve_normalized(x, self.conv_norm_out, self.conv_out), "b t h w c -> b c t h w")

    def blocks_by_level(self) -> list[tuple[int, nn.Module]]:
        """Return each block with its level, in the order in which they run."""
        return [(0, self.transformer_in), *blocks_with_levels(self.down_blocks, self.mid_block, self.up_blocks)]

    def _stage(self, level: int, inputs: Sequence[int]) -> Stage:
        return self._make_stage(level, inputs, len(inputs) if level in self.attention_levels else 0)

    def _make_stage(self, level: int, inputs: Sequence[int], num_transformers: int) -> Stage:
        width, head_channels, count = self.channels[level], self.head_channels, range(num_transformers)
        embedding, heads = 4 * self.channels[0], width // head_channels
        return Stage(
            resnets=[SpatialResidual(entrance, width, embedding, eps=1e-5) for entrance in inputs],
            temp_convs=[TemporalConvs(width, self.temporal_dropout) for _ in inputs],
            attentions=[SpatialTransformer(width, heads, self.text_channels) for _ in count],
            temp_attentions=[TemporalTransformer(width, heads, head_channels) for _ in count],
        )

    def _conditioning(
        self, c_noise: Float[Tensor, "b *frames"], condition: Conditioning, num_images: int
    ) -> BlockConditioning:
        dtype, tokens, mask = self.conv_in.weight.dtype, condition.text, condition.text_mask
        if tokens is None or tokens.shape[-1] != self.text_channels:
            found = "there is no text" if tokens is None else f"tokens are {tokens.shape[-1]} wide"
            raise ValueError(f"text_channels={self.text_channels}: {found}")
        embedding = F.silu(self.time_embedding(sinusoids(c_noise.flatten(), self.channels[0])))
        embedding = embedding.unflatten(0, c_noise.shape)
        bias = None if mask is None or mask.all() else mask_bias(mask, dtype)
        return BlockConditioning(embedding, tokens.to(dtype), context_bias=bias, num_images=num_images)


def _check(
    channels: Sequence[int],
    in_channels: int,
    num_blocks: int,
    attention_levels: Sequence[int],
    head_channels: int,
    text_channels: int,
    temporal_dropout: float,
) -> None:
    check_levels(channels, attention_levels)
    counts = {"in_channels": in_channels, "num_blocks": num_blocks, "head_channels": head_channels}
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, but is {value}")
    if text_channels < 1:
        raise ValueError("text_channels must be at least 1: choose a text encoder, such as text_encoder=bytes")
    uneven = [width for width in channels if width % head_channels]
    if uneven:
        raise ValueError(f"head_channels must divide each width, but {head_channels} does not divide {uneven[0]}")
    if not 0 <= temporal_dropout < 1:
        raise ValueError(f"temporal_dropout must lie between 0 and 1, but is {temporal_dropout}")
