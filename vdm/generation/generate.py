"""Videos for any number of prompts, in batches, and of any length, in blocks."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from vdm.assembly.model import VideoDiffusionModel, step_noise
from vdm.diffusion.observations import Frames, Observation, ObservationMethod
from vdm.diffusion.samplers.base import DrawNoise
from vdm.generation.blocks import Block, BlockSize, plan_blocks
from vdm.generation.tasks import Known
from vdm.types import ClipSize, Prompts


@torch.no_grad()
def generate(
    model: VideoDiffusionModel,
    prompts: Prompts,
    size: ClipSize,
    seed: int = 0,
    batch_size: int = 8,
    negative: str = "",
    on_step: Callable[[], object] | None = None,
    known: Known | None = None,
    blocks: Sequence[Block] | None = None,
    method: ObservationMethod | None = None,
    on_batch: Callable[[UInt8[Tensor, "b c t h w"]], object] | None = None,
) -> UInt8[Tensor, "b c t h w"]:
    """Return a video for each prompt; clip number i draws the same noise whatever the batch size.

    Args:
        model: The model; samples with its own sampler and guidance.
        prompts: One entry a video.
        size: Size of the videos.
        seed: Seed of the noise.
        batch_size: Videos made at once, at most.
        negative: Caption to be guided away from.
        on_step: Called after each sampling step of each block of each batch.
        known: What is known of every video, by default nothing.
        blocks: Frames that are made at once, as ``plan_blocks`` says; by default all are.
        method: How a block is told what is known of its frames, by default reconstruction guidance.
        on_batch: Called with the videos of each batch, once they are made.

    Raises:
        ValueError: If the network can't make videos of this size, or ``batch_size`` is below 1.
    """
    check_size(model, size)
    if model.guide is not None:
        check_size(model.guide, size)
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: must be at least 1")
    known = known or Known()
    if blocks is None:
        blocks = plan_blocks(size.num_frames, BlockSize(size.num_frames), known.indices)
    videos = []
    for start in range(0, len(prompts), batch_size):
        clips = range(start, min(start + batch_size, len(prompts)))
        part = prompts.map(lambda tensor, rows=slice(clips.start, clips.stop): tensor[rows])
        part = replace(part, captions=prompts.captions[clips.start : clips.stop])
        latents = _canvas(model, size, known, len(clips))
        for number, block in enumerate(blocks):
            frames = latents[:, :, block.start : block.stop]
            noise, draw_noise = _noise(model, seed, clips, frames, number)
            made = model.sample(
                noise,
                _told_first_frame(model, part, frames, seed, clips, number) if block.start in block.known else part,
                negative,
                draw_noise,
                (lambda step, x0: on_step()) if on_step else None,
                _observations(frames, block, known),
                method,
            )
            new = [frame - block.start for frame in block.new]
            frames[:, :, new] = made[:, :, new]
        videos.append(model.encoder.decode(latents).cpu())
        if on_batch is not None:
            on_batch(videos[-1])
    return torch.cat(videos)


def count_steps(model: VideoDiffusionModel, num_videos: int, batch_size: int, num_blocks: int = 1) -> int | None:
    """Return how often ``generate`` reports a step; none where the sampler can't tell."""
    num_batches = -(-num_videos // batch_size)
    return None if model.sampler.num_steps is None else num_batches * num_blocks * model.sampler.num_steps


def check_size(model: VideoDiffusionModel, size: ClipSize) -> None:
    """Refuse sizes that the network can't process.

    Raises:
        ValueError: If height or width of the latents is no multiple of what the network needs.
    """
    multiple = getattr(model.network, "frame_multiple", 1)
    height, width = model.encoder.latent_size(size.height, size.width)
    for name, pixels, latents in (("height", size.height, height), ("width", size.width, width)):
        if latents < 1 or latents % multiple:
            raise ValueError(f"{name}={pixels}: the network needs latents of a multiple of {multiple}, not {latents}")
    if size.num_frames < 1:
        raise ValueError(f"num_frames={size.num_frames}: must be at least 1")


def _canvas(model: VideoDiffusionModel, size: ClipSize, known: Known, num_clips: int) -> Float[Tensor, "b c t h w"]:
    """Return the latents of whole videos, with the frames that are known, and zeros for those that are to be made."""
    shape = (model.encoder.channels, size.num_frames, *model.encoder.latent_size(size.height, size.width))
    latents = torch.zeros(num_clips, *shape, device=model.device)
    if known.frames is not None:
        latents[:, :, list(known.indices)] = known.frames.to(latents)
    return latents


def _noise(
    model: VideoDiffusionModel, seed: int, clips: Sequence[int], frames: Float[Tensor, "b c t h w"], block: int
) -> tuple[Float[Tensor, "b c t h w"], DrawNoise]:
    """Return the noise that a block starts from, and that of its steps, as functions of (seed, block, clip)."""
    prior, purpose = model.diffusion.noise_prior, f"block {block}, " if block else ""
    noise = prior(seed, f"{purpose}sampling noise", clips, tuple(frames.shape[1:]))
    return noise, step_noise(prior, seed, clips, frames, f"{purpose}sampler step")


def _told_first_frame(
    model: VideoDiffusionModel,
    prompts: Prompts,
    frames: Float[Tensor, "b c t h w"],
    seed: int,
    clips: Sequence[int],
    block: int,
) -> Prompts:
    """Return the prompts with a block's first frame, for a model that was trained with it."""
    if not model.conditioner.uses_image:
        return prompts
    first = model.encoder.decode(frames[:, :, :1])[:, :, 0]
    draws = [f"block {block}, clip {clip}" for clip in clips]
    return model.conditioner.with_first_frame(prompts, first, model.encoder, seed, draws)


def _observations(frames: Float[Tensor, "b c t h w"], block: Block, known: Known) -> list[Observation]:
    """Return what is known of a block's frames: some as they are, and of the others what they are in small."""
    whole = tuple(frame - block.start for frame in block.known)
    others = tuple(frame for frame in range(frames.shape[2]) if frame not in whole)
    observations = []
    if whole:
        observations.append(Observation(frames[:, :, list(whole)], Frames(whole, frames.shape[2])))
    if known.small is not None and others:
        small = known.small[None, :, block.start : block.stop][:, :, list(others)]
        factor = frames.shape[-1] // small.shape[-1]
        small = small.to(frames).expand(len(frames), -1, -1, -1, -1)
        observations.append(Observation(small, Frames(others, frames.shape[2], factor)))
    return observations
