"""Parts of a user's own that docs/example does not show; conf/ has a YAML for each."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import repeat
from jaxtyping import Float, UInt8
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import avg_pool3d

from data_pipelines.annotations import Annotation
from data_pipelines.settings import ClipSettings
from data_pipelines.sources import Clip, Inputs
from vdm.models.autoencoder import Compression
from vdm.models.pretrained.published import Published
from vdm.models.pretrained.stored import StoredTensors
from vdm.types import ClipSize


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
