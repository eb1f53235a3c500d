"""Parts of a user's own, one of each kind, from outside the package; conf/ has a YAML for each."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange, repeat
from jaxtyping import Float, UInt8
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import avg_pool3d

from data_pipelines.annotations import Annotation
from data_pipelines.settings import ClipSettings
from data_pipelines.sources import Clip, Inputs
from vdm.assembly.model import VideoDiffusionModel
from vdm.diffusion.samplers.base import GridPoint, GridSampler, Run
from vdm.diffusion.shapes import Latents
from vdm.models.autoencoder import Compression
from vdm.models.pretrained.published import Published
from vdm.models.pretrained.stored import StoredTensors
from vdm.objectives.base import Losses
from vdm.objectives.batch_randomness import BatchRandomness
from vdm.objectives.latents import LatentBatch
from vdm.ranges import Size
from vdm.types import ClipSize, Conditioning


class OwnNetwork(nn.Module):
    """Two convolutions; what it must fit is offered to it.

    Args:
        in_channels: Channels of the latents.
        width: Channels between the convolutions.
    """

    def __init__(self, in_channels: Size, width: Size = 8) -> None:
        super().__init__()
        self.enter = nn.Conv3d(in_channels, width, 3, padding=1)
        self.level = nn.Linear(1, width)
        self.exit = nn.Conv3d(width, in_channels, 3, padding=1)

    def forward(self, xt: Latents, c_noise: Tensor, condition: Conditioning, num_images: int = 0) -> Latents:
        """Return a prediction."""
        hidden = self.enter(xt) + rearrange(self.level(c_noise[:, None]), "b d -> b d 1 1 1")
        return self.exit(torch.nn.functional.silu(hidden))


class OwnAutoencoder:
    """Means of 2x2 pixels of pairs of frames; the first frame stands alone, as in causal autoencoders."""

    channels = 3
    compression = Compression(frames=2, pixels=2)

    def latent_shape(self, clip: ClipSize) -> tuple[int, int, int, int]:
        """Return channels, frames, rows and columns."""
        return self.channels, *self.compression.latent_size(clip)

    def encode(self, video: UInt8[Tensor, "b c t h w"]) -> Float[Tensor, "b d t2 h2 w2"]:
        """Average."""
        pixels = video.float() / 127.5 - 1
        first, others = avg_pool3d(pixels[:, :, :1], (1, 2, 2)), pixels[:, :, 1:]
        return torch.cat([first, avg_pool3d(others, 2)], dim=2) if others.shape[2] else first

    def decode(self, latents: Float[Tensor, "b d t2 h2 w2"]) -> UInt8[Tensor, "b c t h w"]:
        """Repeat."""
        large = repeat(latents, "b c t h w -> b c (t 2) (h p) (w q)", p=2, q=2)
        return ((large[:, :, 1:].clamp(-1, 1) + 1) * 127.5).round().byte()


@dataclass(frozen=True)
class OwnSampler(GridSampler):
    """Deterministic DDIM, written anew."""

    def step(self, run: Run, xt: Latents, now: GridPoint, then: GridPoint) -> tuple[Latents, Latents]:
        """Take one step."""
        x0 = run.denoise(xt, now)
        return then.alpha * x0 + then.sigma * (xt - now.alpha * x0) / now.sigma, x0


class OwnObjective:
    """The absolute error of the predicted clean latents."""

    def __call__(self, model: VideoDiffusionModel, latents: LatentBatch, randomness: BatchRandomness) -> Losses:
        """Return the loss of each clip."""
        shape = tuple(latents.x0.shape[1:])
        noise = randomness.noise(model.diffusion.noise_prior, shape).to(latents.x0)
        times = randomness.times(model.diffusion, shape).to(latents.x0.device)
        noised = model.diffusion.add_noise(latents.x0, noise, times.t)
        output = model.predict(noised, randomness.drop_conditions(latents.prompts))
        x0 = model.diffusion.parameterization.x0(output, noised.xt, noised.alpha, noised.sigma)
        return Losses((x0 - latents.x0).abs().flatten(1).mean(1), times.of_clips)


@dataclass(frozen=True)
class Brightness:
    """One source: clips of one brightness each."""

    name: str
    settings: ClipSettings
    fingerprint: str = "1"

    def clips(self) -> Iterator[Clip]:
        """Yield the clips in order."""
        for value in (60, 120, 180):
            shape = (self.settings.num_frames, self.settings.height, self.settings.width, 3)
            yield Clip(f"{self.name}-{value}", np.full(shape, value, np.uint8), {})


def own_source(input: str, clip: ClipSettings, excluded: Collection[Path]) -> Inputs[Brightness]:
    """Return sources by the letters of ``input``."""
    sources = tuple(Brightness(letter, clip) for letter in input)
    return Inputs(sources, labels=(), annotations={letter: Annotation(f"letter {letter}") for letter in input})


def open_own(folder: Path, name: str, variant: str | None = None) -> Published:
    """Open a folder of the published family."""
    weights = StoredTensors.open([folder / "network.safetensors"])
    width = weights.shapes["enter.weight"][0]
    return Published(weights, {"model": {"network": {"width": width}}})


def write_own(
    folder: Path,
    network: nn.Module,
    weights: Mapping[str, Tensor],
    trained: Mapping[str, Any],
    components: Path,
    variant: str | None = None,
) -> None:
    """Write a folder of the published family."""
    save_file(dict(weights), folder / "network.safetensors")
