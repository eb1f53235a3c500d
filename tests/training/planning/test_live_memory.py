"""Memory of tensors from moment to moment, with and without memory behind them."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.training.runs import configuration
from vdm.assembly.build_model import build_model
from vdm.training.planning.live_memory import LiveMemory
from vdm.training.planning.structure import no_memory

FLOAT = 4


def test_storages_are_counted_once_and_until_they_are_let_go() -> None:
    with LiveMemory([]) as memory:
        first = torch.zeros(100)
        view = first.view(10, 10).transpose(0, 1)
        assert memory.other_bytes == 100 * FLOAT
        second = first + 1
        del first
        assert memory.other_bytes == 200 * FLOAT  # the view keeps it
        del view
        second.add_(1)
        assert memory.other_bytes == 100 * FLOAT
        del second
    assert memory.other_bytes == 0
    assert memory.peak() == 200 * FLOAT


def test_gradients_are_told_apart_and_counted_by_their_share() -> None:
    layer = nn.Linear(10, 20, bias=False)
    x = torch.ones(5, 10)
    with LiveMemory(layer.parameters()) as memory:
        loss = layer(x).sum()
        loss.backward()
        del loss
    assert memory.moments[-1] == (200 * FLOAT, 0, 0)
    # Before the gradient comes: the layer's output, the loss, its gradient and the gradient, all as "other".
    assert memory.peak(share_of_gradients=0) == max(moment.other for moment in memory.moments)


@pytest.mark.parametrize("overrides", [(), ("blocks.recompute=all", "trainer.precision=bf16-mixed")])
def test_step_without_memory_is_that_of_a_real_one(overrides: tuple[str, ...]) -> None:
    config = configuration(Path("nowhere"), *overrides)
    peaks: list[tuple[int, int]] = []
    for mode in (FakeTensorMode(allow_non_fake_inputs=True), None):
        where: AbstractContextManager[object] = nullcontext() if mode is None else no_memory(mode)
        model = build_model(config, on=where)
        where = nullcontext() if mode is None else no_memory(mode)
        with where:
            x0, t = torch.zeros(2, 3, 4, 16, 32), torch.full((2,), 0.5)
            prompts = model.prompts(["a caption"] * 2)
            with LiveMemory(list(model.parameters())) as memory:
                loss = model.denoising_loss(x0, torch.zeros_like(x0), t, prompts).mean()
                kept = memory.other_bytes
                loss.backward()
        peaks.append((kept, memory.peak()))
    assert peaks[0] == pytest.approx(peaks[1], rel=0.03)
