"""Two networks, each with an optimizer of its own, that train in the same steps."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


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
