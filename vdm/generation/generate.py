"""Videos for any number of prompts, in batches."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import UInt8
from torch import Tensor

from vdm import randomness
from vdm.generation.model import VideoDiffusionModel, step_noise
from vdm.types import Prompts


@dataclass(frozen=True)
class ClipSize:
    """Size of a video in frames and pixels."""

    num_frames: int
    height: int
    width: int


def generate(
    model: VideoDiffusionModel,
    prompts: Prompts,
    size: ClipSize,
    seed: int = 0,
    batch_size: int = 8,
    negative: str = "",
    on_step: Callable[[], object] | None = None,
) -> UInt8[Tensor, "b c t h w"]:
    """Return a video for each prompt; clip number i draws the same noise whatever the batch size.

    Args:
        model: The model; samples with its own sampler and guidance.
        prompts: One entry a video.
        size: Size of the videos.
        seed: Seed of the noise.
        batch_size: Videos made at once, at most.
        negative: Caption to be guided away from.
        on_step: Called after each sampling step of each batch.

    Raises:
        ValueError: If the network can't make videos of this size, or ``batch_size`` is below 1.
    """
    check_size(model, size)
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: must be at least 1")
    shape = (model.encoder.channels, size.num_frames, *model.encoder.latent_size(size.height, size.width))
    videos = []
    for start in range(0, len(prompts), batch_size):
        clips = range(start, min(start + batch_size, len(prompts)))
        noise = randomness.normal(seed, "sampling noise", clips, shape)
        part = prompts.map(lambda tensor, rows=slice(clips.start, clips.stop): tensor[rows])
        part = Prompts(prompts.captions[clips.start : clips.stop], part.labels, part.image, part.has_image)
        videos.append(
            model(
                noise,
                part,
                negative=negative,
                draw_noise=step_noise(seed, clips, noise.to(model.device)),
                on_step=(lambda step, x0: on_step()) if on_step else None,
            ).cpu()
        )
    return torch.cat(videos)


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
