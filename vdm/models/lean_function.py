"""Base of operations that keep little for the backward pass, which computes the rest again."""

from contextvars import ContextVar
from typing import Any, ClassVar

import torch
from torch import Tensor

_gradients: ContextVar[int | None] = ContextVar("gradients of products in a lean function", default=None)


class LeanFunction(torch.autograd.Function):
    """An operation whose backward pass is written by hand; its first argument is its input, the others are weights."""

    factors: ClassVar[tuple[int, ...] | None] = None
    """Places of the input and of the weights that it is multiplied by; None for all arguments of more than one axis."""

    @classmethod
    def apply(cls, *args: Any) -> Any:
        """Compute the result."""
        candidates = args if cls.factors is None else [args[place] for place in cls.factors]
        factors = [arg.requires_grad for arg in candidates if isinstance(arg, Tensor) and arg.dim() > 1]
        token = _gradients.set(factors[0] + any(factors[1:]) if torch.is_grad_enabled() else 0)
        try:
            return super().apply(*args)
        finally:
            _gradients.reset(token)


def wide(x: Tensor) -> Tensor:
    """Return a tensor in fp32 at least."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def gradients_of_products() -> int | None:
    """Return how many gradients each product in the running lean function will have, as it tells no one else.

    None outside of such functions.
    """
    return _gradients.get()
