"""Which slices of a module's weights this process holds, trains and saves."""

from collections.abc import Callable
from functools import cached_property

from torch import nn

from vdm.checkpoints.collectives import rank
from vdm.training.strategies.weight_slices import WeightSlice, whole_slice

_MODEL = "model."
"""Prefix of the names of the model's weights in the training module."""


class ModuleSlices:
    """This process's slices of the weights of a module.

    Args:
        module: The training module, once the strategy has set it up.
        find_slice: Returns this process's slice of a weight, or ``None`` if it holds nothing of that weight.
    """

    def __init__(self, module: nn.Module, find_slice: Callable[[nn.Parameter], WeightSlice | None]) -> None:
        self._module = module
        self._find_slice = find_slice

    @cached_property
    def all(self) -> dict[str, WeightSlice]:
        """Slices of all weights, by fully qualified name."""
        found = {name: self._find_slice(weight) for name, weight in self._module.named_parameters()}
        return {name: weight_slice for name, weight_slice in found.items() if weight_slice is not None}

    @cached_property
    def trained(self) -> dict[str, WeightSlice]:
        """Slices of the weights that are trained."""
        names = {name for name, weight in self._module.named_parameters() if weight.requires_grad}
        return {name: weight_slice for name, weight_slice in self.all.items() if name in names}

    @cached_property
    def trained_and_saved_here(self) -> dict[str, WeightSlice]:
        """The trained slices that this process writes to checkpoints: replicas are written by the first process."""
        return {name: found for name, found in self.trained.items() if _is_saved_here(found)}

    @cached_property
    def frozen_names(self) -> set[str]:
        """Names of the model's weights that are not trained, tied ones under each of their names.

        Only of the model: an objective may change weights of its own in other ways than by the optimizer.
        """
        weights = self._module.named_parameters(remove_duplicate=False)
        return {name for name, weight in weights if name.startswith(_MODEL) and not weight.requires_grad}

    @cached_property
    def checkpoint_names(self) -> list[str]:
        """Names of all weights and buffers in a checkpoint."""
        return list(self._module.state_dict())

    def of_checkpoint(self) -> dict[str, WeightSlice]:
        """Return the slices of all weights and buffers in a checkpoint; tied weights under each of their names."""
        buffers = {
            name: whole_slice(buffer, is_first_copy=rank() == 0) for name, buffer in self._module.named_buffers()
        }
        found = {**self.all, **buffers}
        first_names = self._first_names
        named = {name: first_names.get(name, name) for name in self.checkpoint_names}
        return {name: found[first] for name, first in named.items() if first in found}

    def saved_here(self) -> dict[str, WeightSlice]:
        """Return those of ``of_checkpoint`` that this process writes."""
        return {
            name: weight_slice for name, weight_slice in self.of_checkpoint().items() if _is_saved_here(weight_slice)
        }

    @cached_property
    def _first_names(self) -> dict[str, str]:
        """For each further name of a tied weight, the name under which ``all`` has it."""
        names = {id(weight): name for name, weight in self._module.named_parameters()}
        every_name = self._module.named_parameters(remove_duplicate=False)
        return {name: names[id(weight)] for name, weight in every_name if names[id(weight)] != name}


def _is_saved_here(weight_slice: WeightSlice) -> bool:
    is_empty_weight = 0 in weight_slice.shape or weight_slice.shape == ()
    return weight_slice.is_first_copy and (weight_slice.values.numel() > 0 or is_empty_weight)
