"""Attention gives the textbook's result under each of PyTorch's kernels, and a fused one is taken on a GPU."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile

from vdm.models.attention import attend, mask_bias

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("default")]

HEADS, WIDTH, FRAMES = 4, 32, 14
SHAPES = {
    "space": ((2, FRAMES), 256, 256),
    "time": ((2, 64), FRAMES, FRAMES),
    "text": ((2,), FRAMES * 64, 77),
}
"""Axes of the batch, queries and keys of what the networks attend to."""
BACKENDS = [SDPBackend.MATH, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION]
WITHOUT_BIAS = {SDPBackend.FLASH_ATTENTION}
"""Kernels that take no bias."""


def inputs(kind: str, device: str, dtype: torch.dtype) -> list[Tensor]:
    """Return queries, keys and values with an axis of heads before tokens, laid out as the networks have them."""
    batch, n, m = SHAPES[kind]
    random = torch.Generator().manual_seed(0)
    drawn = [torch.randn(*batch, length, HEADS, WIDTH, generator=random) for length in (n, m, m)]
    return [tensor.to(device, dtype).transpose(-2, -3).requires_grad_() for tensor in drawn]


def bias(kind: str, device: str, dtype: torch.dtype) -> Tensor | None:
    """Return what the networks add to the scores: nothing in space, positions in time, the mask of a text."""
    if kind == "time":
        return torch.randn(HEADS, FRAMES, FRAMES, generator=torch.Generator().manual_seed(1)).to(device)
    if kind == "text":
        keys = torch.arange(SHAPES[kind][2])
        return mask_bias(torch.stack([keys < 70, keys < 5]), dtype).to(device)
    return None


def textbook(query: Tensor, key: Tensor, value: Tensor, added: Tensor | None = None) -> Tensor:
    """Softmax(q k / sqrt(d) + bias) v (Vaswani et al. 2017, equation 1)."""
    scores = query @ key.mT / query.shape[-1] ** 0.5
    return (scores if added is None else scores + added).softmax(-1) @ value


def with_gradients(attention: Callable[..., Tensor], tensors: list[Tensor], added: Tensor | None) -> list[Tensor]:
    """Return the result, and gradients of a sum of it with weights of both signs, in fp64 on the CPU."""
    result = attention(*tensors, added)
    weights = torch.randn(result.shape, generator=torch.Generator().manual_seed(2)).to(result)
    return [
        tensor.detach().cpu().double() for tensor in (result, *torch.autograd.grad((result * weights).sum(), tensors))
    ]


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.name.lower())
@pytest.mark.parametrize("kind", SHAPES)
def test_each_kernel_gives_what_the_textbook_does(device: str, kind: str, backend: SDPBackend) -> None:
    added = bias(kind, device, torch.bfloat16)
    if added is not None and backend in WITHOUT_BIAS:
        pytest.skip(f"{backend.name} takes no bias")
    tensors = inputs(kind, device, torch.bfloat16)
    exact = [tensor.detach().cpu().double().requires_grad_() for tensor in tensors]
    expected = with_gradients(textbook, exact, None if added is None else added.to(torch.bfloat16).cpu().double())
    with sdpa_kernel(backend):
        try:
            found = with_gradients(attend, tensors, added)
        except RuntimeError as error:
            if "No available kernel" not in str(error) and "No viable backend" not in str(error):
                raise
            pytest.skip(f"{backend.name} is not for this device or build")
    for result, reference in zip(found, expected, strict=True):
        # bf16 has 8 binary digits; errors of single products are random and grow less than their sum.
        torch.testing.assert_close(result, reference, rtol=2e-2, atol=2e-2 * reference.abs().max().item())


@pytest.mark.parametrize("kind", SHAPES)
def test_no_attention_of_the_networks_falls_back_to_unfused_products(device: str, kind: str) -> None:
    if device == "cpu":
        pytest.skip("short sequences are attended to in another way on CPUs")
    tensors, added = inputs(kind, device, torch.bfloat16), bias(kind, device, torch.bfloat16)
    with profile(activities=[ProfilerActivity.CPU]) as events:
        attend(*tensors, added)
    kernels = {event.key for event in events.key_averages() if "scaled_dot_product_" in event.key}
    print(kind, sorted(kernels))
    assert any("flash" in kernel or "efficient" in kernel or "cudnn" in kernel for kernel in kernels)
    assert not any("math" in kernel for kernel in kernels)


def test_positions_learn_under_the_kernel_that_is_taken(device: str) -> None:
    tensors = inputs("time", device, torch.float32)
    added = bias("time", device, torch.float32)
    assert added is not None
    added.requires_grad_()
    attend(*tensors, added).square().sum().backward()
    exact = added.detach().cpu().double().requires_grad_()
    textbook(*(tensor.detach().cpu().double() for tensor in tensors), exact).square().sum().backward()
    assert added.grad is not None
    assert exact.grad is not None
    torch.testing.assert_close(added.grad.cpu().double(), exact.grad, rtol=1e-3, atol=1e-3)


def test_more_sequences_than_kernels_take_at_once_are_attended_to(device: str) -> None:
    number = 70_000  # CUDA's limit is 65,535
    query, key, value = torch.randn(3, 2, number // 2, 1, 2, 8, generator=torch.Generator().manual_seed(0))
    found = attend(query.to(device), key.to(device), value.to(device))
    torch.testing.assert_close(found.cpu(), textbook(query, key, value), rtol=1e-4, atol=1e-5)
