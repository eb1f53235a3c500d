"""Gradients and updates of the weights, by part of the model."""

from collections.abc import Mapping
from typing import Any

import lightning
import torch
from jaxtyping import Float
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.optim import Optimizer

from vdm.ranges import Count
from vdm.training.lightning_internals import completes_step
from vdm.training.module import DiffusionModule, log_scalars
from vdm.training.strategies.weight_slices import WeightSlice
from vdm.training.weight_groups import weight_groups

MAX_ELEMENTS = 1 << 16
"""Elements of a weight from which its update is estimated, evenly spaced."""


class LogUpdates(Callback):
    """Logs ``train/grad_norm/PART`` and ``train/update_ratio/PART`` for each part of the model.

    The ratio is the norm of a step's update divided by that of the weights; 1e-3 is usual. It is estimated from evenly
    spaced elements of each weight, so that no copy of the weights is made. Gradients are those before clipping; under
    DeepSpeed, which keeps them to itself, they are left out.

    Args:
        every_steps: Optimizer steps from one log to the next.
    """

    def __init__(self, every_steps: Count) -> None:
        if every_steps < 1:
            raise ValueError(f"every_steps must be at least 1, but is {every_steps}")
        self.every_steps = every_steps

    def on_train_start(self, trainer: lightning.Trainer, pl_module: DiffusionModule) -> None:
        """Find the parts of the model."""
        # Of all weights, not only of this process's: processes add up their sums part by part.
        groups = weight_groups(name for name, weight in pl_module.named_parameters() if weight.requires_grad)
        self._names = sorted(set(groups.values()))
        slices = pl_module.strategy.slices.trained_and_saved_here
        self._slices = [(self._names.index(groups[name]), piece) for name, piece in slices.items()]
        self._before: list[Tensor] | None = None

    def on_before_optimizer_step(
        self, trainer: lightning.Trainer, pl_module: DiffusionModule, optimizer: Optimizer
    ) -> None:
        """Note weights and gradients before a step that is logged."""
        if (trainer.global_step + 1) % self.every_steps:
            return
        self._before = [_some(piece.values).clone() for _, piece in self._slices]
        self._gradients = self._sums(pl_module, [_gradient(piece) for _, piece in self._slices])

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: DiffusionModule, outputs: Mapping[str, Any], *args: object
    ) -> None:
        """Compare the weights with those before the step, and log."""
        if self._before is None or not completes_step(trainer):
            return
        before, self._before = self._before, None
        now = [_some(piece.values) for _, piece in self._slices]
        changes = [new - old for new, old in zip(now, before, strict=True)]
        sums = torch.stack([self._gradients, self._sums(pl_module, changes), self._sums(pl_module, before)])
        gradient, change, weight = pl_module.strategy.reduce(sums, reduce_op="sum").sqrt().tolist()  # pyright: ignore[reportAttributeAccessIssue]
        named = {
            f"train/grad_norm/{name}": value for name, value in zip(self._names, gradient, strict=True) if value > 0
        }
        named |= {
            f"train/update_ratio/{name}": new / old
            for name, new, old in zip(self._names, change, weight, strict=True)
            if old > 0
        }
        log_scalars(trainer, named)

    def _sums(self, module: DiffusionModule, tensors: list[Tensor | None] | list[Tensor]) -> Float[Tensor, " parts"]:
        """Return the sum of squares of this process's tensors, by part of the model."""
        sums = torch.zeros(len(self._names), device=module.device)
        for (part, _), tensor in zip(self._slices, tensors, strict=True):
            if tensor is not None:
                sums[part] += tensor.float().square().sum().to(module.device)
        return sums


def _some(values: Tensor) -> Tensor:
    """Return evenly spaced elements."""
    flat = values.reshape(-1)
    return flat[:: max(1, -(-flat.numel() // MAX_ELEMENTS))]


def _gradient(piece: WeightSlice) -> Tensor | None:
    gradient = piece.held_in.grad
    return None if gradient is None else piece.view(gradient)
