"""The space-time U-Net of "Video Diffusion Models" (Ho et al. 2022, section 3)."""

from collections.abc import Sequence
from typing import Annotated

import torch
from annotated_types import Interval
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vdm.models.attention import Activations, CrossAttention, SpatialAttention, TemporalAttention, zeroed
from vdm.models.blocks import FrameNorm, SpatialConv, Upsample
from vdm.models.embeddings import NumberEmbedding, embedding_in_clip
from vdm.models.normalized_conv import convolve_normalized
from vdm.models.residual_block import ResidualBlock
from vdm.ranges import Levels, NumLayers, ShareBelowOne, Size, SizeOrZero, Width, WidthOfLevels, WidthOrZero
from vdm.types import Conditioning


class SpaceTimeBlock(nn.Module):
    """One block of the U-Net: a residual block, then attention over space, to text, and over time.

    Args:
        in_channels: Width of the input.
        out_channels: Width of the output.
        network: The U-Net, whose options all blocks share.
        attention: Whether the block attends over space and to text.
        temporal: Whether the block attends over time.
    """

    def __init__(
        self, in_channels: int, out_channels: int, network: "SpaceTimeUNet", attention: bool, temporal: bool
    ) -> None:
        super().__init__()
        heads = network.head_channels
        self.residual = ResidualBlock(in_channels, out_channels, network.embedding_channels, network.dropout)
        self.spatial = SpatialAttention(out_channels, heads) if attention else None
        self.cross = (
            CrossAttention(out_channels, heads, network.text_channels) if network.text_channels and attention else None
        )
        self.temporal = TemporalAttention(out_channels, heads, network.max_distance) if temporal else None

    def forward(
        self, x: Activations, embedding: Float[Tensor, "b t_or_1 d"], condition: Conditioning, num_images: int
    ) -> Float[Tensor, "b t h w c2"]:
        """Apply the layers that the block has."""
        x = self.residual(x, embedding)
        if self.spatial is not None:
            x = self.spatial(x)
        if self.cross is not None and condition.text is not None:
            x = self.cross(x, condition.text, condition.text_mask)
        if self.temporal is not None:
            x = self.temporal(x, num_images)
        return x


class SpaceTimeUNet(nn.Module):
    """3-D U-Net factored over space and time, conditioned on noise level, text, class and first frame.

    Each level halves height and width. Its blocks are (1, 3, 3) convolutions with attention over space, to the text
    tokens, and over time with relative positions. Frames mix only in attention over time, where independent images
    that follow the clip's frames are masked, so that one network trains on videos and images together.

    Args:
        channels: Width of each level, from the full resolution down.
        in_channels: Channels of the latents.
        num_blocks: Residual blocks a level on the way down; one more on the way up.
        attention_levels: Levels (0 is the full resolution) with attention over space and to text.
        temporal_levels: Levels with attention over time.
        head_channels: Width of an attention head; divides the width of each level with attention.
        patch_size: Height and width of the patches of pixels that are folded into channels at the input; 1 for none.
        text_channels: Width of the text tokens, 0 for a network without text.
        vector_channels: Width of the vector condition (pooled text, class), 0 for none.
        image_conditioned: Whether a first frame can be given, whose latents are concatenated to the channels.
        max_distance: Relative positions are clipped to this distance in frames.
        frame_embedding: Whether blocks also get an embedding of each frame's index, as in Stable Video Diffusion
            (Blattmann et al. 2023). Without it, as in Ho et al. 2022, attention knows only distances between frames.
            With it, the direction of motion is learned sooner.
        dropout: Dropout probability in residual blocks.
        out_channels: Channels of the prediction. None for as many as the latents have.
    """

    def __init__(
        self,
        channels: WidthOfLevels,
        in_channels: Width = 3,
        num_blocks: NumLayers = 2,
        attention_levels: Levels = (),
        temporal_levels: Levels = (),
        head_channels: Width = 64,
        patch_size: Annotated[int, Interval(ge=1, le=64)] = 1,
        text_channels: WidthOrZero = 0,
        vector_channels: SizeOrZero = 0,
        image_conditioned: bool = False,
        max_distance: Size = 32,
        frame_embedding: bool = False,
        dropout: ShareBelowOne = 0.0,
        out_channels: Width | None = None,
    ) -> None:
        super().__init__()
        out_channels = in_channels if out_channels is None else out_channels
        _check_levels(channels, attention_levels, temporal_levels, head_channels)
        counts = {"in_channels": in_channels, "out_channels": out_channels, "num_blocks": num_blocks}
        for name, value in {**counts, "patch_size": patch_size, "max_distance": max_distance}.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, but is {value}")
        self.in_channels, self.patch_size, self.head_channels = in_channels, patch_size, head_channels
        self.text_channels, self.vector_channels, self.image_conditioned = (
            text_channels,
            vector_channels,
            image_conditioned,
        )
        self.max_distance, self.dropout = max_distance, dropout
        self.embedding_channels = 4 * channels[0]
        self.frame_multiple = patch_size * 2 ** (len(channels) - 1)

        entrance = (2 * in_channels + 1 if image_conditioned else in_channels) * patch_size**2
        self.embed_noise_level = NumberEmbedding(self.embedding_channels)
        self.embed_vector = nn.Linear(vector_channels, self.embedding_channels) if vector_channels else None
        self.embed_frame = NumberEmbedding(self.embedding_channels) if frame_embedding else None
        self.entrance = SpatialConv(entrance, channels[0])

        widths = [channels[0]]
        self.down = nn.ModuleList()
        for level, width in enumerate(channels):
            kinds = {"attention": level in attention_levels, "temporal": level in temporal_levels}
            if level > 0:
                self.down.append(SpatialConv(widths[-1], widths[-1], stride=2))
                widths.append(widths[-1])
            for _ in range(num_blocks):
                self.down.append(SpaceTimeBlock(widths[-1], width, self, **kinds))
                widths.append(width)

        self.middle = SpaceTimeBlock(channels[-1], channels[-1], self, attention=True, temporal=True)

        self.up = nn.ModuleList()
        current = channels[-1]
        for level, width in reversed(list(enumerate(channels))):
            kinds = {"attention": level in attention_levels, "temporal": level in temporal_levels}
            for _ in range(num_blocks + 1):
                self.up.append(SpaceTimeBlock(current + widths.pop(), width, self, **kinds))
                current = width
            if level > 0:
                self.up.append(Upsample(width, channels[level - 1]))
                current = channels[level - 1]

        self.exit_norm = FrameNorm(channels[0])
        self.exit = zeroed(SpatialConv(channels[0], out_channels * patch_size**2))

    def forward(
        self,
        xt: Float[Tensor, "b c t h w"],
        c_noise: Float[Tensor, "b *frames"],
        condition: Conditioning,
        num_images: int = 0,
    ) -> Float[Tensor, "b c_out t h w"]:
        """Return the raw prediction.

        Args:
            xt: Noised latents; height and width are multiples of ``frame_multiple``.
            c_noise: Noise level of each clip, or of each frame (log-SNR under variance-preserving parameterizations).
            condition: The conditions. Those that the network was built without are ignored.
            num_images: How many of the last frames are independent images.

        Raises:
            ValueError: If height or width is not a multiple of ``frame_multiple``.
        """
        for name, size in (("height", xt.shape[-2]), ("width", xt.shape[-1])):
            if size % self.frame_multiple:
                raise ValueError(f"{name} of the latents must be a multiple of {self.frame_multiple}, but is {size}")
        embedding = self._embedding(c_noise, condition, xt.shape[2], num_images)
        x = self.entrance(self._tokens(xt, condition))

        skips = [x]
        for block in self.down:
            x = block(x, embedding, condition, num_images) if isinstance(block, SpaceTimeBlock) else block(x)
            skips.append(x)
        x = self.middle(x, embedding, condition, num_images)
        for block in self.up:
            if isinstance(block, SpaceTimeBlock):
                x = block(torch.cat([x, skips.pop()], dim=-1), embedding, condition, num_images)
            else:
                x = block(x)

        x = convolve_normalized(x, self.exit_norm, self.exit)
        return rearrange(x, "b t h w (c p q) -> b c t (h p) (w q)", p=self.patch_size, q=self.patch_size)

    def blocks_by_level(self) -> list[tuple[int, nn.Module]]:
        """Return each block with its level, 0 being the full resolution, in the order in which they run."""
        level, found = 0, []
        for module in (*self.down, self.middle, *self.up):
            if isinstance(module, SpaceTimeBlock):
                found.append((level, module))
            else:
                level += -1 if isinstance(module, Upsample) else 1
        return found

    def _embedding(
        self, c_noise: Float[Tensor, "b *frames"], condition: Conditioning, num_frames: int, num_images: int
    ) -> Float[Tensor, "b t_or_1 d"]:
        embedding = rearrange(self.embed_noise_level(c_noise.flatten()), "(b t) d -> b t d", b=len(c_noise))
        if self.embed_vector is not None and condition.vector is not None:
            vector = condition.vector if condition.vector.ndim == 3 else condition.vector[:, None]
            embedding = embedding + self.embed_vector(vector)
        if self.embed_frame is not None:
            embedding = embedding + embedding_in_clip(self.embed_frame, num_frames, num_images)
        return F.silu(embedding)

    def _tokens(self, xt: Float[Tensor, "b c t h w"], condition: Conditioning) -> Float[Tensor, "b t h2 w2 d"]:
        if self.image_conditioned:
            given = condition.image
            if given is None:
                given = xt.new_zeros(xt.shape[0], xt.shape[1] + 1, *xt.shape[2:])
            xt = torch.cat([xt, given.to(xt.dtype)], dim=1)
        return rearrange(xt, "b c t (h p) (w q) -> b t h w (c p q)", p=self.patch_size, q=self.patch_size).contiguous()


def _check_levels(
    channels: Sequence[int], attention_levels: Sequence[int], temporal_levels: Sequence[int], head_channels: int
) -> None:
    if not channels or min(channels) < 1:
        raise ValueError(f"channels must be one width >= 1 a level, but is {list(channels)}")
    for name, levels in (("attention_levels", attention_levels), ("temporal_levels", temporal_levels)):
        outside = [level for level in levels if not 0 <= level < len(channels)]
        if outside:
            raise ValueError(
                f"{name} must lie between 0 and {len(channels) - 1} (one level a width), but has {outside}"
            )
    attending = {channels[level] for level in (*attention_levels, *temporal_levels)} | {channels[-1]}
    for width in sorted(attending):
        if head_channels < 1 or width % head_channels:
            raise ValueError(
                "head_channels must divide the width of each level with attention, but "
                f"{head_channels} does not divide {width}"
            )
