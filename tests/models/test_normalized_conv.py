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


class Modulated(nn.Module):
    """Norm, modulation and convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.conv = KINDS["space"]()

    def forward(self, x: Tensor, scale: Tensor, offset: Tensor, residual: Tensor, lean: bool) -> Tensor:
        if lean:
            return convolve_normalized(x, self.norm, self.conv, residual=residual, modulation=(scale, offset))
        scale, offset = scale[:, :, None, None], offset[:, :, None, None]
        return self.conv(F.silu(self.norm(x) * (1 + scale) + offset)) + residual


def modulated_inputs(batch_size: int, num_modulations: int) -> tuple[Tensor, ...]:
    x, _, residual = inputs(batch_size)
    scale, offset = (random_input(name, batch_size, num_modulations, 32) for name in ("scale", "offset"))
    return x, scale, offset, residual


@pytest.fixture
def modulated(monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    monkeypatch.setattr(normalized_conv, "_VALUES", 32 * 4)
    return randomized(Modulated())


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("per_frame", [False, True])
def test_modulated_output_and_gradients_are_those_of_what_is_written(
    modulated: nn.Module, batch_size: int, per_frame: bool
) -> None:
    given = tuple(tensor.double() for tensor in modulated_inputs(batch_size, 3 if per_frame else 1))
    modulated = modulated.double()
    lean, written = gradients(modulated, given, True), gradients(modulated, given, False)
    assert len(lean) == len(written) == 9
    for found, expected in zip(lean, written, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("frozen", ["scale", "offset", "weights"])
def test_what_is_not_trained_gets_no_gradient(modulated: nn.Module, frozen: str) -> None:
    x, scale, offset, residual = (tensor.double() for tensor in modulated_inputs(2, 1))
    modulated = modulated.double().requires_grad_(frozen != "weights")
    scale.requires_grad_(frozen != "scale")
    offset.requires_grad_(frozen != "offset")
    x.requires_grad_()  # without it PyTorch's own normalization crashes on CPUs
    trained = [each for each in (x, scale, offset, *modulated.parameters()) if each.requires_grad]

    def found(lean: bool) -> list[Tensor | None]:
        for each in trained:
            each.grad = None
        modulated(x, scale, offset, residual, lean).square().sum().backward()
        return [each.grad for each in trained]

    torch.testing.assert_close(found(True), found(False), rtol=1e-10, atol=1e-10)
    assert all(each.grad is None for each in (scale, offset) if not each.requires_grad)


def test_modulated_autocast_is_as_exact_as_what_is_written(modulated: nn.Module) -> None:
    given = modulated_inputs(2, 3)
    exact = gradients(modulated, given, False)
    given = tuple(tensor.bfloat16() for tensor in given)
    with torch.autocast("cpu", torch.bfloat16):
        lean, written = gradients(modulated, given, True), gradients(modulated, given, False)
    error = {
        name: sum(float((found - true).norm() / true.norm()) for found, true in zip(tensors, exact, strict=True))
        for name, tensors in (("lean", lean), ("written", written))
    }
    assert error["lean"] < 1.2 * error["written"]


def test_a_modulated_convolution_drops_activations_in_training_alone(modulated: nn.Module) -> None:
    x, scale, offset, residual = modulated_inputs(1, 1)
    given = {"residual": residual, "modulation": (scale, offset), "dropout": nn.Dropout(1.0)}
    dropped = convolve_normalized(x, modulated.norm, modulated.conv, **given)
    kept = convolve_normalized(x, modulated.norm, modulated.conv, **{**given, "dropout": nn.Dropout(1.0).eval()})
    torch.testing.assert_close(dropped, modulated.conv.bias + residual)
    torch.testing.assert_close(kept, modulated(x, scale, offset, residual, False), rtol=1e-4, atol=1e-4)
