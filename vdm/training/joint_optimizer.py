"""Two networks, each with an optimizer of its own, that train in the same steps."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from vdm.assembly.model import VideoDiffusionModel
from vdm.objectives.base import Objective, second_optimizer, with_modules_of


class JointOptimizer(Optimizer):
    """Several optimizers that step as one.

    Their groups and states are also this one's, so that schedules, checkpoints and strategies see one optimizer.

    Args:
        optimizers: Each has weights of its own.
    """

    def __init__(self, optimizers: Sequence[Optimizer]) -> None:
        super().__init__([group for optimizer in optimizers for group in optimizer.param_groups], {})
        self.optimizers = tuple(optimizers)
        # The groups are the optimizers' own: a schedule that sets a learning rate here sets it there.
        self.state = defaultdict[Tensor, Any](dict)
        for optimizer in optimizers:
            self.state.update(optimizer.state)  # some, such as Adagrad, begin with one
            optimizer.state = self.state

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Step each optimizer, after ``closure`` has made the gradients of all."""
        result = None
        if closure is not None:
            with torch.enable_grad():
                result = closure()
        for optimizer in self.optimizers:
            for name in ("grad_scale", "found_inf"):  # what fused optimizers are told by a scaler, or to leave out
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
    """Return the optimizers that an optimizer consists of."""
    return optimizer.optimizers if isinstance(optimizer, JointOptimizer) else (optimizer,)


def optimizer_of(
    model: VideoDiffusionModel, objective: Objective, make_optimizer: Callable[[list[nn.Parameter]], Optimizer]
) -> Optimizer:
    """Make the optimizer of all that trains: one for the model and what its objective brings, or one for each.

    Args:
        model: The model.
        objective: Says whether it has an optimizer of its own.
        make_optimizer: Makes the model's.
    """
    make_second = second_optimizer(objective)
    if make_second is None:
        return make_optimizer(_trained(with_modules_of(model, objective)))
    return JointOptimizer([make_optimizer(_trained(model)), make_second(_trained(cast(nn.Module, objective)))])


def _trained(module: nn.Module) -> list[nn.Parameter]:
    return [weight for weight in module.parameters() if weight.requires_grad]
