"""Operations of the transformer that keep only their inputs for the backward pass, in the precision these have.

Written out, PyTorch would also keep normalized and activated tokens, and in half precision copies of them in fp32:
two thirds of all that a block keeps. The backward pass computes them again, which takes a few percent of its time.
Under ``torch.compile``, which decides by itself what to keep, the formulas are computed as they are written.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from vdm.models.attention import Activations, compute_dtype, is_in_cpu_memory, is_plain
from vdm.models.lean_function import LeanFunction, wide

Modulation = Float[Tensor, "b_or_1 t_or_1 1 1 c"]
_SLICE = 512
"""Rows in a slice on CPUs: some megabytes."""


def linears_of_modulated_norm(
    x: Activations, shift: Modulation, scale: Modulation, eps: float, layers: Sequence[nn.Module]
) -> list[Float[Tensor, "b t h w _"]]:
    """Return ``layer(norm(x) (1 + scale) + shift)`` for each layer.

    The layer normalization has no weights of its own, and is computed in fp32 at least. Layers that were wrapped, by
    LoRA for example, are called.

    Args:
        x: Activations.
        shift: Shift of each clip or frame, or of all clips.
        scale: Scale, less 1.
        eps: Added to variances.
        layers: Linear layers.
    """
    if torch.compiler.is_compiling() or not is_plain(*layers):
        h = torch.addcmul(shift, F.layer_norm(wide(x), x.shape[-1:], eps=eps), 1 + scale).to(x.dtype)
        return [layer(h) for layer in layers]
    dtype = compute_dtype(x)
    weights = [weight.to(dtype) for layer in layers for weight in (layer.weight, layer.bias)]
    return list(_LinearsOfModulatedNorm.apply(x, shift, scale, eps, *weights))


class _LinearsOfModulatedNorm(LeanFunction):
    @staticmethod
    def forward(
        ctx: Any, x: Activations, shift: Modulation, scale: Modulation, eps: float, *weights: Tensor
    ) -> tuple[Float[Tensor, "b t h w _"], ...]:
        normalized, mean, rstd = torch.native_layer_norm(wide(x), x.shape[-1:], None, None, eps)
        ctx.save_for_backward(x, shift, scale, mean, rstd, *weights[::2])
        h = torch.addcmul(shift, normalized, 1 + scale).to(weights[0].dtype)
        return tuple(F.linear(h, weight, bias) for weight, bias in zip(weights[::2], weights[1::2], strict=True))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Float[Tensor, "b t h w _"]) -> tuple[Tensor | None, ...]:
        x, shift, scale, mean, rstd, *weights = ctx.saved_tensors
        x_wide = wide(x)
        normalized = (x_wide - mean) * rstd
        of_weights: list[Tensor | None] = []
        of_h = torch.zeros_like(x_wide)
        h = torch.addcmul(shift, normalized, 1 + scale).to(weights[0].dtype).flatten(0, -2)
        for index, (grad, weight) in enumerate(zip(grads, weights, strict=True)):
            wants_weight, wants_bias = ctx.needs_input_grad[4 + 2 * index : 6 + 2 * index]
            rows = grad.reshape(-1, grad.shape[-1])
            of_h += (rows @ weight).view(x.shape)
            of_weights.append(rows.t() @ h if wants_weight else None)
            of_weights.append(rows.sum(0, dtype=wide(rows[:0]).dtype).to(rows.dtype) if wants_bias else None)
        of_scale, of_shift = _summed(of_h * normalized, scale), _summed(of_h, scale)
        of_x, _, _ = torch.ops.aten.native_layer_norm_backward(
            of_h * (1 + scale), x_wide, x.shape[-1:], mean, rstd, None, None, [True, False, False]
        )
        return of_x.to(x.dtype), of_shift, of_scale, None, *of_weights


def gated_sum(x: Activations, branch: Activations, gate: Modulation) -> Activations:
    """Return ``x + branch gate``, computed in fp32 at least, in the precision of ``x``."""
    if torch.compiler.is_compiling():
        return torch.addcmul(wide(x), wide(branch), gate).to(x.dtype)
    return _GatedSum.apply(x, branch, gate)


class _GatedSum(LeanFunction):
    @staticmethod
    def forward(ctx: Any, x: Activations, branch: Activations, gate: Modulation) -> Activations:
        ctx.save_for_backward(branch, gate)
        return torch.addcmul(wide(x), wide(branch), gate).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Activations) -> tuple[Tensor | None, ...]:
        branch, gate = ctx.saved_tensors
        return grad, (wide(grad) * gate).to(branch.dtype), _summed(wide(grad) * wide(branch), gate)


def _summed(x: Activations, like: Modulation) -> Modulation:
    """Sum over the tokens that share a modulation."""
    return x.sum([axis for axis in range(4) if like.shape[axis] == 1], keepdim=True)


def linear_of_gelu(x: Float[Tensor, "*b c"], layer: nn.Module, approximate: str) -> Float[Tensor, "*b c2"]:
    """Return ``layer(gelu(x))``; a layer that was wrapped, by LoRA for example, is called.

    Args:
        x: Activations.
        layer: A linear layer.
        approximate: ``tanh`` or ``none``: how GELU is computed.
    """
    if torch.compiler.is_compiling() or not is_plain(layer):
        return layer(F.gelu(x, approximate=approximate))
    assert isinstance(layer, nn.Linear)
    dtype = compute_dtype(x)
    rows = x.to(dtype).reshape(-1, x.shape[-1])
    out = _LinearOfGelu.apply(rows, layer.weight.to(dtype), layer.bias.to(dtype), approximate)
    return out.reshape(*x.shape[:-1], -1)


class _LinearOfGelu(LeanFunction):
    @staticmethod
    def forward(
        ctx: Any,
        x: Float[Tensor, "n d"],
        weight: Float[Tensor, "c d"],
        bias: Float[Tensor, " c"],
        approximate: str,
    ) -> Float[Tensor, "n c"]:
        ctx.save_for_backward(x, weight)
        ctx.approximate = approximate
        out = x.new_empty(len(x), len(weight))
        for part in _slices(x):
            torch.addmm(bias, F.gelu(x[part], approximate=approximate), weight.t(), out=out[part])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Float[Tensor, "n c"]) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_x = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        of_weight = torch.zeros_like(weight, dtype=wide(weight[:0]).dtype) if ctx.needs_input_grad[1] else None
        for part in _slices(x):
            if of_x is not None:
                of_x[part] = torch.ops.aten.gelu_backward(grad[part] @ weight, x[part], approximate=ctx.approximate)
            if of_weight is not None:
                activated = F.gelu(x[part], approximate=ctx.approximate)
                if of_weight.dtype == grad.dtype:
                    of_weight.addmm_(grad[part].t(), activated)
                else:
                    of_weight += grad[part].t() @ activated
        of_bias = grad.sum(0, dtype=wide(grad[:0]).dtype).to(grad.dtype) if ctx.needs_input_grad[2] else None
        return of_x, None if of_weight is None else of_weight.to(weight.dtype), of_bias, None


def _slices(x: Float[Tensor, "n c"]) -> list[slice]:
    size = _SLICE if is_in_cpu_memory(x) else max(1, len(x))
    return [slice(start, start + size) for start in range(0, len(x), size)]
