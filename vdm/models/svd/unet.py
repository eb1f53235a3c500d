"""The spatio-temporal U-Net of Stable Video Diffusion (Blattmann et al. 2023)."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import zip_longest
from typing import Annotated, cast

import torch
from annotated_types import Interval
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vdm.models.attention import Activations
from vdm.models.blocks import FrameNorm, SpatialConv, Upsample
from vdm.models.svd.layers import (
    EmbeddingMLP,
    Guide,
    SpatioTemporalResidual,
    SpatioTemporalTransformer,
    freeze_unused_by_one_token,
    sinusoids,
)
from vdm.ranges import Levels, NumLayers, Width, WidthOfLevels
from vdm.types import Conditioning

ADDED_TIME_IDS = "added_time_ids"
"""Name in ``Conditioning.extra`` of a clip's numbers: frames per second less one, motion bucket, augmentation level."""
IMAGE_ONLY_INDICATOR = "image_only_indicator"
"""Name in ``Conditioning.extra`` of a mask ``b t``, True where a frame is an image without neighbours in time."""


class Downsample(nn.Module):
    """Halves height and width by a convolution of stride 2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = SpatialConv(channels, channels, stride=2)

    def forward(self, x: Activations) -> Float[Tensor, "b t h2 w2 c"]:
        """Halve height and width, rounding up."""
        return self.conv(x)


class Stage(nn.Module):
    """Residual blocks of one resolution, each followed by a transformer as long as there are any."""

    def __init__(self, resnets: Sequence[nn.Module], attentions: Sequence[nn.Module]) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(resnets)
        self.attentions = nn.ModuleList(attentions)
        # At most one of either, behind the layers.
        self.downsamplers = nn.ModuleList()
        self.upsamplers = nn.ModuleList()

    def layers(self) -> Iterator[Callable[[Activations, Guide], Activations]]:
        """Yield each residual block together with its transformer."""
        for resnet, attention in zip_longest(self.resnets, self.attentions):
            yield resnet if attention is None else partial(_in_turn, resnet, attention)

    def parts(self) -> list[nn.Module]:
        """Return residual blocks and transformers in the order in which they run."""
        pairs = zip_longest(self.resnets, self.attentions)
        return [part for pair in pairs for part in pair if part is not None]


def _in_turn(first: nn.Module, second: nn.Module, x: Activations, guide: Guide) -> Float[Tensor, "b t h w c2"]:
    return second(first(x, guide), guide)


class SVDUNet(nn.Module):
    """Predicts from noised latents, guided by an image: its latents beside every frame, and one token of it.

    Parameters have the names and shapes of diffusers' ``UNetSpatioTemporalConditionModel``, whose outputs it gives. The
    defaults are the published model's (1,524,623,082 parameters), img2vid and img2vid-xt alike.

    Args:
        channels: Width of each level, from the full resolution down; multiples of 32.
        in_channels: Channels of the latents, and of the image's latents beside them.
        num_heads: Attention heads of each level; divides the level's width.
        num_blocks: Residual blocks a level on the way down; one more on the way up.
        attention_levels: Levels (0 is the full resolution) with transformers.
        transformer_layers: Pairs of a spatial and a temporal block in each transformer.
        context_channels: Width of the image's token.
        time_id_channels: Sinusoids of each added number.
        num_time_ids: How many numbers a clip is conditioned on.
        one_token: The context is a single token. What that leaves unused (queries, keys, the norm before them) is
            frozen.
    """

    def __init__(
        self,
        channels: WidthOfLevels = (320, 640, 1280, 1280),
        in_channels: Width = 4,
        num_heads: WidthOfLevels = (5, 10, 20, 20),
        num_blocks: NumLayers = 2,
        attention_levels: Levels = (0, 1, 2),
        transformer_layers: NumLayers = 1,
        context_channels: Width = 1024,
        time_id_channels: Width = 256,
        num_time_ids: Annotated[int, Interval(ge=1, le=64)] = 3,
        one_token: bool = True,
    ) -> None:
        super().__init__()
        _check(channels, num_heads, attention_levels)
        counts = {"in_channels": in_channels, "num_blocks": num_blocks, "transformer_layers": transformer_layers}
        counts |= {"context_channels": context_channels, "num_time_ids": num_time_ids}
        for name, value in counts.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, but is {value}")
        if time_id_channels < 2 or time_id_channels % 2:
            raise ValueError(f"time_id_channels must be even, cosine and sine, but is {time_id_channels}")
        self.channels, self.in_channels, self.num_heads = tuple(channels), in_channels, tuple(num_heads)
        self.num_blocks, self.attention_levels = num_blocks, tuple(attention_levels)
        self.transformer_layers, self.context_channels = transformer_layers, context_channels
        self.time_id_channels, self.num_time_ids = time_id_channels, num_time_ids
        embedding = 4 * channels[0]

        self.conv_in = SpatialConv(2 * in_channels, channels[0])
        self.time_embedding = EmbeddingMLP(channels[0], embedding, embedding)
        self.add_embedding = EmbeddingMLP(num_time_ids * time_id_channels, embedding, embedding)

        widths = [channels[0]]
        self.down_blocks = nn.ModuleList()
        for level, width in enumerate(channels):
            # The published weights were trained with these constants, one for levels with and one without attention.
            eps = 1e-6 if level in attention_levels else 1e-5
            inputs = [widths[-1], *[width] * (num_blocks - 1)]
            stage = self._stage(level, inputs, eps)
            widths += [width] * num_blocks
            if level < len(channels) - 1:
                stage.downsamplers.append(Downsample(width))
                widths.append(width)
            self.down_blocks.append(stage)

        deepest = channels[-1]
        self.mid_block = Stage(
            [SpatioTemporalResidual(deepest, deepest, embedding, eps=1e-5) for _ in range(2)],
            [SpatioTemporalTransformer(deepest, num_heads[-1], context_channels, transformer_layers)],
        )

        self.up_blocks = nn.ModuleList()
        below = deepest
        for level in reversed(range(len(channels))):
            inputs = [width + widths.pop() for width in (below, *[channels[level]] * num_blocks)]
            stage = self._stage(level, inputs, eps=1e-6)
            if level > 0:
                stage.upsamplers.append(Upsample(channels[level], channels[level]))
            self.up_blocks.append(stage)
            below = channels[level]
        assert not widths, "every skip connection has one block"

        self.conv_norm_out = FrameNorm(channels[0])
        self.conv_out = SpatialConv(channels[0], in_channels)
        if one_token:
            freeze_unused_by_one_token(self)

    def forward(
        self,
        xt: Float[Tensor, "b c t h w"],
        c_noise: Float[Tensor, "b *frames"],
        condition: Conditioning,
        num_images: int = 0,
    ) -> Float[Tensor, "b c t h w"]:
        """Return the raw prediction.

        Args:
            xt: Noised latents, scaled by ``c_in``; of any height and width.
            c_noise: A quarter of the logarithm of the noise level of each clip, or of each frame.
            condition: ``text`` holds the image's token, ``image`` its latents for every frame (zeros where they are
                none), ``extra`` the numbers ``added_time_ids`` (b, num_time_ids), and may hold ``image_only_indicator``
                (b, t), which keeps the temporal layers' output from the frames it marks.
            num_images: How many of the last frames are independent images, which the temporal layers don't see at all.

        Raises:
            ValueError: If ``added_time_ids`` are missing or of another number.
        """
        dtype = self.conv_in.weight.dtype
        guide = self._guide(c_noise, condition, xt.shape[2] - num_images, num_images)
        x = self.conv_in(self._tokens(xt, condition).to(dtype))
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
        """Return each residual block and each transformer with its level, in the order in which they run."""
        last = len(self.channels) - 1
        down, up = (list(cast(Iterable[Stage], stages)) for stages in (self.down_blocks, self.up_blocks))
        stages = [*enumerate(down), (last, self.mid_block), *((last - place, stage) for place, stage in enumerate(up))]
        return [(level, part) for level, stage in stages for part in stage.parts()]

    def _stage(self, level: int, inputs: Sequence[int], eps: float) -> Stage:
        width, embedding = self.channels[level], 4 * self.channels[0]
        return Stage(
            [SpatioTemporalResidual(entrance, width, embedding, eps) for entrance in inputs],
            [
                SpatioTemporalTransformer(width, self.num_heads[level], self.context_channels, self.transformer_layers)
                for _ in inputs
                if level in self.attention_levels
            ],
        )

    def _guide(
        self, c_noise: Float[Tensor, "b *frames"], condition: Conditioning, num_clip_frames: int, num_images: int
    ) -> Guide:
        dtype = self.conv_in.weight.dtype
        context, is_image = condition.text, condition.extra.get(IMAGE_ONLY_INDICATOR)
        if context is None:
            context = torch.zeros(len(c_noise), 1, self.context_channels, device=c_noise.device)
        if context.shape[-1] != self.context_channels:
            raise ValueError(f"context_channels={self.context_channels}: tokens are {context.shape[-1]} wide")
        is_image = None if is_image is None else is_image[:, :num_clip_frames].bool()
        return Guide(self._embedding(c_noise, condition), context.to(dtype), is_image, num_images)

    def _embedding(self, c_noise: Float[Tensor, "b *frames"], condition: Conditioning) -> Float[Tensor, "b *frames d"]:
        ids = condition.extra.get(ADDED_TIME_IDS)
        if ids is None or ids.shape != (len(c_noise), self.num_time_ids):
            found = "missing" if ids is None else f"of shape {list(ids.shape)}"
            raise ValueError(
                f"{ADDED_TIME_IDS} must be of shape [{len(c_noise)}, {self.num_time_ids}], but are {found}"
            )
        numbers = rearrange(sinusoids(ids.flatten(), self.time_id_channels), "(b n) d -> b (n d)", b=len(c_noise))
        added = self.add_embedding(numbers)
        if c_noise.ndim == 2:
            added = repeat(added, "b d -> (b t) d", t=c_noise.shape[1])
        embedding = F.silu(self.time_embedding(sinusoids(c_noise.flatten(), self.channels[0])) + added)
        return embedding.unflatten(0, c_noise.shape)

    @staticmethod
    def _tokens(xt: Float[Tensor, "b c t h w"], condition: Conditioning) -> Float[Tensor, "b t h w 2*c"]:
        image = torch.zeros_like(xt) if condition.image is None else condition.image.to(xt.dtype)
        return rearrange([xt, image], "n b c t h w -> b t h w (n c)").contiguous()


def _check(channels: Sequence[int], num_heads: Sequence[int], attention_levels: Sequence[int]) -> None:
    if not channels or any(width < 1 or width % 32 for width in channels):
        raise ValueError(f"channels must be one multiple of 32 a level, but is {list(channels)}")
    if len(num_heads) != len(channels):
        raise ValueError(f"num_heads must be one number a level ({len(channels)}), but is {list(num_heads)}")
    for width, heads in zip(channels, num_heads, strict=True):
        if heads < 1 or width % heads:
            raise ValueError(f"num_heads must divide each width, but {heads} does not divide {width}")
    outside = [level for level in attention_levels if not 0 <= level < len(channels)]
    if outside:
        raise ValueError(f"attention_levels must lie between 0 and {len(channels) - 1}, but has {outside}")
