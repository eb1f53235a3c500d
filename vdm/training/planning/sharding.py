"""Which strategy keeps which share of a training run in each process's memory."""

from dataclasses import dataclass

from vdm.training.devices import Devices
from vdm.training.planning.step import StepMeasure
from vdm.training.strategies.ddp import DataParallel
from vdm.training.strategies.deepspeed import GATHERED_AHEAD, LARGEST_BUCKET, DeepSpeedZeRO
from vdm.training.strategies.fsdp2 import FSDP2
from vdm.training.strategies.slicewise import SlicewiseStrategy

_BYTES = 4
"""Of a weight, a gradient and an average: fp32 under mixed precision too."""


@dataclass(frozen=True)
class Sharding:
    """Shares of what is trained that one process keeps on its device.

    Args:
        name: The settings that choose the strategy.
        weights: Copies of the weights; 1.5 is all of them and half of a second copy.
        gradients: Share of the gradients.
        state: Share of the optimizer's state and of the averages.
        frozen: Share of what is not trained, but saved: of a network of which some weights alone are tuned.
        copies: Share of the copies of weights that mixed precision makes for its products.
        buffers: Bytes of gathered weights and of gradients under way.
        gradients_stay: Whether gradients' memory is taken before the first backward pass.
        host_bytes: Bytes that lie in the host's memory instead, for each process.
        whole_at_first: Whether all weights come to the device before they are cut up.
    """

    name: str
    weights: float
    gradients: float
    state: float
    frozen: float = 1
    copies: float = 1
    buffers: int = 0
    gradients_stay: bool = False
    host_bytes: int = 0
    whole_at_first: bool = False


@dataclass(frozen=True)
class Memory:
    """What one process needs, in bytes."""

    sharding: Sharding
    weights: int
    gradients: int
    optimizer: int
    averages: int
    activations: int
    """Kept for the backward pass, with what mixed precision copies of weights for it."""
    temporary: int
    """The most there is beyond that within a step: results on their way, gathered weights, gradients under way."""
    peak: int
    """The most at any one moment; less than the sum, since gradients come as activations go."""


def memory_of(sharding: Sharding, step: StepMeasure, num_emas: int, several_micro_batches: bool) -> Memory:
    """Return what one process needs under a strategy.

    Args:
        sharding: What it keeps.
        step: What a micro-batch takes.
        num_emas: Averages of the weights.
        several_micro_batches: Whether gradients of one are there when the next begins.
    """
    frozen_saved = step.saved_bytes - step.trained_bytes
    frozen = step.frozen_bytes - frozen_saved + int(sharding.frozen * frozen_saved)
    weights = int(sharding.weights * step.trained_bytes) + frozen
    optimizer = int(sharding.state * step.optimizer_bytes)
    averages = int(sharding.state * num_emas * step.trained_bytes)
    gradients = int(sharding.gradients * step.trained_bytes)
    activations = step.kept.bytes(0, sharding.copies)
    temporary = step.peak_bytes(0, False, sharding.copies) - activations + sharding.buffers
    passes = step.peak_bytes(sharding.gradients, sharding.gradients_stay or several_micro_batches, sharding.copies)
    stepping = gradients + int(sharding.state * step.optimizer_peak_bytes)
    peak = weights + optimizer + averages + max(passes + sharding.buffers, stepping)
    if sharding.whole_at_first:
        peak = max(peak, step.trained_bytes + step.frozen_bytes)
    return Memory(sharding, weights, gradients, optimizer, averages, activations, temporary, peak)


def single() -> Sharding:
    """One process keeps everything."""
    return Sharding("one device", 1, 1, 1)


def ddp() -> Sharding:
    """Each process keeps everything; gradients lie in buckets that stay."""
    return Sharding("strategy=ddp", 1, 1, 1, gradients_stay=True)


def fsdp2(
    step: StepMeasure,
    shards: int,
    num_emas: int,
    product_bytes: int,
    reshard: bool = True,
    offload: bool = False,
    replicate: str = "none",
) -> Sharding:
    """Each process keeps a share of everything, and all of the blocks that are at work.

    Args:
        step: What a micro-batch takes.
        shards: Processes that share one copy.
        num_emas: Averages of the weights.
        product_bytes: Bytes of a gathered weight.
        reshard: Whether blocks are let go between forward and backward pass.
        offload: Whether the shares lie in the host's memory.
        replicate: Across what each shard has copies.
    """
    outside = step.saved_bytes - sum(step.block_bytes)  # what is in no block stays gathered
    largest = max(step.block_bytes, default=0)
    gathered = outside + min(2 * largest, sum(step.block_bytes)) if reshard else step.saved_bytes
    # Gradients of one block in the precision of products, and to be summed in fp32.
    under_way = 2 * min(largest, step.trained_bytes)
    buffers = gathered * product_bytes // _BYTES + under_way if shards > 1 else 0
    name = _named("fsdp2", replicate=replicate if replicate != "none" else None, offload=offload)
    share = 1 / shards
    if not offload:
        return Sharding(name, share, share, share, share, copies=0, buffers=buffers)
    kept = step.saved_bytes + (1 + num_emas) * step.trained_bytes + step.optimizer_bytes
    return Sharding(name, 0, 0, 0, 0, copies=0, buffers=buffers or gathered, host_bytes=int(share * kept))


def zero(
    step: StepMeasure,
    stage: int,
    processes: int,
    num_emas: int,
    offload_optimizer: bool = False,
    offload_parameters: bool = False,
) -> Sharding:
    """Before stage 3, DeepSpeed keeps a second fp32 copy of the weights, cut up: the one that the optimizer steps.

    Stage 3 cuts the weights up on the device.

    Args:
        step: What a micro-batch takes.
        stage: What else is cut up.
        processes: Processes that share it.
        num_emas: Averages of the weights.
        offload_optimizer: Whether what the optimizer works on lies in the host's memory.
        offload_parameters: Whether the shares of weights do.
    """
    share = 1 / processes
    bucket = min(LARGEST_BUCKET * _BYTES, step.trained_bytes // 8)
    under_way = bucket + int(share * step.trained_bytes)  # flattened for the step
    name = _named(f"deepspeed_zero{stage}", offload_optimizer=offload_optimizer, offload_parameters=offload_parameters)
    if stage < 3:
        weights, frozen, gradients, buffers = 1.0, 1.0, 1.0 if stage == 1 else share, under_way
    else:
        at_work = min(step.saved_bytes, max(step.block_bytes, default=0) + _BYTES * GATHERED_AHEAD)
        weights, frozen, gradients, buffers = share, share, share, under_way + at_work
    host = share * ((1 + num_emas) * step.trained_bytes + step.optimizer_bytes) if offload_optimizer else 0
    if offload_parameters:
        host, weights, frozen = host + share * step.saved_bytes, 0.0, 0.0
    if offload_optimizer:
        return Sharding(
            name, weights, gradients, 0, frozen, 1, buffers, host_bytes=int(host), whole_at_first=stage == 3
        )
    copy = share if stage < 3 else 0
    weights += copy
    return Sharding(
        name, weights, gradients, share, frozen, 1, buffers, host_bytes=int(host), whole_at_first=stage == 3
    )


def sharding_of(
    strategy: SlicewiseStrategy, step: StepMeasure, devices: Devices, num_emas: int, product_bytes: int
) -> Sharding:
    """Return what a strategy, with its options, keeps in each process."""
    if isinstance(strategy, FSDP2):
        shards = devices.per_node if strategy.replicate == "nodes" else devices.number
        reshard, offload, replicate = strategy.reshard_after_forward, strategy.offload, strategy.replicate
        return fsdp2(step, shards, num_emas, product_bytes, reshard, offload, replicate)
    if isinstance(strategy, DeepSpeedZeRO):
        offload = (strategy.offload_optimizer, strategy.offload_parameters)
        return zero(step, strategy.stage, devices.number, num_emas, *offload)
    return ddp() if isinstance(strategy, DataParallel) else single()


def _named(strategy: str, **options: object) -> str:
    """Return the settings of ``vdm train`` that choose a strategy; options without a value are as usual."""
    given = [f"strategy.{name}={str(value).lower()}" for name, value in options.items() if value]
    return " ".join([f"strategy={strategy}", *given])
