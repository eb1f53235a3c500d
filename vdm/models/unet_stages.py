"""Stages of the U-Nets of Stable Video Diffusion and ModelScope, and the walk through them.

A stage holds the blocks of one resolution. Stages follow each other down to the coarsest resolution, through a middle
stage, and up again; the outputs on the way down are concatenated to the inputs on the way up. Parameters are named as
in diffusers: ``resnets``, ``attentions``, ``downsamplers`` and ``upsamplers`` of each stage.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import zip_longest
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vdm.models.attention import Activations
from vdm.models.blocks import Downsample, Upsample
from vdm.models.diffusers_layers import BlockConditioning


class Stage(nn.Module):
    """Blocks of one resolution, grouped in layers: a residual block, then for example a transformer.

    Args:
        blocks: For each kind of block, in the order in which kinds run within a layer: its name among the parameters,
            and one block a layer. Kinds with fewer blocks than others are missing from the last layers.
    """

    def __init__(self, **blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.kinds = tuple(blocks)
        for kind, modules in blocks.items():
            self.add_module(kind, nn.ModuleList(modules))
        # At most one of the two lists has a member, which runs after all layers.
        self.downsamplers = nn.ModuleList()
        self.upsamplers = nn.ModuleList()

    def layers(self) -> Iterator[list[nn.Module]]:
        """Yield the blocks of each layer in the order in which they run."""
        for layer in zip_longest(*(cast(nn.ModuleList, self.get_submodule(kind)) for kind in self.kinds)):
            yield [block for block in layer if block is not None]


MakeStage = Callable[[int, Sequence[int]], Stage]
"""Makes the stage of a level from the level and the input width of each residual block."""


def down_stages(channels: Sequence[int], num_blocks: int, make_stage: MakeStage) -> nn.ModuleList:
    """Return one stage a level, from the full resolution down; all but the last halve height and width.

    Args:
        channels: Width of each level, from the full resolution down.
        num_blocks: Layers of each stage.
        make_stage: Makes a stage.
    """
    stages = nn.ModuleList()
    for level, width in enumerate(channels):
        stage = make_stage(level, [channels[max(level - 1, 0)], *[width] * (num_blocks - 1)])
        if level < len(channels) - 1:
            stage.downsamplers.append(Downsample(width))
        stages.append(stage)
    return stages


def up_stages(channels: Sequence[int], num_blocks: int, make_stage: MakeStage) -> nn.ModuleList:
    """Return one stage a level, from the coarsest resolution up; all but the last double height and width.

    Arguments are those of ``down_stages``. A stage here has one layer more, so that each layer takes one skip
    connection: the outputs of all layers and downsamplings on the way down, and their first input.
    """
    skips = [channels[0]]
    for level, width in enumerate(channels):
        skips += [width] * (num_blocks if level == len(channels) - 1 else num_blocks + 1)

    stages = nn.ModuleList()
    below = channels[-1]
    for level in reversed(range(len(channels))):
        width = channels[level]
        stage = make_stage(level, [entrance + skips.pop() for entrance in (below, *[width] * num_blocks)])
        if level > 0:
            stage.upsamplers.append(Upsample(width, width))
        stages.append(stage)
        below = width
    assert not skips, "every skip connection is taken by one layer"
    return stages


def run_stages(
    x: Activations, conditioning: BlockConditioning, down: nn.ModuleList, middle: Stage, up: nn.ModuleList
) -> Float[Tensor, "b t h w c2"]:
    """Run a U-Net from the output of its first convolution to the input of its last.

    Args:
        x: Activations of any height and width.
        conditioning: Input of every block.
        down: From ``down_stages``.
        middle: The stage at the coarsest resolution.
        up: From ``up_stages``.
    """
    skips = [x]
    for stage in cast(Iterable[Stage], down):
        for layer in stage.layers():
            x = _run_layer(layer, x, conditioning)
            skips.append(x)
        for downsample in stage.downsamplers:
            x = downsample(x)
            skips.append(x)
    for layer in middle.layers():
        x = _run_layer(layer, x, conditioning)
    for stage in cast(Iterable[Stage], up):
        for layer in stage.layers():
            x = _run_layer(layer, torch.cat([x, skips.pop()], dim=-1), conditioning)
        for upsample in stage.upsamplers:
            x = upsample(x, size=skips[-1].shape[2:4])  # a size that was rounded up when it was halved
    return x


def blocks_with_levels(down: nn.ModuleList, middle: Stage, up: nn.ModuleList) -> list[tuple[int, nn.Module]]:
    """Return each block with its level, 0 being the full resolution, in the order in which they run."""
    last = len(down) - 1
    levels = [*range(len(down)), last, *reversed(range(len(up)))]
    stages = cast(Iterable[Stage], [*down, middle, *up])
    pairs = zip(levels, stages, strict=True)
    return [(level, block) for level, stage in pairs for layer in stage.layers() for block in layer]


def check_levels(channels: Sequence[int], attention_levels: Sequence[int]) -> None:
    """Check the widths of a U-Net and the levels that have attention.

    Raises:
        ValueError: If a width is not a multiple of 32, which group normalization needs, or a level does not exist.
    """
    if not channels or any(width < 1 or width % 32 for width in channels):
        raise ValueError(f"channels must be one multiple of 32 a level, but is {list(channels)}")
    outside = [level for level in attention_levels if not 0 <= level < len(channels)]
    if outside:
        raise ValueError(f"attention_levels must lie between 0 and {len(channels) - 1}, but has {outside}")


def _run_layer(
    layer: Iterable[nn.Module], x: Activations, conditioning: BlockConditioning
) -> Float[Tensor, "b t h w c2"]:
    for block in layer:
        x = block(x, conditioning)
    return x
