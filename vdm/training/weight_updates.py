"""Gradients and updates of the weights, by part of the model."""

import torch
from jaxtyping import Float
from torch import Tensor

from vdm.training.module import DiffusionModule
from vdm.training.strategies.weight_slices import WeightSlice
from vdm.training.weight_groups import weight_groups

MAX_ELEMENTS = 1 << 16
"""Elements of a weight from which its update is estimated, evenly spaced."""


class WeightUpdates:
    """Compares the weights before and after an optimizer step.

    Updates are estimated from evenly spaced elements of each weight, so that no copy of the weights is made.

    Args:
        module: The module in training; all processes call the same methods.
    """

    def __init__(self, module: DiffusionModule) -> None:
        # Of all weights, not only of this process's: processes add up their sums part by part.
        groups = weight_groups(name for name, weight in module.named_parameters() if weight.requires_grad)
        self._names = sorted(set(groups.values()))
        slices = module.strategy.slices.trained_and_saved_here
        self._slices = [(self._names.index(groups[name]), piece) for name, piece in slices.items()]
        self._module = module
        self._before: list[Tensor] | None = None

    def before_step(self, loss_scale: float) -> None:
        """Note weights and gradients.

        Args:
            loss_scale: Factor by which the gradients are too large.
        """
        gradients = self._sums([_gradient(piece) for _, piece in self._slices])
        self._gradients = gradients / loss_scale**2
        self._before = [_some(piece.values).clone() for _, piece in self._slices]

    def after_step(self) -> dict[str, float]:
        """Return ``train/grad_norm/PART`` and ``train/update_ratio/PART``; nothing without ``before_step``."""
        if self._before is None:
            return {}
        before, self._before = self._before, None
        changes = [_some(piece.values) - old for (_, piece), old in zip(self._slices, before, strict=True)]
        sums = torch.stack([self._gradients, self._estimates(changes), self._estimates(before)])
        reduced: Tensor = self._module.strategy.reduce(sums, reduce_op="sum")  # pyright: ignore[reportAssignmentType]
        gradients, updates, weights = reduced.sqrt().tolist()
        named = {f"train/grad_norm/{name}": value for name, value in zip(self._names, gradients, strict=True) if value}
        ratios = {
            f"train/update_ratio/{name}": update / weight
            for name, update, weight in zip(self._names, updates, weights, strict=True)
            if weight > 0
        }
        return named | ratios

    def _sums(self, tensors: list[Tensor | None]) -> Float[Tensor, " parts"]:
        """Return the sum of squares of this process's tensors, by part of the model."""
        sums = torch.zeros(len(self._names), device=self._module.device)
        for (part, _), tensor in zip(self._slices, tensors, strict=True):
            if tensor is not None:
                sums[part] += tensor.float().square().sum().to(sums)
        return sums

    def _estimates(self, some: list[Tensor]) -> Float[Tensor, " parts"]:
        """Return the sum of squares of whole tensors, by part, estimated from some elements of each."""
        sums = torch.zeros(len(self._names), device=self._module.device)
        for (part, piece), elements in zip(self._slices, some, strict=True):
            if elements.numel():
                share = piece.values.numel() / elements.numel()
                sums[part] += share * elements.float().square().sum().to(sums)
        return sums


def _some(values: Tensor) -> Tensor:
    """Return evenly spaced elements."""
    flat = values.reshape(-1)
    return flat[:: max(1, -(-flat.numel() // MAX_ELEMENTS))]


def _gradient(piece: WeightSlice) -> Tensor | None:
    gradient = piece.held_in.grad
    return None if gradient is None else piece.view(gradient)
