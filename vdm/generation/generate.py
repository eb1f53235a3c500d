"""Sampling of any number of videos, in batches, and of any length, in frame blocks."""

from collections.abc import Callable, Sequence
from itertools import count
from typing import Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from tqdm import tqdm

from vdm.assembly.model import VideoDiffusionModel, step_noise
from vdm.diffusion.observations import CleanFrames, ObservationMethod
from vdm.diffusion.samplers.base import DrawNoise, OnStep
from vdm.generation.canvas import Canvas, canvas_of, check_blocks
from vdm.generation.frame_blocks import Block, BlockSize, plan_blocks
from vdm.generation.known_frames import prefers_clean_frames
from vdm.generation.tasks import Known
from vdm.models.conditioner import TakesKnownFrames
from vdm.prompts import Prompts
from vdm.types import ClipSize

Output = Literal["videos", "latents"]


@torch.no_grad()
def generate(
    model: VideoDiffusionModel,
    prompts: Prompts,
    size: ClipSize,
    seed: int = 0,
    batch_size: int = 8,
    negative: str = "",
    known: Known | None = None,
    blocks: Sequence[Block] | None = None,
    method: ObservationMethod | None = None,
    on_batch: Callable[[UInt8[Tensor, "b c t h w"] | Float[Tensor, "b c t h w"]], object] | None = None,
    noise: Float[Tensor, "n c t h w"] | None = None,
    output: Output = "videos",
    progress: bool = False,
    first: int = 0,
    on_step: OnStep | None = None,
) -> UInt8[Tensor, "n c t h w"] | Float[Tensor, "n c t h w"]:
    """Return a video for each prompt. The noise of video number i does not depend on the batch size.

    Args:
        model: The model; samples with its own sampler and guidance.
        prompts: One entry a video.
        size: Size of the videos.
        seed: Seed of the noise.
        batch_size: Videos made at once, at most.
        negative: Caption to be guided away from.
        known: What is known of every video, by default nothing.
        blocks: Frame blocks, from ``plan_blocks``; by default one block of all frames. With a causal autoencoder each
            block is decoded, and the frames shared with the next block are encoded again.
        method: How sampling is made consistent with known frames. By default ``CleanFrames`` if the model was trained
            on such known frames, otherwise reconstruction guidance.
        on_batch: Called with the videos of each batch, once they are made.
        noise: Initial noise in the shape of the latents; by default it is drawn from ``seed``. The noise that some
            samplers add in their steps is always drawn from ``seed``.
        output: ``videos``, or the ``latents`` that they are decoded from.
        progress: Show a bar of the sampling steps of all blocks of all batches.
        first: Number of the first video.
        on_step: Called after each sampling step with the number of steps done, in all blocks of all batches, and the
            denoised latents of the block that is sampled. What it raises ends the sampling.

    Raises:
        ValueError: If the network does not fit this size, the autoencoder does not fit the blocks, there is a method
            though the model is told known frames as a condition, ``batch_size`` is below 1, the noise has another
            shape, or latents are asked for that don't exist as one tensor.
    """
    check_size(model, size)
    if model.autoguidance_model is not None:
        check_size(model.autoguidance_model, size)
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: must be at least 1")
    known = known or Known()
    if blocks is None:
        blocks = plan_blocks(size.num_frames, BlockSize(size.num_frames), known.indices)
    check_blocks(model, blocks)
    method = _method(model, known, blocks, method)
    if noise is not None:
        _check_noise(model, noise, len(prompts), size, len(blocks))
    if output == "latents" and len(blocks) != 1 and model.encoder.compression.frames > 1:
        raise ValueError("output=latents: videos in blocks of a causal autoencoder have latents block by block alone")
    batches = [slice(start, min(start + batch_size, len(prompts))) for start in range(0, len(prompts), batch_size)]
    steps = model.sampler.num_steps
    total = None if steps is None else len(batches) * len(blocks) * steps
    made, steps_done = [], count(1)
    with tqdm(total=total, desc="sampling", unit="step", disable=not progress) as bar:

        def after_step(_: int, x0: Float[Tensor, "b c t h w"]) -> None:
            bar.update()
            if on_step is not None:
                on_step(next(steps_done), x0)

        for rows in batches:
            part, clips = prompts.rows(rows), range(first + rows.start, first + rows.stop)
            canvas = canvas_of(model, size, known.rows(rows), len(clips))
            for number, block in enumerate(blocks):
                latents = canvas.latents(block)
                drawn, draw_noise = _noise(model, seed, clips, latents, number)
                new = model.sample(
                    drawn if noise is None else noise[rows].to(drawn),
                    _told_known_frames(model, part, canvas, block, latents, seed, clips, number),
                    negative,
                    draw_noise,
                    after_step,
                    canvas.observations(block, latents),
                    method,
                )
                canvas.add(block, new)
            made.append(canvas.videos() if output == "videos" else canvas.whole_latents())
            if on_batch is not None:
                on_batch(made[-1])
    return torch.cat(made)


def check_size(model: VideoDiffusionModel, size: ClipSize) -> None:
    """Refuse sizes that the autoencoder or the network can't process.

    Raises:
        ValueError: If the autoencoder takes no such clips, or height or width of the latents is not a multiple of the
            network's ``frame_multiple``.
    """
    if size.num_frames < 1:
        raise ValueError(f"num_frames={size.num_frames}: must be at least 1")
    multiple = getattr(model.network, "frame_multiple", 1)
    height, width = model.encoder.latent_shape(size)[2:]
    for name, pixels, latents in (("height", size.height, height), ("width", size.width, width)):
        if latents < 1 or latents % multiple:
            raise ValueError(f"{name}={pixels}: the network needs latents of a multiple of {multiple}, not {latents}")


def _check_noise(
    model: VideoDiffusionModel, noise: Float[Tensor, "n c t h w"], num_videos: int, size: ClipSize, num_blocks: int
) -> None:
    """Refuse initial noise of a wrong shape, or for several blocks.

    Raises:
        ValueError: With the shape that is needed.
    """
    if num_blocks > 1:
        raise ValueError(f"noise: can't be given for videos in {num_blocks} blocks, each of which starts from its own")
    wanted = (num_videos, *model.encoder.latent_shape(size))
    if tuple(noise.shape) != wanted:
        raise ValueError(
            f"noise: has the shape {tuple(noise.shape)}, but {num_videos} videos of {size.num_frames} frames of"
            f" {size.height}x{size.width} start from {wanted}"
        )


def _noise(
    model: VideoDiffusionModel, seed: int, clips: Sequence[int], latents: Float[Tensor, "b c t h w"], block: int
) -> tuple[Float[Tensor, "b c t h w"], DrawNoise]:
    """Return a block's initial noise and the noise of its steps, as functions of (seed, block, clip)."""
    prior, purpose = model.diffusion.noise_prior, f"block {block}, " if block else ""
    noise = prior(seed, f"{purpose}sampling noise", clips, tuple(latents.shape[1:]))
    return noise, step_noise(prior, seed, clips, latents, f"{purpose}sampler step")


def _method(
    model: VideoDiffusionModel, known: Known, blocks: Sequence[Block], method: ObservationMethod | None
) -> ObservationMethod | None:
    """Return the method by which known frames are observed; None for the default of observations.

    Raises:
        ValueError: If one is given, but the model is told known frames as a condition.
    """
    if known.small is not None:
        return method
    if isinstance(model.conditioner, TakesKnownFrames):
        if method is not None:
            raise ValueError("method: the model is told known frames in channels of its input; leave method out")
        return None
    return CleanFrames() if method is None and prefers_clean_frames(model, blocks) else method


def _told_known_frames(
    model: VideoDiffusionModel,
    prompts: Prompts,
    canvas: Canvas,
    block: Block,
    latents: Float[Tensor, "b c t h w"],
    seed: int,
    clips: Sequence[int],
    number: int,
) -> Prompts:
    """Return the prompts with a block's known frames, or with its first frame, if the model has such a condition."""
    conditioner = model.conditioner
    if isinstance(conditioner, TakesKnownFrames) and block.known:
        is_known = torch.zeros(len(clips), block.stop - block.start, dtype=torch.bool, device=model.device)
        is_known[:, [frame - block.start for frame in block.known]] = True
        return conditioner.with_known_frames(prompts, canvas.pixels(block), is_known, model.encoder)
    if "image" not in conditioner.takes or block.start not in block.known:
        return prompts
    draws = [f"block {number}, clip {clip}" for clip in clips]
    return conditioner.with_first_latents(prompts, latents[:, :, 0], model.encoder, seed, draws)
