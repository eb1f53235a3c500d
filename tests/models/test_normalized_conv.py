"""Convolutions of normalized activations, against the same written out."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.models.networks import random_input, randomized
from vdm.models import normalized_conv
from vdm.models.blocks import ClipNorm, FrameNorm, SpatialConv, TemporalConv
from vdm.models.normalized_conv import convolve_normalized

KINDS = {
    "space": lambda: (FrameNorm(32), SpatialConv(32, 32)),
    "time": lambda: (ClipNorm(32, 1e-5), TemporalConv(32)),
}
Kind = Callable[[], tuple[nn.Module, nn.Module]]


class Written(nn.Module):
    """Norm and convolution."""

    def __init__(self, kind: Kind) -> None:
        super().__init__()
        self.norm, self.conv = kind()

    def forward(self, x: Tensor, shift: Tensor, residual: Tensor, lean: bool) -> Tensor:
        if lean:
            return convolve_normalized(x, self.norm, self.conv, shift, residual)
        shift = shift if shift.ndim == 3 else shift[:, None]
        return self.conv(F.silu(self.norm(x))) + shift[:, :, None, None] + residual


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    monkeypatch.setattr(normalized_conv, "_VALUES", 32 * 4)  # slices of four pixels, the last one shorter
    return randomized(Written(request.param))


def inputs(batch_size: int, size: tuple[int, int, int] = (3, 2, 5)) -> tuple[Tensor, Tensor, Tensor]:
    """Return activations, whose mean is not zero, a shift and a residual."""
    x, residual = (random_input(name, batch_size, *size, 32) for name in ("x", "residual"))
    return 2 * x + 3, random_input("shift", batch_size, 32), residual


def gradients(block: nn.Module, given: tuple[Tensor, ...], lean: bool) -> list[Tensor]:
    block.zero_grad()
    given = tuple(tensor.clone().requires_grad_() for tensor in given)
    out = block(*given, lean)
    (out * random_input("weights of outputs", *out.shape).to(out.dtype)).sum().backward()
    return [out.detach(), *(tensor.grad for tensor in (*given, *block.parameters()) if tensor.grad is not None)]


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("per_frame", [False, True])
def test_output_and_gradients_are_those_of_what_is_written(block: nn.Module, batch_size: int, per_frame: bool) -> None:
    x, shift, residual = (tensor.double() for tensor in inputs(batch_size))
    given = (x, random_input("shift", batch_size, 3, 32).double() if per_frame else shift, residual)
    block = block.double()
    lean, written = gradients(block, given, True), gradients(block, given, False)
    assert len(lean) == len(written) == 8
    for found, expected in zip(lean, written, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("size", [(1, 1, 1), (1, 1, 4), (4, 1, 1)], ids=str)
def test_a_single_frame_row_or_pixel_is_no_exception(block: nn.Module, size: tuple[int, int, int]) -> None:
    given = inputs(2, size)
    for found, expected in zip(gradients(block, given, True), gradients(block, given, False), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_gradients_are_those_of_finite_differences(block: nn.Module) -> None:
    given = tuple(tensor.double().requires_grad_() for tensor in inputs(1, (2, 1, 3)))
    assert torch.autograd.gradcheck(lambda *tensors: block.double()(*tensors, True), given, fast_mode=True)


def test_autocast_is_as_exact_as_what_is_written(block: nn.Module) -> None:
    given = inputs(2)
    exact = gradients(block, given, False)
    given = tuple(tensor.bfloat16() for tensor in given)
    with torch.autocast("cpu", torch.bfloat16):
        lean, written = gradients(block, given, True), gradients(block, given, False)

    def error(tensors: list[Tensor]) -> float:
        relative = [(found - true).norm() / true.norm() for found, true in zip(tensors, exact, strict=True)]
        return sum(map(float, relative))

    assert error(lean) < 1.2 * error(written)


def test_a_third_as_much_is_kept(block: nn.Module) -> None:
    x, shift, _ = inputs(1, (8, 16, 16))
    x.requires_grad_()

    def kept(lean: bool) -> int:
        storages: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            block(x, shift, x, lean)
        return sum(storages.values()) - sum(parameter.nbytes for parameter in block.parameters())

    assert kept(True) < 0.36 * kept(False)
