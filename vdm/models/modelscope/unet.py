"""The text-to-video U-Net of ModelScope (Wang et al. 2023, "ModelScope Text-to-Video Technical Report")."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import zip_longest
from typing import cast

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vdm.models.attention import Activations, mask_bias
from vdm.models.blocks import FrameNorm, SpatialConv, Upsample
from vdm.models.modelscope.layers import SpatialTransformer, TemporalConvs, TemporalTransformer, TextGuide
from vdm.models.svd.layers import EmbeddingMLP, SpatialResidual, sinusoids
from vdm.models.svd.unet import Downsample
from vdm.ranges import Levels, NumLayers, ShareBelowOne, SizeOrZero, Width, WidthOfLevels, WidthOrZero
from vdm.types import Conditioning

_HEADS_AT_ENTRANCE = 8
"""Of the transformer before the first level, whose inner width is theirs whatever the level's."""


class Stage(nn.Module):
    """Layers of one resolution: a residual block and convolutions over time, then two transformers where there are any.

    Args:
        inputs: Width at the entrance of each residual block.
        channels: Width.
        embedding_channels: Width of the noise level's embedding.
        num_transformers: After how many of the residual blocks there are transformers.
        head_channels: Width of an attention head.
        text_channels: Width of the text's tokens.
        temporal_dropout: Of the convolutions over time.
    """

    def __init__(
        self,
        inputs: Sequence[int],
        channels: int,
        embedding_channels: int,
        num_transformers: int,
        head_channels: int,
        text_channels: int,
        temporal_dropout: float,
    ) -> None:
        super().__init__()
        num_heads = channels // head_channels
        self.resnets = nn.ModuleList(
            SpatialResidual(entrance, channels, embedding_channels, eps=1e-5) for entrance in inputs
        )
        self.temp_convs = nn.ModuleList(TemporalConvs(channels, temporal_dropout) for _ in inputs)
        self.attentions = nn.ModuleList(
            SpatialTransformer(channels, num_heads, text_channels) for _ in range(num_transformers)
        )
        self.temp_attentions = nn.ModuleList(
            TemporalTransformer(channels, num_heads, head_channels) for _ in range(num_transformers)
        )
        # At most one of either, behind the layers.
        self.downsamplers = nn.ModuleList()
        self.upsamplers = nn.ModuleList()

    def layers(self) -> Iterator[Callable[[Activations, TextGuide], Activations]]:
        """Yield what belongs to each residual block, that block included."""
        for parts in zip_longest(self.resnets, self.temp_convs, self.attentions, self.temp_attentions):
            yield partial(_in_turn, [part for part in parts if part is not None])

    def parts(self) -> Iterator[nn.Module]:
        """Yield the modules that hold most weights."""
        for modules in (self.resnets, self.temp_convs, self.attentions, self.temp_attentions):
            yield from modules


def _in_turn(modules: Iterable[nn.Module], x: Activations, guide: TextGuide) -> Float[Tensor, "b t h w c2"]:
    for module in modules:
        x = module(x, guide.embedding) if isinstance(module, SpatialResidual) else module(x, guide)
    return x


class ModelScopeUNet(nn.Module):
    """Predicts from noised latents, guided by text.

    Parameters have the names and shapes of diffusers' ``UNet3DConditionModel``, whose outputs it gives. The defaults
    are those of text-to-video-ms-1.7b and of Zeroscope (1,411,233,860 parameters). An independent image beside a clip
    is a clip of one frame to it.

    Args:
        channels: Width of each level, from the full resolution down; multiples of 32.
        in_channels: Channels of the latents.
        num_blocks: Residual blocks a level on the way down; one more on the way up.
        attention_levels: Levels (0 is the full resolution) with transformers.
        head_channels: Width of an attention head; divides the width of each level.
        text_channels: Width of the text's tokens.
        temporal_dropout: Share of activations dropped in training by convolutions over time.
        vector_channels: Width of the vector condition, which must not hold more than pooled text.
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
            raise ValueError("is guided by text alone: model.conditioner must have no image, classes or crops")
        _check(channels, in_channels, num_blocks, attention_levels, head_channels, text_channels, temporal_dropout)
        self.channels, self.in_channels, self.num_blocks = tuple(channels), in_channels, num_blocks
        self.attention_levels, self.head_channels = tuple(attention_levels), head_channels
        self.text_channels, self.temporal_dropout = text_channels, temporal_dropout
        embedding = 4 * channels[0]

        self.conv_in = SpatialConv(in_channels, channels[0])
        self.time_embedding = EmbeddingMLP(channels[0], embedding, embedding)
        self.transformer_in = TemporalTransformer(channels[0], _HEADS_AT_ENTRANCE, head_channels)

        widths = [channels[0]]
        self.down_blocks = nn.ModuleList()
        for level, width in enumerate(channels):
            stage = self._stage(level, [widths[-1], *[width] * (num_blocks - 1)])
            widths += [width] * num_blocks
            if level < len(channels) - 1:
                stage.downsamplers.append(Downsample(width))
                widths.append(width)
            self.down_blocks.append(stage)

        deepest = channels[-1]
        self.mid_block = Stage([deepest] * 2, deepest, embedding, 1, head_channels, text_channels, temporal_dropout)

        self.up_blocks = nn.ModuleList()
        below = deepest
        for level in reversed(range(len(channels))):
            stage = self._stage(level, [width + widths.pop() for width in (below, *[channels[level]] * num_blocks)])
            if level > 0:
                stage.upsamplers.append(Upsample(channels[level], channels[level]))
            self.up_blocks.append(stage)
            below = channels[level]
        assert not widths, "every skip connection has one block"

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
            xt: Noised latents; of any height and width.
            c_noise: Timestep of each clip, or of each frame, counted from 0.
            condition: ``text`` holds the tokens, ``text_mask`` which of them are real.
            num_images: How many of the last frames are independent images.

        Raises:
            ValueError: If there is no text, or its tokens have another width.
        """
        guide = self._guide(c_noise, condition, num_images)
        x = self.conv_in(rearrange(xt, "b c t h w -> b t h w c").contiguous().to(self.conv_in.weight.dtype))
        x = self.transformer_in(x, guide)
        skips = [x]
        for stage in cast(Iterable[Stage], self.down_blocks):
            for layer in stage.layers():
                x = layer(x, guide)
                skips.append(x)
            for downsample in stage.downsamplers:
                x = downsample(x)
                skips.append(x)
        for layer in self.mid_block.layers():
            x = layer(x, guide)
        for stage in cast(Iterable[Stage], self.up_blocks):
            for layer in stage.layers():
                x = layer(torch.cat([x, skips.pop()], dim=-1), guide)
            for upsample in stage.upsamplers:
                x = upsample(x, size=skips[-1].shape[2:4])
        return rearrange(self.conv_out(F.silu(self.conv_norm_out(x))), "b t h w c -> b c t h w")

    def blocks(self) -> list[tuple[int, nn.Module]]:
        """Return each block with its level, in the order in which they run."""
        last = len(self.channels) - 1
        down, up = (list(cast(Iterable[Stage], stages)) for stages in (self.down_blocks, self.up_blocks))
        stages = [*enumerate(down), (last, self.mid_block), *((last - place, stage) for place, stage in enumerate(up))]
        return [(0, self.transformer_in), *((level, block) for level, stage in stages for block in stage.parts())]

    def _stage(self, level: int, inputs: Sequence[int]) -> Stage:
        return Stage(
            inputs,
            self.channels[level],
            4 * self.channels[0],
            len(inputs) if level in self.attention_levels else 0,
            self.head_channels,
            self.text_channels,
            self.temporal_dropout,
        )

    def _guide(self, c_noise: Float[Tensor, "b *frames"], condition: Conditioning, num_images: int) -> TextGuide:
        dtype, tokens, mask = self.conv_in.weight.dtype, condition.text, condition.text_mask
        if tokens is None or tokens.shape[-1] != self.text_channels:
            found = "there is no text" if tokens is None else f"tokens are {tokens.shape[-1]} wide"
            raise ValueError(f"text_channels={self.text_channels}: {found}")
        embedding = F.silu(self.time_embedding(sinusoids(c_noise.flatten(), self.channels[0])))
        embedding = embedding.unflatten(0, c_noise.shape)
        hidden = None if mask is None or mask.all() else mask_bias(mask, dtype)
        return TextGuide(embedding, tokens.to(dtype), hidden, num_images)


def _check(
    channels: Sequence[int],
    in_channels: int,
    num_blocks: int,
    attention_levels: Sequence[int],
    head_channels: int,
    text_channels: int,
    temporal_dropout: float,
) -> None:
    if not channels or any(width < 1 or width % 32 for width in channels):
        raise ValueError(f"channels must be one multiple of 32 a level, but is {list(channels)}")
    counts = {"in_channels": in_channels, "num_blocks": num_blocks, "head_channels": head_channels}
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, but is {value}")
    if text_channels < 1:
        raise ValueError("text_channels must be at least 1: choose a text encoder, such as text_encoder=bytes")
    uneven = [width for width in channels if width % head_channels]
    if uneven:
        raise ValueError(f"head_channels must divide each width, but {head_channels} does not divide {uneven[0]}")
    outside = [level for level in attention_levels if not 0 <= level < len(channels)]
    if outside:
        raise ValueError(f"attention_levels must lie between 0 and {len(channels) - 1}, but has {outside}")
    if not 0 <= temporal_dropout < 1:
        raise ValueError(f"temporal_dropout must lie between 0 and 1, but is {temporal_dropout}")
