"""One optimizer for two networks that train in the same steps, each with its own optimizer."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from vdm.assembly.model import VideoDiffusionModel
from vdm.objectives.base import Objective, second_optimizer, with_modules_of
from vdm.training.step_experts import split_groups


class JointOptimizer(Optimizer):
    """Several optimizers that step as one.

    It shares their groups and states, so schedules, checkpoints and strategies see a single optimizer.

    Args:
        optimizers: Optimizers of disjoint weights.
    """

    def __init__(self, optimizers: Sequence[Optimizer]) -> None:
        super().__init__([group for optimizer in optimizers for group in optimizer.param_groups], {})
        self.optimizers = tuple(optimizers)
        # The groups are the same objects: a schedule that sets a learning rate here sets it in the optimizer.
        self.state = defaultdict[Tensor, Any](dict)
        for optimizer in optimizers:
            self.state.update(optimizer.state)  # some, such as Adagrad, have a state from the start
            optimizer.state = self.state

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Step each optimizer, after ``closure`` has computed all gradients."""
        result = None
        if closure is not None:
            with torch.enable_grad():
                result = closure()
        for optimizer in self.optimizers:
            for name in ("grad_scale", "found_inf"):  # inputs of fused optimizers: a loss scale, or to skip
                if hasattr(self, name):
                    setattr(optimizer, name, getattr(self, name))
            optimizer.step()
            for name in ("grad_scale", "found_inf"):
                if hasattr(optimizer, name):
                    delattr(optimizer, name)
        return result

    @property
    def _step_supports_amp_scaling(self) -> bool:
        return all(getattr(optimizer, "_step_supports_amp_scaling", False) for optimizer in self.optimizers)


def each_of(optimizer: Optimizer) -> Sequence[Optimizer]:
    """Return the parts of a joint optimizer, or the optimizer itself."""
    return optimizer.optimizers if isinstance(optimizer, JointOptimizer) else (optimizer,)


def optimizer_of(
    model: VideoDiffusionModel, objective: Objective, make_optimizer: Callable[[list[nn.Parameter]], Optimizer]
) -> Optimizer:
    """Make the optimizer of all trained weights: one for the model and its objective's modules, or one for each.

    Args:
        model: The model.
        objective: The objective, which may have an optimizer of its own.
        make_optimizer: Makes the model's optimizer.
    """
    make_second = second_optimizer(objective)
    if make_second is None:
        optimizer = make_optimizer(_trained(with_modules_of(model, objective)))
        split_groups(optimizer, model)
        return optimizer
    first, second = make_optimizer(_trained(model)), make_second(_trained(cast(nn.Module, objective)))
    split_groups(first, model)
    return JointOptimizer([first, second])


def _trained(module: nn.Module) -> list[nn.Parameter]:
    return [weight for weight in module.parameters() if weight.requires_grad]
