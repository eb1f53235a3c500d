"""Operations that keep little, against the same written out."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.models.networks import random_input
from vdm.models.dit import lean
from vdm.models.dit.lean import gated_sum, linear_of_gelu, linears_of_modulated_norm

B, T, H, W, C = 2, 3, 2, 4, 6
EPS = 1e-6


def layers(widths: tuple[int, ...], channels: int = C) -> list[nn.Linear]:
    torch.manual_seed(1)
    return [nn.Linear(channels, width).double() for width in widths]


def norm_written(x: Tensor, shift: Tensor, scale: Tensor, *linear: nn.Linear) -> Tensor:
    h = F.layer_norm(x, x.shape[-1:], eps=EPS) * (1 + scale) + shift
    return torch.cat([layer(h.to(layer.weight.dtype)) for layer in linear], dim=-1)


def norm_lean(x: Tensor, shift: Tensor, scale: Tensor, *linear: nn.Linear) -> Tensor:
    return torch.cat(linears_of_modulated_norm(x, shift, scale, EPS, linear), dim=-1)


def gradients(function: Callable[..., Tensor], tensors: list[Tensor], modules: list[nn.Linear]) -> list[Tensor]:
    for module in modules:
        module.zero_grad()
    tensors = [tensor.clone().requires_grad_() for tensor in tensors]
    out = function(*tensors, *modules)
    (out * random_input("weights of outputs", *out.shape).to(out.dtype)).sum().backward()
    weights = [weight for module in modules for weight in module.parameters() if weight.requires_grad]
    grads = [tensor.grad for tensor in (*tensors, *weights)]
    assert all(grad is not None for grad in grads)
    return [out.detach(), *(grad for grad in grads if grad is not None)]


@pytest.mark.parametrize("per", [(B, 1), (B, T), (1, 1)], ids=["clip", "frame", "network"])
def test_linear_layers_of_a_modulated_normalization_are_what_is_written(per: tuple[int, int]) -> None:
    x = random_input("x", B, T, H, W, C).double()
    shift, scale = (random_input(name, *per, 1, 1, C).double() for name in ("shift", "scale"))
    linear = layers((4, 5, 6))
    found, expected = (gradients(each, [x, shift, scale], linear) for each in (norm_lean, norm_written))
    assert len(found) == len(expected) == 10
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_weights_that_are_frozen_get_no_gradient_and_the_others_the_same() -> None:
    x = random_input("x", B, T, H, W, C).double()
    shift, scale = (random_input(name, B, 1, 1, 1, C).double() for name in ("shift", "scale"))
    linear = layers((4, 5))
    linear[0].requires_grad_(False)
    found, expected = (gradients(each, [x, shift, scale], linear) for each in (norm_lean, norm_written))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    assert linear[0].weight.grad is None


def test_layers_that_were_wrapped_are_called() -> None:
    class Doubled(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return 2 * super().forward(input)

    x = random_input("x", B, T, H, W, C)
    shift = scale = torch.zeros(B, 1, 1, 1, C)
    plain, wrapped = nn.Linear(C, 4), Doubled(C, 4)
    wrapped.load_state_dict(plain.state_dict())
    (one,), (two,) = (linears_of_modulated_norm(x, shift, scale, EPS, [layer]) for layer in (plain, wrapped))
    torch.testing.assert_close(two, 2 * one)
    torch.testing.assert_close(linear_of_gelu(x, wrapped, "tanh"), 2 * linear_of_gelu(x, plain, "tanh"))


@pytest.mark.parametrize("approximate", ["tanh", "none"])
def test_linear_layer_of_gelu_is_what_is_written(approximate: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lean, "_SLICE", 5)  # of 48 rows: several, the last one shorter
    x = random_input("x", B, T, H, W, C).double()
    (linear,) = layers((4,))
    found = gradients(lambda x, layer: linear_of_gelu(x, layer, approximate), [x], [linear])
    expected = gradients(lambda x, layer: layer(F.gelu(x, approximate=approximate)), [x], [linear])
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("per", [(B, 1), (B, T)])
def test_gated_sum_is_what_is_written(per: tuple[int, int]) -> None:
    x, branch = (random_input(name, B, T, H, W, C).double() for name in ("x", "branch"))
    gate = random_input("gate", *per, 1, 1, C).double()
    found = gradients(gated_sum, [x, branch, gate], [])
    expected = gradients(lambda x, branch, gate: x + branch * gate, [x, branch, gate], [])
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_half_precision_is_as_exact_as_what_is_written() -> None:
    x = random_input("x", B, T, H, W, C)
    shift, scale = (random_input(name, B, 1, 1, 1, C) for name in ("shift", "scale"))
    linear = [layer.float() for layer in layers((4, 5))]
    exact = gradients(norm_written, [x, shift, scale], linear)
    with torch.autocast("cpu", torch.bfloat16):
        found = gradients(norm_lean, [x.bfloat16(), shift, scale], linear)
        written = gradients(norm_written, [x.bfloat16(), shift, scale], linear)
    for one, other, true in zip(found, written, exact, strict=True):
        assert one.dtype == other.dtype
        assert (one - true).norm() < 1.5 * (other - true).norm() + 1e-3 * true.norm()


def test_kept_for_the_backward_pass_are_the_inputs_alone() -> None:
    kept: list[int] = []
    x = random_input("x", B, T, H, W, C).requires_grad_()
    shift, scale, gate = (random_input(name, B, 1, 1, 1, C).requires_grad_() for name in ("shift", "scale", "gate"))
    linear = [nn.Linear(C, 4 * C), nn.Linear(4 * C, C)]
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.data_ptr()) or t, lambda t: t):
        (hidden,) = linears_of_modulated_norm(x, shift, scale, EPS, linear[:1])
        branch = linear_of_gelu(hidden, linear[1], "tanh")
        gated_sum(x, branch, gate)
    pointers = {tensor.data_ptr() for tensor in (x, hidden, branch, shift, scale, gate)}
    weights = {weight.data_ptr() for layer in linear for weight in layer.parameters()}
    others = [pointer for pointer in set(kept) if pointer not in pointers | weights]
    assert len(others) == 2, "mean and deviation of each token"
