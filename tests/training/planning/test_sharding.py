"""Each strategy's share of weights, gradients and optimizer state, by the arithmetic of Rajbhandari et al. 2020."""

from dataclasses import replace

import pytest
import torch

from vdm.training.devices import Devices
from vdm.training.planning.live_memory import Moment
from vdm.training.planning.sharding import (
    Sharding,
    ddp,
    fsdp2,
    memory_of,
    sharding_of,
    single,
    single_offloading,
    zero,
)
from vdm.training.planning.step import StepMeasure
from vdm.training.strategies.ddp import DataParallel
from vdm.training.strategies.deepspeed import DeepSpeedZeRO
from vdm.training.strategies.fsdp2 import FSDP2
from vdm.training.strategies.single import SingleDevice

N = 1_000_000_000
STEP = StepMeasure(
    num_trained=N,
    num_frozen=0,
    trained_bytes=4 * N,
    gradient_bytes=4 * N,
    idle_bytes=0,
    frozen_bytes=0,
    saved_bytes=4 * N,
    block_bytes=(N, N, N // 2),
    optimizer_bytes=8 * N,
    optimizer_peak_bytes=0,
    kept=Moment(0, 0, 3 * N),
    # Activations grow to the end of the forward pass, and go as gradients come.
    moments=(Moment(0, 0, 0), Moment(0, 0, 3 * N), Moment(0, 0, 4 * N), Moment(2 * N, 0, 2 * N), Moment(4 * N, 0, 0)),
    flops=1,
)


@pytest.mark.parametrize(
    ("sharding", "weights", "gradients", "optimizer", "ema"),
    [
        (single(), 4, 4, 8, 8),
        (ddp(), 4, 4, 8, 8),
        (fsdp2(STEP, 8, 2, product_bytes=4), 0.5, 0.5, 1, 1),
        (zero(STEP, 1, 8, 2), 4.5, 4, 1, 1),  # the share that is stepped is a second copy
        (zero(STEP, 2, 8, 2), 4.5, 0.5, 1, 1),
        (zero(STEP, 3, 8, 2), 0.5, 0.5, 1, 1),
        (zero(STEP, 2, 8, 2, offload_optimizer=True), 4, 0.5, 0, 0),
        (fsdp2(STEP, 8, 2, product_bytes=4, offload=True), 0, 0, 0, 0),
    ],
    ids=lambda value: value.name if isinstance(value, Sharding) else "",
)
def test_shares_are_those_of_the_strategy(
    sharding: Sharding, weights: float, gradients: float, optimizer: float, ema: float
) -> None:
    memory = memory_of(sharding, STEP, num_emas=2, several_micro_batches=False)
    found = (memory.weights, memory.gradients, memory.optimizer, memory.ema)
    assert [part / N for part in found] == pytest.approx([weights, gradients, optimizer, ema])


def test_frozen_weights_of_the_network_are_shared_and_those_outside_are_not() -> None:
    step = replace(STEP, frozen_bytes=10 * N, saved_bytes=(4 + 8) * N, block_bytes=(6 * N, 3 * N, 3 * N))

    def weights(sharding: Sharding) -> float:
        return memory_of(sharding, step, num_emas=1, several_micro_batches=False).weights / N

    assert weights(ddp()) == 4 + 10
    assert weights(zero(step, 2, 8, 1)) == 4.5 + 10
    assert weights(zero(step, 3, 8, 1)) == (4 + 8) / 8 + 2
    assert weights(fsdp2(step, 8, 1, product_bytes=4)) == (4 + 8) / 8 + 2
    assert fsdp2(step, 8, 1, product_bytes=4).buffers == (12 + 8) * N  # all blocks, and at most all gradients twice
    assert fsdp2(step, 8, 1, 4, offload=True).host_bytes == (4 + 8 + 4 + 8 + 4) * N // 8


def test_offloaded_shares_lie_in_the_host() -> None:
    assert fsdp2(STEP, 8, 2, 4, offload=True).host_bytes == (4 + 4 + 8 + 2 * 4) * N // 8
    assert zero(STEP, 2, 8, 2, offload_optimizer=True).host_bytes == (4 + 8 + 2 * 4) * N // 8
    assert zero(STEP, 3, 8, 2, True, True).host_bytes == (4 + 4 + 8 + 2 * 4) * N // 8


def test_peak_is_the_most_at_one_moment() -> None:
    # Weights 4, optimizer 8, average 4; then activations 4 while there is no gradient, or gradients 4 from before.
    assert memory_of(single(), STEP, 1, several_micro_batches=False).peak == (16 + 4) * N
    assert memory_of(single(), STEP, 1, several_micro_batches=True).peak == (16 + 8) * N
    assert memory_of(ddp(), STEP, 1, several_micro_batches=False).peak == (16 + 8) * N


def test_stage_3_has_all_weights_on_the_device_at_first() -> None:
    large = replace(STEP, frozen_bytes=100 * N, saved_bytes=104 * N, block_bytes=(4 * N,) * 26)
    assert memory_of(zero(large, 3, 64, 1, True, True), large, 1, several_micro_batches=False).peak == 104 * N
    assert memory_of(fsdp2(large, 64, 1, 4), large, 1, several_micro_batches=False).peak < 30 * N


def test_blocks_at_work_are_gathered_under_fsdp2_in_the_precision_of_products() -> None:
    outside, two_blocks, gradients = 1.5 * N, 2 * N, 2 * N
    assert fsdp2(STEP, 8, 1, product_bytes=4).buffers == outside + two_blocks + gradients
    assert fsdp2(STEP, 8, 1, product_bytes=2).buffers == (outside + two_blocks) / 2 + gradients
    assert fsdp2(STEP, 8, 1, product_bytes=4, reshard=False).buffers == 4 * N + gradients


def test_strategies_are_planned_with_their_options() -> None:
    devices = Devices(torch.device("cpu"), per_node=4, num_nodes=2, memory_bytes=1)

    def planned(strategy: object) -> Sharding:
        return sharding_of(strategy, STEP, devices, 1, 4)  # type: ignore[arg-type]

    one = replace(devices, per_node=1, num_nodes=1)
    assert planned(SingleDevice(one)) == single()
    assert (
        planned(SingleDevice(one, offload_idle_expert=True)).name == "strategy=single strategy.offload_idle_expert=true"
    )
    assert planned(DataParallel()) == ddp()
    assert planned(FSDP2(replicate="nodes")) == fsdp2(STEP, 4, 1, 4, replicate="nodes")
    assert planned(FSDP2(offload=True)) == fsdp2(STEP, 8, 1, 4, offload=True)
    assert planned(DeepSpeedZeRO(3, offload_parameters=True)) == zero(STEP, 3, 8, 1, False, True)


@pytest.mark.parametrize(
    ("sharding", "gradients"),
    [(single(), 2), (ddp(), 4), (fsdp2(STEP, 8, 2, product_bytes=4), 0.25), (zero(STEP, 2, 8, 2), 0.5)],
    ids=lambda value: value.name if isinstance(value, Sharding) else "",
)
def test_gradients_are_those_of_the_expert_in_use_where_the_idle_one_has_none(
    sharding: Sharding, gradients: float
) -> None:
    step = replace(STEP, gradient_bytes=2 * N)
    assert memory_of(sharding, step, num_emas=2, several_micro_batches=False).gradients == gradients * N


def test_an_offloaded_expert_lies_in_the_host_with_its_moments_and_averages() -> None:
    both_tuned = replace(STEP, gradient_bytes=2 * N, idle_bytes=2 * N)
    memory = memory_of(single_offloading(both_tuned, 2), both_tuned, num_emas=2, several_micro_batches=False)
    assert (memory.weights, memory.gradients, memory.optimizer, memory.ema) == (2 * N, 2 * N, 4 * N, 4 * N)
    assert memory.sharding.host_bytes == (2 + 4 + 4) * N
    lora = replace(
        STEP, trained_bytes=N, gradient_bytes=N // 2, idle_bytes=2 * N, optimizer_bytes=2 * N, frozen_bytes=3 * N
    )
    memory = memory_of(single_offloading(lora, 1), lora, num_emas=1, several_micro_batches=False)
    assert (memory.weights, memory.sharding.host_bytes) == (2 * N, 2 * N + N // 2 + N)
