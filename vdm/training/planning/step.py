"""Memory and FLOPs of one training step, measured on fake tensors."""

import json
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import astuple, dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from vdm.assembly.build_model import build_model
from vdm.assembly.model import VideoDiffusionModel
from vdm.config import ConfigError, build
from vdm.generation.generate import check_size
from vdm.objectives.base import Objective, losses_of, with_modules_of
from vdm.objectives.batch_randomness import HeldOutRandomness
from vdm.objectives.latents import latents_of
from vdm.training.block_options import blocks_of
from vdm.training.joint_optimizer import optimizer_of
from vdm.training.planning.live_memory import LiveMemory, Moment
from vdm.training.planning.structure import no_memory, pretrained_by_configuration
from vdm.training.prepare import prepare
from vdm.training.step_experts import a_trained_expert
from vdm.training.trainer_options import canonical_precision
from vdm.types import ClipBatch, ClipSize, ImageBatch

_AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


@dataclass(frozen=True)
class Clips:
    """The micro-batch of one process.

    Args:
        number: Number of clips.
        size: Frames, height and width in pixels.
        num_images: Independent images beside each clip.
        latents: Whether stored latents are read instead of pixels.
        caption: A caption of typical length.
    """

    number: int
    size: ClipSize
    num_images: int = 0
    latents: bool = False
    caption: str = ""


@dataclass(frozen=True)
class StepMeasure:
    """Memory, in bytes, and FLOPs of one micro-batch on one process that shards nothing."""

    num_trained: int
    """Number of trained weights."""
    num_frozen: int
    """Number of frozen weights."""
    trained_bytes: int
    gradient_bytes: int
    """Gradients of a step: of all trained weights, but for those of an expert that the step does not use."""
    idle_bytes: int
    """All weights of that expert; 0 if there are no two experts."""
    frozen_bytes: int
    """Frozen weights and buffers."""
    saved_bytes: int
    """Weights and buffers in checkpoints."""
    block_bytes: tuple[int, ...]
    """Weights of each block; strategies shard block by block."""
    optimizer_bytes: int
    """The optimizer's state between steps."""
    optimizer_peak_bytes: int
    """The optimizer's temporary tensors during a step."""
    kept: Moment
    """Tensors kept for the backward pass, at the end of the forward pass."""
    moments: tuple[Moment, ...]
    """Tensors at each moment of the forward and backward pass."""
    flops: int
    """Floating-point operations of the forward and backward pass."""

    def peak_bytes(
        self, share_of_gradients: float, gradients_from_the_start: bool, share_of_copies: float = 1.0
    ) -> int:
        """Return the peak of gradients and activations together.

        Args:
            share_of_gradients: Share of the gradients that a process keeps.
            gradients_from_the_start: Whether they exist already, from an earlier micro-batch.
            share_of_copies: Share of the autocast copies of weights that a process keeps.
        """
        if gradients_from_the_start:
            return int(share_of_gradients * self.gradient_bytes) + self.peak_bytes(0, False, share_of_copies)
        return max(moment.bytes(share_of_gradients, share_of_copies) for moment in self.moments)


def flop_counter() -> FlopCounterMode:
    """Return PyTorch's counter of operations, extended by products in place and by the CPU's fused attention.

    As on GPUs, its backward pass computes the scores again: five matrix products, after two in the forward pass.
    """
    attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
    return FlopCounterMode(
        display=False,
        custom_mapping={
            torch.ops.aten.addmm_: _product_flops,
            attention: _attention_flops,
            backward: _attention_backward_flops,
        },
    )


def _product_flops(_total: torch.Size, left: torch.Size, right: torch.Size, *_: object, **__: object) -> int:
    return 2 * left.numel() * right[-1]


def _attention_flops(query: torch.Size, key: torch.Size, value: torch.Size, *_: object, **__: object) -> int:
    return 2 * query[:-1].numel() * key[-2] * (query[-1] + value[-1])


def _attention_backward_flops(
    _gradient: torch.Size, query: torch.Size, key: torch.Size, value: torch.Size, *_: object, **__: object
) -> int:
    return 2 * query[:-1].numel() * key[-2] * (3 * query[-1] + 2 * value[-1])


def measure_step(config: Mapping[str, Any], clips: Clips) -> StepMeasure:
    """Build the model of a configuration on fake tensors, and run one micro-batch through it.

    Raises:
        ConfigError: One line that names the key.
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    # The libraries of pretrained parts take seconds to import.
    with pretrained_by_configuration() if _has_pretrained_parts(config) else nullcontext():
        model = build_model(config, on=no_memory(mode))
    try:
        check_size(model, clips.size)
    except ValueError as error:
        raise ConfigError(f"clip_shape: {error}") from error
    with no_memory(mode):
        objective = prepare(model, config)
    whole = with_modules_of(model, objective)
    trained = [p for p in whole.parameters() if p.requires_grad]
    dtype = _AUTOCAST.get(canonical_precision(config["trainer"]["precision"]))

    expert = a_trained_expert(model.network)

    def loss_of_batch() -> Tensor:
        with nullcontext() if dtype is None else torch.autocast("cpu", dtype), expert.alone(model.network):
            return _loss(model, objective, clips)

    with no_memory(mode):
        with LiveMemory(whole.parameters()) as memory:
            loss = loss_of_batch()
            kept = memory.moments[-1]
            loss.backward()
            del loss
        # FLOPs are counted in a second pass: the counter keeps tensors alive, and splits operations into smaller ones.
        with flop_counter() as counter:
            loss_of_batch().backward()
        optimizer_bytes, optimizer_peak = _optimizer(config, model, objective)
    idle = [] if expert.idle is None else list(model.network.get_submodule(expert.idle).parameters())
    everything = [*whole.parameters(), *whole.buffers()]
    return StepMeasure(
        sum(p.numel() for p in trained),
        sum(p.numel() for p in whole.parameters()) - sum(p.numel() for p in trained),
        _size(trained),
        _size(trained) - _size(w for w in idle if w.requires_grad),
        _size(idle),
        _size(everything) - _size(trained),
        _size(whole.state_dict().values()),
        tuple(_size(block.parameters()) for _, block in blocks_of(whole)),
        optimizer_bytes,
        optimizer_peak,
        kept,
        tuple(memory.moments),
        counter.get_total_flops(),
    )


def _has_pretrained_parts(config: Mapping[str, Any]) -> bool:
    return "name_or_path" in json.dumps([config["encoder"], config["model"]])


def _loss(model: VideoDiffusionModel, objective: Objective, clips: Clips) -> Tensor:
    """Return the loss of the training step on clips of zeros, with all conditions."""
    randomness = HeldOutRandomness([str(number) for number in range(clips.number)])
    latents = latents_of(model, _batch(model, clips), randomness)
    return losses_of(objective, model, latents, randomness).per_clip.mean()


def _batch(model: VideoDiffusionModel, clips: Clips) -> ClipBatch:
    """Return a batch of zeros, as the loader would return it."""
    b, (num_pixel_frames, height, width) = clips.number, astuple(clips.size)
    latents, images = None, None
    if clips.latents:
        num_pixel_frames = {"none": 0, "first": 1, "all": num_pixel_frames}[model.conditioner.needs_pixels]
        latents = torch.zeros(b, *model.encoder.latent_shape(clips.size))
    if clips.num_images:
        pixels = torch.zeros(b, 3, clips.num_images, height, width, dtype=torch.uint8)
        images = ImageBatch(pixels, ((clips.caption,) * clips.num_images,) * b, _no_labels(b, clips.num_images))
    return ClipBatch(
        video=torch.zeros(b, 3, num_pixel_frames, height, width, dtype=torch.uint8),
        captions=(clips.caption,) * b,
        labels=_no_labels(b),
        positions=torch.arange(b),
        weights=torch.ones(b),
        keys=("",) * b,
        fps=torch.ones(b),
        images=images,
        latents=latents,
        motion=torch.zeros(b),
    )


def _no_labels(*shape: int) -> Tensor:
    return torch.full(shape, -1)


def _optimizer(config: Mapping[str, Any], model: VideoDiffusionModel, objective: Objective) -> tuple[int, int]:
    """Return the bytes of the optimizer's state, and of its temporary tensors, in a step on the present gradients."""
    optimizer = optimizer_of(model, objective, build(config["optimizer"], "optimizer"))
    for group in optimizer.param_groups:
        for weight in group["params"]:
            if weight.grad is None:  # a module that this batch does not use
                weight.grad = torch.zeros_like(weight)
    with LiveMemory([]) as memory:
        optimizer.step()
    states = [value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]
    return _size(states), max(0, memory.peak() - _size(states))


def _size(tensors: Any) -> int:
    """Return the bytes of tensors; memory that they share is counted once."""
    storages = {tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())
