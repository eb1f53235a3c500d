"""Convolution of normalized activations that saves only the input of the normalization for the backward pass.

For ``conv(silu(norm(x)))`` PyTorch saves three tensors as large as ``x``, and one more where a noise level modulates
normalized activations; here it is one. The backward pass recomputes the normalization and the SiLU, at a few percent of
the cost of the convolution.
"""

from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from vdm.models.attention import Activations, compute_dtype, is_at_hand, is_in_cpu_memory
from vdm.models.blocks import ClipNorm, FrameNorm, SpatialConv, TemporalConv
from vdm.models.lean_function import LeanFunction, wide

Picture = Float[Tensor, "n c h w"]

_VALUES = 1 << 17
"""Values in a slice on CPUs."""


def convolve_normalized(
    x: Activations,
    norm: FrameNorm | ClipNorm,
    conv: SpatialConv | TemporalConv,
    shift: Float[Tensor, "b *frames c2"] | None = None,
    residual: Float[Tensor, "b t h w c2"] | None = None,
    modulation: tuple[Float[Tensor, "b t_or_1 c"], Float[Tensor, "b t_or_1 c"]] | None = None,
    dropout: nn.Dropout | None = None,
) -> Float[Tensor, "b t h w c2"]:
    """Return ``conv(silu(norm(x))) + shift + residual``; with a modulation ``norm(x) * (1 + scale) + offset`` inside.

    Under ``torch.compile``, with drop-out, or if layers were replaced, the formula is computed by calling the layers.

    Args:
        x: Activations.
        norm: ``FrameNorm`` before a convolution over space, ``ClipNorm`` before one over time.
        conv: The convolution, of stride 1.
        shift: Added to each channel of a clip, or of a frame.
        residual: Added to the result.
        modulation: Scale and offset of the normalized activations, for each clip or each frame; of ``FrameNorm`` only.
        dropout: Applied before the convolution.
    """
    if shift is not None and shift.ndim == 3 and isinstance(conv, TemporalConv):
        # A temporal convolution treats a clip as one picture, which has a single shift.
        return convolve_normalized(x, norm, conv, None, residual) + rearrange(shift, "b t c -> b t 1 1 c")
    kinds = (type(norm), type(conv))
    is_known = kinds in ((FrameNorm, SpatialConv), (ClipNorm, TemporalConv))
    drops = dropout is not None and dropout.training and dropout.p > 0
    if torch.compiler.is_compiling() or drops or not (is_known and is_at_hand(norm, conv)):
        normalized = norm(x)
        if modulation is not None:
            scale, offset = (each[:, :, None, None] for each in modulation)
            normalized = torch.addcmul(offset, normalized, 1 + scale)
        activated = F.silu(normalized)
        out = conv(activated if dropout is None else dropout(activated))
        if shift is not None:
            out = out + (shift if shift.ndim == 3 else shift[:, None])[:, :, None, None]
        return out if residual is None else out + residual
    dtype = compute_dtype(x)
    b, t, h, w, _ = x.shape
    spatial = isinstance(conv, SpatialConv)
    rows, padding = ((b * t, h, w, -1), (1, 1)) if spatial else ((b, t, h * w, -1), (1, 0))
    if modulation is None:
        affine = norm.weight[None], norm.bias[None]
    else:
        scale, offset = (wide(each).expand(-1, t, -1).flatten(0, 1) for each in modulation)
        affine = norm.weight * (1 + scale), torch.addcmul(offset, norm.bias, 1 + scale)
    kernel = conv.weight if spatial else conv.weight[..., 0]
    bias = conv.bias[None] if shift is None else conv.bias + shift.flatten(0, -2)  # type: ignore[index]
    out = _ConvolveNormalized.apply(
        x.to(dtype).reshape(rows).permute(0, 3, 1, 2),
        *affine,
        kernel.to(dtype),
        bias.to(dtype),
        None if residual is None else residual.to(dtype).reshape(rows).permute(0, 3, 1, 2),
        (norm.num_groups, norm.eps, padding),
    )
    return out.permute(0, 2, 3, 1).reshape(b, t, h, w, -1)


class _ConvolveNormalized(LeanFunction):
    """``conv(silu(norm(x))) + bias + residual`` on pictures: frames, or clips whose rows are frames."""

    factors = (0, 3)

    @staticmethod
    def forward(
        ctx: Any,
        x: Picture,
        scale: Float[Tensor, "n_or_1 c"],
        shift: Float[Tensor, "n_or_1 c"],
        kernel: Float[Tensor, "c2 c kh kw"],
        bias: Float[Tensor, "clips c2"],
        residual: Float[Tensor, "n c2 h w"] | None,
        shape: tuple[int, float, tuple[int, int]],
    ) -> Float[Tensor, "n c2 h w"]:
        """Return the sum; ``shape`` holds the number of groups, epsilon and the padding."""
        num_groups, eps, padding = shape
        x = x.contiguous(memory_format=torch.channels_last)
        # The CUDA kernel takes the contiguous layout only.
        source = x if x.device.type == "cpu" else x.contiguous()
        n, c, h, w = x.shape
        same_for_all = len(scale) == 1
        affine = (scale[0], shift[0]) if same_for_all else (None, None)
        if x.device.type != "cpu" and same_for_all:
            affine = scale[0].to(x.dtype), shift[0].to(x.dtype)
        activated, mean, rstd = torch.native_group_norm(source, *affine, n, c, h * w, num_groups, eps)
        activated = activated.contiguous(memory_format=torch.channels_last)
        if same_for_all:
            F.silu(activated, inplace=True)
        else:
            for part in _slices(x):
                _silu_of_affine(activated, scale, shift, part, _rows(activated)[part])
        out = F.conv2d(activated, kernel, bias[0] if len(bias) == 1 else None, padding=padding)
        if len(bias) > 1:
            out += bias.repeat_interleave(len(x) // len(bias), 0)[:, :, None, None]
        if residual is not None:
            out += residual
        ctx.save_for_backward(x, scale, shift, mean, rstd, kernel, bias)
        ctx.num_groups, ctx.padding, ctx.has_residual = num_groups, padding, residual is not None
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Float[Tensor, "n c2 h w"]) -> tuple[Tensor | None, ...]:
        """Return the gradients."""
        x, scale, shift, mean, rstd, kernel, bias = ctx.saved_tensors
        mean, rstd = (wide(values).repeat_interleave(x.shape[1] // values.shape[1], 1) for values in (mean, rstd))
        slope = scale * rstd
        offset = shift - mean * slope
        activated = torch.empty_like(x)
        for part in _slices(x):
            _silu_of_affine(x, slope, offset, part, _rows(activated)[part])
        wanted = [any(ctx.needs_input_grad[:3]), ctx.needs_input_grad[3], False]
        of_activated, of_kernel, _ = torch.ops.aten.convolution_backward(
            grad, activated, kernel, None, (1, 1), ctx.padding, (1, 1), False, (0, 0), 1, wanted
        )
        of_inputs = (None, None, None)
        if wanted[0]:
            of_activated = of_activated.contiguous(memory_format=torch.channels_last)
            of_inputs = _through_normalization(of_activated, x, scale, slope, offset, mean, rstd, ctx.num_groups)
        of_bias = grad.sum((2, 3)).unflatten(0, (len(bias), -1)).sum(1) if ctx.needs_input_grad[4] else None
        return *of_inputs, of_kernel, of_bias, grad if ctx.has_residual else None, None


def _through_normalization(
    grad: Picture,
    x: Picture,
    scale: Float[Tensor, "n_or_1 c"],
    slope: Float[Tensor, "n c"],
    offset: Float[Tensor, "n c"],
    mean: Float[Tensor, "n c"],
    rstd: Float[Tensor, "n c"],
    num_groups: int,
) -> tuple[Picture, Float[Tensor, "n_or_1 c"], Float[Tensor, "n_or_1 c"]]:
    """Return the gradients of ``x``, scale and shift from ``grad``, that of ``silu(normalized)``.

    The gradient of ``x`` takes the place of ``grad`` in memory.

    With the sums ``s`` of ``g`` and ``s_x`` of ``g x`` over the pixels of a channel, where ``g`` is the gradient of the
    normalized activations, and ``d``, ``d_x`` those of ``scale s``, ``scale s_x`` over the M values of a group:
    ``grad_x = slope g + a (x - mean) - rstd d / M``, where ``a = (mean d - d_x) rstd^3 / M``.
    """
    total, total_x = torch.zeros_like(slope), torch.zeros_like(slope)
    for part in _slices(x):
        rows, normalized = _rows(grad)[part], _affine(x, slope, offset, part)
        of_normalized = rows if rows.dtype == normalized.dtype else wide(rows)
        torch.ops.aten.silu_backward.grad_input(of_normalized, normalized, grad_input=of_normalized)
        if of_normalized is not rows:
            rows.copy_(of_normalized)
        total[part[0]] += of_normalized.sum(1)
        total_x[part[0]] += torch.mul(of_normalized, _rows(x)[part], out=normalized).sum(1)

    def mean_over_group(values: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
        of_group = (values * scale).unflatten(1, (num_groups, -1)).sum(-1) / (x[0].numel() // num_groups)
        return of_group.repeat_interleave(x.shape[1] // num_groups, 1)

    a = (mean * mean_over_group(total) - mean_over_group(total_x)) * rstd**3
    constant = -a * mean - rstd * mean_over_group(total)
    for part in _slices(x):
        a_, constant_, slope_ = (values[part[0], None] for values in (a, constant, slope))
        of_rows = wide(_rows(grad)[part])
        torch.addcmul(constant_, slope_, of_rows, out=of_rows).addcmul_(a_, wide(_rows(x)[part]))
        if of_rows.dtype != grad.dtype:
            _rows(grad)[part] = of_rows
    of_scale, of_shift = (
        each.sum_to_size(scale.shape).to(scale.dtype) for each in ((total_x - mean * total) * rstd, total)
    )
    return grad, of_scale, of_shift


def _affine(
    x: Picture, scale: Float[Tensor, "n c"], shift: Float[Tensor, "n c"], part: tuple[slice, slice]
) -> Float[Tensor, "m r c"]:
    return torch.addcmul(shift[part[0], None], scale[part[0], None], wide(_rows(x)[part]))


def _silu_of_affine(
    x: Picture,
    scale: Float[Tensor, "n c"],
    shift: Float[Tensor, "n c"],
    part: tuple[slice, slice],
    out: Float[Tensor, "m r c"],
) -> None:
    if x.dtype == scale.dtype:
        torch.addcmul(shift[part[0], None], scale[part[0], None], _rows(x)[part], out=out)
        F.silu(out, inplace=True)
    else:
        out.copy_(F.silu(_affine(x, scale, shift, part), inplace=True))


def _rows(x: Picture) -> Float[Tensor, "n hw c"]:
    """View pictures that are channels-last in memory as rows of channels."""
    n, c, h, w = x.shape
    return x.permute(0, 2, 3, 1).view(n, h * w, c)


def _slices(x: Picture) -> list[tuple[slice, slice]]:
    """Return slices over pictures and rows that fit in the processor's cache; one slice for all on other devices."""
    if not is_in_cpu_memory(x):
        return [(slice(None), slice(None))]
    num_rows = x.shape[2] * x.shape[3]
    size = max(1, _VALUES // x.shape[1])
    pictures = max(1, size // num_rows)
    return [
        (slice(n, n + pictures), slice(start, start + size))
        for n in range(0, len(x), pictures)
        for start in range(0, num_rows, size)
    ]
