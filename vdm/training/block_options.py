"""What is done block by block to a network, under every strategy: recomputing activations, compiling, sharding."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol, runtime_checkable

import torch
from annotated_types import Len
from torch import nn
from torch.utils.checkpoint import checkpoint

from vdm.ranges import MAX_LEVELS, Level

MAX_COMPILED_SHAPES = 128
"""How many combinations of block and size of its input are compiled; what comes beyond them runs uncompiled."""


@runtime_checkable
class HasBlocks(Protocol):
    """A network that names its blocks: disjoint modules that hold most of its weights and activations."""

    def blocks(self) -> Sequence[tuple[int, nn.Module]]:
        """Return each block with its level, 0 being the finest resolution, in the order in which they run."""
        ...


def blocks_of(model: nn.Module) -> list[tuple[int, nn.Module]]:
    """Return the blocks of all parts of a model that name them."""
    return [block for module in model.modules() if isinstance(module, HasBlocks) for block in module.blocks()]


@dataclass(frozen=True)
class BlockOptions:
    """How blocks run.

    Args:
        recompute: Blocks whose activations are not kept but computed again in the backward pass (activation
            checkpointing): ``none``, ``all``, or those of some levels, 0 being the finest resolution.
        compile: Whether each block is compiled by ``torch.compile``.
    """

    recompute: Literal["none", "all"] | Annotated[list[Level], Len(0, MAX_LEVELS)] = "none"
    compile: bool = False

    def apply(self, network: nn.Module) -> None:
        """Change how the blocks of a network run; names of weights stay as they are.

        Raises:
            ValueError: If the network has no blocks, or none of a level.
        """
        blocks = blocks_of(network)
        if not blocks and (self.recompute != "none" or self.compile):
            raise ValueError(f"recompute, compile: {type(network).__name__} names no blocks: it has no method blocks()")
        if isinstance(self.recompute, list):
            levels = {level for level, _ in blocks}
            unknown = sorted(set(self.recompute) - levels)
            if unknown:
                raise ValueError(f"recompute: the network has blocks of levels {sorted(levels)}, but none of {unknown}")
        if self.compile:
            # Blocks share the code of their class, and with it the limit, beyond which they would run uncompiled.
            torch._dynamo.config.recompile_limit = max(MAX_COMPILED_SHAPES, torch._dynamo.config.recompile_limit)
        for level, block in blocks:
            if self.recompute == "all" or (isinstance(self.recompute, list) and level in self.recompute):
                _recompute(block)
            if self.compile:
                block.compile(dynamic=False)  # steps are of few shapes, for each of which the fastest code is worth it


def _recompute(block: nn.Module) -> None:
    forward = block.forward

    @functools.wraps(forward)
    def recomputed(*args: Any, **kwargs: Any) -> Any:
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)

    block.forward = recomputed
