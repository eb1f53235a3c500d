"""The blocks of a network, which are checkpointed, compiled and sharded one by one."""

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
"""Combinations of block and input size that are compiled; any beyond them run uncompiled."""


@runtime_checkable
class HasBlocks(Protocol):
    """A network that lists its blocks: disjoint modules with most of its weights and activations."""

    def blocks_by_level(self) -> Sequence[tuple[int, nn.Module]]:
        """Return each block with its level, in the order in which they run; level 0 is the finest resolution."""
        ...


def blocks_of(model: nn.Module) -> list[tuple[int, nn.Module]]:
    """Return the blocks, with their levels, of all modules in a model that list theirs."""
    return [block for module in model.modules() if isinstance(module, HasBlocks) for block in module.blocks_by_level()]


@dataclass(frozen=True)
class BlockOptions:
    """How blocks run.

    Args:
        recompute: Blocks under activation checkpointing: ``none``, ``all``, or those of a list of levels, of which 0 is
            the finest resolution.
        compile: Whether each block is compiled by ``torch.compile``.
    """

    recompute: Literal["none", "all"] | Annotated[list[Level], Len(0, MAX_LEVELS)] = "none"
    compile: bool = False

    def apply(self, network: nn.Module) -> None:
        """Checkpoint and compile the blocks of a network; the names of its weights do not change.

        Raises:
            ValueError: If the network lists no blocks, or none of a level.
        """
        blocks = blocks_of(network)
        if not blocks and (self.recompute != "none" or self.compile):
            raise ValueError(
                f"recompute, compile: {type(network).__name__} names no blocks: it has no method blocks_by_level()"
            )
        if isinstance(self.recompute, list):
            levels = {level for level, _ in blocks}
            unknown = sorted(set(self.recompute) - levels)
            if unknown:
                raise ValueError(f"recompute: the network has blocks of levels {sorted(levels)}, but none of {unknown}")
        if self.compile:
            # Blocks of one class share its code, and with it this limit, beyond which they would run uncompiled.
            torch._dynamo.config.recompile_limit = max(MAX_COMPILED_SHAPES, torch._dynamo.config.recompile_limit)
        for level, block in blocks:
            if self.recompute == "all" or (isinstance(self.recompute, list) and level in self.recompute):
                _checkpoint_activations(block)
            if self.compile:
                block.compile(dynamic=False)  # steps have few shapes: specialize to each


def _checkpoint_activations(block: nn.Module) -> None:
    forward = block.forward

    @functools.wraps(forward)
    def checkpointed(*args: Any, **kwargs: Any) -> Any:
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)

    block.forward = checkpointed
