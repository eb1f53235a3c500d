"""Gated feed-forward networks of transformers that save little for the backward pass.

For ``x + W2 (value * gelu(gate))`` PyTorch saves 18 times the size of ``x``: the normalized activations, value, gate,
activated gate and product. Here it is 9 times: ``x``, value and gate. The backward pass recomputes the rest, in slices
of rows that fit in the processor's cache.
"""

from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from vdm.models.attention import Activations, compute_dtype, is_in_cpu_memory, is_plain
from vdm.models.lean_function import LeanFunction

Rows = Float[Tensor, "n c"]

_SLICE = 1024
"""Rows in a slice on CPUs: a few megabytes of value and gate."""


class GatedLinear(nn.Module):
    """GEGLU (Shazeer 2020): a linear layer, one half of whose output gates the other half."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.proj = nn.Linear(in_channels, 2 * out_channels)

    def forward(self, x: Activations) -> Float[Tensor, "b t h w c2"]:
        """Transform each pixel."""
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    """Feed-forward network with GEGLU, whose hidden width is 4 times the width."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        # Published weights number the layers 0 and 2; layer 1 was dropout.
        self.net = nn.ModuleList(
            [GatedLinear(channels, 4 * channels), nn.Identity(), nn.Linear(4 * channels, channels)]
        )

    def forward(self, x: Activations) -> Activations:
        """Transform each pixel."""
        return self.net[2](self.net[0](x))


def add_feed_forward(x: Activations, norm: nn.LayerNorm, network: FeedForward) -> Activations:
    """Return ``x + network(norm(x))``.

    Under ``torch.compile``, or if layers were wrapped (by LoRA, for example), the formula is computed by calling them.
    """
    entrance, exit_ = cast(GatedLinear, network.net[0]).proj, cast(nn.Linear, network.net[2])
    if torch.compiler.is_compiling() or not is_plain(norm, entrance, exit_):
        return x + network(norm(x))
    dtype = compute_dtype(x)
    weights = [weight.to(dtype) for layer in (entrance, exit_) for weight in (layer.weight, layer.bias)]
    affine = [parameter if x.device.type == "cpu" else parameter.to(dtype) for parameter in (norm.weight, norm.bias)]
    rows = x.to(dtype).reshape(-1, x.shape[-1])
    return _AddGatedLinear.apply(rows, *affine, *weights, norm.eps, torch.is_grad_enabled()).reshape(x.shape)


class _AddGatedLinear(LeanFunction):
    """``x + (value * gelu(gate)) W2' + b2``, where value and gate are the halves of ``norm(x) W1' + b1``."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Rows,
        scale: Float[Tensor, " c"],
        shift: Float[Tensor, " c"],
        w1: Float[Tensor, "d2 c"],
        b1: Float[Tensor, " d2"],
        w2: Float[Tensor, "c d"],
        b2: Float[Tensor, " c"],
        eps: float,
        keep: bool,
    ) -> Rows:
        """Return the sum; ``keep`` says whether there will be a backward pass."""
        # Apart, so that each is contiguous: GELU on every other half row takes five times as long.
        (value_w, gate_w), (value_b, gate_b) = w1.chunk(2), b1.chunk(2)
        out = torch.empty_like(x)
        kept = (x.new_empty(len(x), w2.shape[1]), x.new_empty(len(x), w2.shape[1])) if keep else (None, None)
        for part in _slices(x):
            value_out, gate_out = (None if half is None else half[part] for half in kept)
            normalized = F.layer_norm(x[part], x.shape[1:], scale, shift, eps)
            value = torch.addmm(value_b, normalized, value_w.t(), out=value_out)
            gate = torch.addmm(gate_b, normalized, gate_w.t(), out=gate_out)
            torch.addmm(b2, F.gelu(gate).mul_(value), w2.t(), out=out[part])
            out[part] += x[part]
        ctx.save_for_backward(x, scale, shift, w1, w2, *kept)
        ctx.eps = eps
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Rows) -> tuple[Tensor | None, ...]:
        """Return the gradients; sums over rows are in fp32 at least."""
        x, scale, shift, w1, w2, values, gates = ctx.saved_tensors
        (value_w, gate_w), grad, parameters = w1.chunk(2), grad.contiguous(), (scale, shift, w1, w1[:, 0], w2, w2[0])
        grad_x = torch.empty_like(x)
        sums = [torch.zeros_like(p, dtype=torch.promote_types(p.dtype, torch.float32)) for p in parameters]
        sum_scale, sum_shift, sum_w1, sum_b1, sum_w2, _ = sums
        (sum_value_w, sum_gate_w), (sum_value_b, sum_gate_b) = sum_w1.chunk(2), sum_b1.chunk(2)
        for part in _slices(x):
            value, gate, grad_out = values[part], gates[part], grad[part]
            normalized, mean, rstd = torch.native_layer_norm(x[part], x.shape[1:], scale, shift, ctx.eps)
            activated = F.gelu(gate)
            grad_product = grad_out @ w2
            grad_value = grad_product * activated
            _accumulate(sum_w2, grad_out, activated.mul_(value))
            grad_gate = torch.ops.aten.gelu_backward(grad_product.mul_(value), gate)
            for grad_half, sum_w, sum_b in (
                (grad_value, sum_value_w, sum_value_b),
                (grad_gate, sum_gate_w, sum_gate_b),
            ):
                _accumulate(sum_w, grad_half, normalized)
                sum_b += grad_half.sum(0)
            grad_normalized = (grad_value @ value_w).addmm_(grad_gate, gate_w)
            of_x, of_scale, of_shift = torch.ops.aten.native_layer_norm_backward(
                grad_normalized, x[part], x.shape[1:], mean, rstd, scale, shift, [True] * 3
            )
            torch.add(of_x, grad_out, out=grad_x[part])
            sum_scale += of_scale
            sum_shift += of_shift
        sums[-1] = grad.sum(0, dtype=sums[-1].dtype)
        return grad_x, *(total.to(p.dtype) for total, p in zip(sums, parameters, strict=True)), None, None


def _slices(x: Rows) -> list[slice]:
    size = _SLICE if is_in_cpu_memory(x) else len(x)
    return [slice(start, start + size) for start in range(0, len(x), size)]


def _accumulate(total: Float[Tensor, "m k"], left: Float[Tensor, "n m"], right: Float[Tensor, "n k"]) -> None:
    """Add ``left' right``."""
    if total.dtype == left.dtype:
        total.addmm_(left.t(), right)
    else:
        total += left.t() @ right
