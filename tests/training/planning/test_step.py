"""What a planned step is said to keep and to compute, against the step itself."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.training.experts import of_experts
from tests.training.runs import configuration
from vdm.assembly.build_model import build_model
from vdm.config import build
from vdm.models.attention import attend
from vdm.training.planning.live_memory import LiveMemory
from vdm.training.planning.step import Clips, flop_counter, measure_step
from vdm.types import ClipSize

CLIPS = Clips(2, ClipSize(num_frames=4, height=16, width=32), caption="a caption")


@pytest.mark.parametrize("recompute", ["none", "all"])
def test_memory_and_work_are_those_of_a_real_step(recompute: str) -> None:
    config = configuration(Path("nowhere"), f"blocks.recompute={recompute}")
    planned = measure_step(config, CLIPS)

    model = build_model(config)
    build(config["blocks"], "blocks").apply(model)

    def step() -> None:
        x0 = model.encoder.encode(torch.zeros(2, 3, 4, 16, 32, dtype=torch.uint8))
        prompts = model.prompts(["a caption"] * 2)
        model.denoising_loss(x0, torch.randn_like(x0), torch.rand(2), prompts).mean().backward()

    with LiveMemory(list(model.parameters())) as memory:
        step()
    with flop_counter() as counter:
        step()
    assert planned.peak_bytes(1, gradients_from_the_start=False) == pytest.approx(memory.peak(), rel=0.03)
    assert planned.flops == counter.get_total_flops()


def test_recomputed_blocks_take_less_memory_and_more_work() -> None:
    wide = replace(CLIPS, number=8)
    kept, recomputed = (
        measure_step(configuration(Path("nowhere"), f"blocks.recompute={blocks}"), wide) for blocks in ("none", "all")
    )
    assert recomputed.kept.other < 0.5 * kept.kept.other
    assert recomputed.peak_bytes(0, gradients_from_the_start=False) < 0.75 * kept.peak_bytes(
        0, gradients_from_the_start=False
    )
    assert 1.2 * kept.flops < recomputed.flops < 4 / 3 * kept.flops  # a forward pass more, of what are three


def test_copies_of_weights_in_mixed_precision_are_told_apart_as_fsdp2_makes_none() -> None:
    small = Clips(1, ClipSize(num_frames=1, height=16, width=16))
    full, mixed = (
        measure_step(configuration(Path("nowhere"), f"trainer.precision={precision}"), small)
        for precision in ("32-true", "bf16-mixed")
    )
    layers = [m for m in build_model(configuration(Path("nowhere"))).modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    assert full.kept.copies == 0
    # Two bytes for each weight of a product and each bias; some layers are not run for one frame.
    assert mixed.kept.copies / 2 == pytest.approx(sum(layer.weight.numel() for layer in layers), rel=0.1)
    assert mixed.kept.bytes(0, share_of_copies=0) == mixed.kept.other


def test_work_of_fused_attention_is_counted() -> None:
    b, heads, n, m, d = 2, 3, 100, 70, 8
    with FakeTensorMode():
        query, key = torch.empty(b, heads, n, d, requires_grad=True), torch.empty(b, heads, m, d, requires_grad=True)
        with flop_counter() as counter:
            attended = attend(query, key, key)
            assert counter.get_total_flops() == 2 * (2 * b * heads * n * m * d)  # scores; values by probabilities
            attended.sum().backward()
    # Scores again; gradients of values, probabilities, queries, keys.
    assert counter.get_total_flops() == (2 + 5) * (2 * b * heads * n * m * d)


def test_both_experts_are_stored_and_one_of_them_computes() -> None:
    both = measure_step(of_experts(Path("nowhere")), CLIPS)
    one = measure_step({**of_experts(Path("nowhere")), "experts": "low"}, CLIPS)
    assert one.num_trained + one.num_frozen == both.num_trained
    assert (one.saved_bytes, one.flops) == (both.saved_bytes, both.flops)
    assert both.gradient_bytes == one.gradient_bytes == one.trained_bytes < both.trained_bytes
    # Adam's two moments, and a count of 4 bytes for each weight.
    assert both.optimizer_bytes > one.optimizer_bytes >= 2 * one.trained_bytes
