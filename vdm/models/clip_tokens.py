"""Image tokens of CLIP: what Wan 2.1 attends to of given pictures."""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Interval
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from vdm.models.clip_vision import ClipVision, read_preprocessing
from vdm.ranges import Location, Name, NameOrNothing, Positive

_Side = Annotated[int, Interval(ge=1, le=16_384)]


@dataclass(frozen=True)
class ShortestEdge:
    """A size that keeps the picture's proportions."""

    shortest_edge: _Side


@dataclass(frozen=True)
class HeightAndWidth:
    """A size."""

    height: _Side
    width: _Side


@dataclass(frozen=True)
class Preprocessing:
    """The keys read from ``preprocessor_config.json``, with the values that are supported: CLIP's."""

    image_mean: tuple[float, float, float]
    image_std: tuple[Positive, Positive, Positive]
    size: ShortestEdge | HeightAndWidth
    crop_size: HeightAndWidth
    do_resize: Literal[True] = True
    do_center_crop: Literal[True] = True
    do_rescale: Literal[True] = True
    do_normalize: Literal[True] = True
    resample: Literal[3] = 3
    """Bicubic, with antialiasing."""

    def __post_init__(self) -> None:
        size, side = self.size, self.crop_size
        least = (size.shortest_edge,) * 2 if isinstance(size, ShortestEdge) else (size.height, size.width)
        if least[0] < side.height or least[1] < side.width:
            raise ValueError(f"crop_size={side.height}x{side.width}: must not be larger than size")


class ClipTokenEncoder(ClipVision):
    """transformers' ``CLIPVisionModel``: tokens of the last layer but one, as Wan 2.1 takes them.

    Pictures are resized, cropped at the centre and normalized as the pipeline's ``CLIPImageProcessor`` does it.

    Args:
        name_or_path: Folder of a pipeline, or its name on the hub.
        subfolder: The encoder's folder in it.
        image_processor: Folder in it with the sizes, means and standard deviations of the encoder's pictures.
        variant: Variant of the weights in the file names, e.g. ``fp16``. Computation is in fp32 in any case.
    """

    def __init__(
        self,
        name_or_path: Location,
        subfolder: NameOrNothing = "image_encoder",
        image_processor: NameOrNothing = "image_processor",
        variant: Name | None = None,
    ) -> None:
        super().__init__("CLIPVisionModel", name_or_path, subfolder, variant)
        self.name_or_path, self.subfolder, self.image_processor = name_or_path, subfolder, image_processor
        self.preprocessing = read_preprocessing(Preprocessing, name_or_path, image_processor)
        self.set_statistics(self.preprocessing.image_mean, self.preprocessing.image_std)
        config = self.frozen.config
        side = self.preprocessing.crop_size
        if (side.height, side.width) != (config.image_size, config.image_size):
            raise ValueError(
                f"name_or_path: {name_or_path}/{image_processor}: crop_size={side.height}x{side.width}, but pictures of"
                f" {subfolder} are {config.image_size}x{config.image_size}"
            )
        self.channels: int = config.hidden_size
        self.num_tokens: int = (config.image_size // config.patch_size) ** 2 + 1

    @torch.no_grad()
    def forward(self, frames: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b l e"]:
        """Return the tokens of RGB pictures of any size."""
        with self.full_precision():
            scaled = cropped(resized(frames, self.preprocessing.size), self.preprocessing.crop_size) / 255
            normalized = (scaled - self.mean) / self.std
            return self.frozen(pixel_values=normalized, output_hidden_states=True).hidden_states[-2]


def resized(frames: UInt8[Tensor, "b 3 h w"], size: ShortestEdge | HeightAndWidth) -> Float[Tensor, "b 3 h2 w2"]:
    """Resize pictures bicubically with antialiasing, to values of 0..255.

    As in Pillow, which resizes rows, rounds, and then resizes columns.
    """
    height, width = frames.shape[2:]
    if isinstance(size, HeightAndWidth):
        wanted = (size.height, size.width)
    else:
        short, long = sorted((height, width))
        other = int(size.shortest_edge * long / short)
        wanted = (size.shortest_edge, other) if height <= width else (other, size.shortest_edge)
    pixels = frames.float()
    for shape in ((height, wanted[1]), wanted):
        if shape != tuple(pixels.shape[2:]):
            # Pillow rounds halves up.
            pixels = (F.interpolate(pixels, shape, mode="bicubic", antialias=True) + 0.5).floor().clamp(0, 255)
    return pixels


def cropped(pixels: Float[Tensor, "b 3 h w"], size: HeightAndWidth) -> Float[Tensor, "b 3 h2 w2"]:
    """Crop pictures at their centre."""
    top, left = (pixels.shape[2] - size.height) // 2, (pixels.shape[3] - size.width) // 2
    return pixels[:, :, top : top + size.height, left : left + size.width]
