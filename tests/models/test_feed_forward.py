"""The feed-forward network that keeps little, against the same written out."""

import pytest
import torch
from torch import Tensor, nn

from tests.models.networks import random_input, randomized
from vdm.models import feed_forward
from vdm.models.feed_forward import FeedForward, add_feed_forward


class Written(nn.Module):
    """A block of one residual feed-forward network."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.network = nn.LayerNorm(6), FeedForward(6)

    def forward(self, x: Tensor, lean: bool) -> Tensor:
        return add_feed_forward(x, self.norm, self.network) if lean else x + self.network(self.norm(x))


@pytest.fixture
def block(monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    monkeypatch.setattr(feed_forward, "_SLICE", 5)  # of 24 rows: several, the last one shorter
    return randomized(Written())


def gradients(block: nn.Module, x: Tensor, lean: bool) -> list[Tensor]:
    block.zero_grad()
    x = x.clone().requires_grad_()
    out = block(x, lean)
    (out * random_input("weights of outputs", *out.shape).to(out.dtype)).sum().backward()
    return [out.detach(), *(tensor.grad for tensor in (x, *block.parameters()) if tensor.grad is not None)]


def test_output_and_gradients_are_those_of_what_is_written(block: nn.Module) -> None:
    block, x = block.double(), random_input("x", 1, 2, 3, 4, 6).double()
    lean, written = gradients(block, x, True), gradients(block, x, False)
    assert len(lean) == len(written) == 8
    for found, expected in zip(lean, written, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_gradients_are_those_of_finite_differences(block: nn.Module) -> None:
    block = block.double()
    x = random_input("x", 1, 1, 2, 4, 6).double().requires_grad_()

    def run(x: Tensor, *parameters: Tensor) -> Tensor:
        return torch.func.functional_call(block, dict(zip(names, parameters, strict=True)), (x, True))

    names = [name for name, _ in block.named_parameters()]
    assert torch.autograd.gradcheck(run, (x, *block.parameters()))


def test_autocast_is_as_exact_as_what_is_written(block: nn.Module) -> None:
    x = random_input("x", 1, 2, 3, 4, 6)
    exact = gradients(block, x, False)
    with torch.autocast("cpu", torch.bfloat16):
        lean, written = gradients(block, x.bfloat16(), True), gradients(block, x.bfloat16(), False)

    def error(tensors: list[Tensor]) -> float:
        relative = [(found - true).norm() / true.norm() for found, true in zip(tensors, exact, strict=True)]
        return sum(map(float, relative))

    assert error(lean) < 1.2 * error(written)


def test_half_as_much_is_kept(block: nn.Module) -> None:
    x = random_input("x", 1, 8, 8, 8, 6).requires_grad_()

    def kept(lean: bool) -> int:
        storages: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            block(x, lean)
        return sum(storages.values())

    assert kept(True) < 0.52 * kept(False)


def test_a_wrapped_layer_is_called(block: nn.Module) -> None:
    class Doubled(nn.Module):
        def __init__(self, layer: nn.Module) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Tensor) -> Tensor:
            return 2 * self.layer(x)

    x = random_input("x", 1, 2, 3, 4, 6)
    plain = block(x, True)
    block.network.net[2] = Doubled(block.network.net[2])
    torch.testing.assert_close(block(x, True) - x, 2 * (plain - x))
