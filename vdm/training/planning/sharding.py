"""The share of weights, gradients and optimizer state that each strategy keeps on one device."""

from dataclasses import dataclass, replace

from vdm.training.devices import Devices
from vdm.training.planning.step import StepMeasure
from vdm.training.strategies.ddp import DataParallel
from vdm.training.strategies.deepspeed import GATHERED_AHEAD, LARGEST_BUCKET, DeepSpeedZeRO
from vdm.training.strategies.fsdp2 import FSDP2
from vdm.training.strategies.single import SingleDevice
from vdm.training.strategies.slicewise import SlicewiseStrategy

_BYTES = 4
"""Bytes of a weight, a gradient and an EMA weight: fp32, also under mixed precision."""


@dataclass(frozen=True)
class Sharding:
    """The share of the training state that one process keeps on its device.

    Args:
        name: The settings that choose the strategy.
        weights: Copies of the weights; 1.5 is all of them and half of a second copy.
        gradients: Share of the gradients.
        state: Share of the optimizer's state and of the EMA weights.
        frozen: Share of the frozen weights of the network, if only some of its weights are tuned.
        copies: Share of autocast's copies of the weights.
        buffers: Bytes of gathered weights, and of gradients that are being communicated.
        gradients_stay: Whether the gradients' memory is allocated before the first backward pass.
        gradients_of_idle: Whether weights of an expert that a step does not use have gradients too, of zero.
        host_bytes: Bytes of this process in the host's memory.
        whole_at_first: Whether all weights are on the device at once before they are sharded.
    """

    name: str
    weights: float
    gradients: float
    state: float
    frozen: float = 1
    copies: float = 1
    buffers: int = 0
    gradients_stay: bool = False
    gradients_of_idle: bool = False
    host_bytes: int = 0
    whole_at_first: bool = False


@dataclass(frozen=True)
class Memory:
    """Memory of one process, in bytes."""

    sharding: Sharding
    weights: int
    gradients: int
    optimizer: int
    ema: int
    activations: int
    """Tensors kept for the backward pass, autocast copies of weights among them."""
    temporary: int
    """Peak of further tensors within a step: intermediate results, gathered weights, communicated gradients."""
    peak: int
    """Peak of all together: less than the sum, since gradients grow while activations are released."""


def memory_of(sharding: Sharding, step: StepMeasure, num_emas: int, several_micro_batches: bool) -> Memory:
    """Return the memory of one process under a strategy.

    Args:
        sharding: Share that the process keeps.
        step: A micro-batch on one process that shards nothing.
        num_emas: Number of EMAs of the weights.
        several_micro_batches: Whether a step has several micro-batches: then gradients exist when the next one begins.
    """
    if sharding.gradients_of_idle:
        step = replace(step, gradient_bytes=step.trained_bytes)
    frozen_saved = step.saved_bytes - step.trained_bytes
    frozen = step.frozen_bytes - frozen_saved + int(sharding.frozen * frozen_saved)
    weights = int(sharding.weights * step.trained_bytes) + frozen
    optimizer = int(sharding.state * step.optimizer_bytes)
    ema = int(sharding.state * num_emas * step.trained_bytes)
    gradients = int(sharding.gradients * step.gradient_bytes)
    activations = step.kept.bytes(0, sharding.copies)
    temporary = step.peak_bytes(0, False, sharding.copies) - activations + sharding.buffers
    passes = step.peak_bytes(sharding.gradients, sharding.gradients_stay or several_micro_batches, sharding.copies)
    stepping = gradients + int(sharding.state * step.optimizer_peak_bytes)
    peak = weights + optimizer + ema + max(passes + sharding.buffers, stepping)
    if sharding.whole_at_first:
        peak = max(peak, step.trained_bytes + step.frozen_bytes)
    return Memory(sharding, weights, gradients, optimizer, ema, activations, temporary, peak)


def single() -> Sharding:
    """One process keeps everything."""
    return Sharding("one device", 1, 1, 1)


def single_offloading(step: StepMeasure, num_emas: int) -> Sharding:
    """One process keeps all but the idle expert, its moments and its EMA weights on the device."""
    trained = step.gradient_bytes / step.trained_bytes
    idle_trained = step.trained_bytes - step.gradient_bytes
    frozen = step.saved_bytes - step.trained_bytes
    kept = 1 - (step.idle_bytes - idle_trained) / frozen if frozen else 1
    host = step.idle_bytes + num_emas * idle_trained + int((1 - trained) * step.optimizer_bytes)
    return Sharding(_named("single", offload_idle_expert=True), trained, 1, trained, kept, host_bytes=host)


def ddp() -> Sharding:
    """Each process keeps everything; the buckets of gradients stay allocated."""
    return Sharding("strategy=ddp", 1, 1, 1, gradients_stay=True, gradients_of_idle=True)


def fsdp2(
    step: StepMeasure,
    shards: int,
    num_emas: int,
    product_bytes: int,
    reshard: bool = True,
    offload: bool = False,
    replicate: str = "none",
) -> Sharding:
    """Each process keeps a share of everything, and gathers the blocks that are running.

    Args:
        step: A micro-batch on one process that shards nothing.
        shards: Processes that share one copy of the weights.
        num_emas: Number of EMAs of the weights.
        product_bytes: Bytes of a gathered weight, in the precision of matrix products.
        reshard: Whether gathered blocks are released between forward and backward pass.
        offload: Whether the shares are in the host's memory.
        replicate: ``nodes`` if each node has a copy, else ``none``.
    """
    outside = step.saved_bytes - sum(step.block_bytes)  # weights outside of blocks stay gathered
    largest = max(step.block_bytes, default=0)
    gathered = outside + min(2 * largest, sum(step.block_bytes)) if reshard else step.saved_bytes
    # Gradients of one block, in the precision of products and as fp32 sums.
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
    """DeepSpeed ZeRO: each process keeps a share of what the stage shards.

    Below stage 3, DeepSpeed keeps a second, sharded fp32 copy of the weights, which the optimizer steps. Stage 3 shards
    the weights after they have been moved to the device.

    Args:
        step: A micro-batch on one process that shards nothing.
        stage: Stage of ZeRO, 1 to 3.
        processes: Processes that share one copy.
        num_emas: Number of EMAs of the weights.
        offload_optimizer: Whether the optimizer's state, and the weights that it steps, are in the host's memory.
        offload_parameters: Whether the shares of the weights are.
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
            name,
            weights,
            gradients,
            0,
            frozen,
            1,
            buffers,
            host_bytes=int(host),
            whole_at_first=stage == 3,
            gradients_of_idle=True,
        )
    copy = share if stage < 3 else 0
    weights += copy
    return Sharding(
        name,
        weights,
        gradients,
        share,
        frozen,
        1,
        buffers,
        host_bytes=int(host),
        whole_at_first=stage == 3,
        gradients_of_idle=True,
    )


def sharding_of(
    strategy: SlicewiseStrategy, step: StepMeasure, devices: Devices, num_emas: int, product_bytes: int
) -> Sharding:
    """Return the share that each process keeps under a strategy with its options."""
    if isinstance(strategy, FSDP2):
        shards = devices.per_node if strategy.replicate == "nodes" else devices.number
        reshard, offload, replicate = strategy.reshard_after_forward, strategy.offload, strategy.replicate
        return fsdp2(step, shards, num_emas, product_bytes, reshard, offload, replicate)
    if isinstance(strategy, DeepSpeedZeRO):
        offload = (strategy.offload_optimizer, strategy.offload_parameters)
        return zero(step, strategy.stage, devices.number, num_emas, *offload)
    if isinstance(strategy, SingleDevice) and strategy.offload_idle_expert:
        return single_offloading(step, num_emas)
    return ddp() if isinstance(strategy, DataParallel) else single()


def _named(strategy: str, **options: object) -> str:
    """Return the settings of ``vdm train`` that choose a strategy; options without a value are as usual."""
    given = [f"strategy.{name}={str(value).lower()}" for name, value in options.items() if value]
    return " ".join([f"strategy={strategy}", *given])
