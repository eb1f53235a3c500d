"""Networks of transformers that describe clips: loading them, and their rule for pixels.

transformers' own image processors need torchvision. Their rule is read from the folder instead, and applied here.
"""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from annotated_types import Interval
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from vdm.evaluation.extractors.batches import Video
from vdm.evaluation.extractors.preprocess import per_frame
from vdm.extras import needs_extra
from vdm.models.frozen import loaded
from vdm.outside import read_json, typed
from vdm.ranges import Positive

PixelSize = Annotated[int, Interval(ge=1, le=4096)]
Scale = Annotated[float, Interval(ge=1 / 255 - 1e-6, le=1 / 255 + 1e-6)]
_FILES = ("preprocessor_config.json", "video_preprocessor_config.json")
_MODES = {2: "bilinear", 3: "bicubic"}
"""Of Pillow's numbers of filters, which the files have."""


@dataclass(frozen=True)
class _Size:
    shortest_edge: PixelSize | None = None
    height: PixelSize | None = None
    width: PixelSize | None = None


@dataclass(frozen=True)
class PixelRule:
    """The keys that are read from the file of an image or video processor, with what is allowed here.

    Frames are resized with antialiasing and rounded to bytes, cropped in the middle, brought to 0 to 1 and normalized.
    """

    size: _Size | PixelSize
    image_mean: tuple[float, float, float]
    image_std: tuple[Positive, Positive, Positive]
    crop_size: _Size | PixelSize | None = None
    do_center_crop: bool = True
    resample: Literal[2, 3] = 2
    do_resize: Literal[True] = True
    do_rescale: Literal[True] = True
    do_normalize: Literal[True] = True
    rescale_factor: Scale = 1 / 255

    def apply(self, video: Video) -> Float[Tensor, "b c t h2 w2"]:
        """Return the pixels that the network takes.

        Raises:
            ValueError: In one line, if the crop is larger than the frames.
        """
        target = self._target(*video.shape[-2:])
        # As Pillow and torchvision, which resize bytes to bytes.
        pixels = per_frame(
            video.float(),
            lambda frames: (
                F.interpolate(frames, target, mode=_MODES[self.resample], align_corners=False, antialias=True)
                .round()
                .clamp(0, 255)
            ),
        )
        if self.do_center_crop and self.crop_size is not None:
            pixels = _cropped(pixels, *_pair(self.crop_size))
        mean, std = (
            rearrange(torch.tensor(values, device=video.device), "c -> c 1 1 1")
            for values in (self.image_mean, self.image_std)
        )
        return (pixels / 255 - mean) / std

    def _target(self, height: int, width: int) -> tuple[int, int]:
        size = _Size(shortest_edge=self.size) if isinstance(self.size, int) else self.size
        if size.shortest_edge is None:
            return _pair(size)
        short, long = sorted((height, width))
        longer = int(size.shortest_edge * long / short)
        return (size.shortest_edge, longer) if height <= width else (longer, size.shortest_edge)


def _pair(size: _Size | int) -> tuple[int, int]:
    if isinstance(size, int):
        return size, size
    if size.height is None or size.width is None:
        raise ValueError("the processor's size has neither 'shortest_edge' nor 'height' and 'width'")
    return size.height, size.width


def _cropped(pixels: Float[Tensor, "b c t h w"], height: int, width: int) -> Float[Tensor, "b c t h2 w2"]:
    top, left = (have - wanted for have, wanted in zip(pixels.shape[-2:], (height, width), strict=True))
    if min(top, left) < 0:
        raise ValueError(
            f"the processor crops {height}x{width} out of {pixels.shape[-2]}x{pixels.shape[-1]} pixels, which are fewer"
        )
    return pixels[..., top // 2 : top // 2 + height, left // 2 : left // 2 + width]


def read_pixel_rule(name_or_path: str) -> PixelRule:
    """Return the rule for pixels of a folder saved by transformers, or of a model on the hub.

    Raises:
        ValueError: In one line, if there is no such file, or it asks for processing that is not implemented here.
    """
    for name in _FILES:
        file = _file(name_or_path, name)
        if file is not None:
            return typed(PixelRule, read_json(file), file)
    raise ValueError(f"name_or_path: {name_or_path} has none of {', '.join(_FILES)}, which say how frames are resized")


def files_of_network(name_or_path: str) -> dict[str, str]:
    """Return the SHA-256 of the files that say how the network is built, and how it takes pixels, by name."""
    return file_checksums(name_or_path, ["config.json"]) | dict([*file_checksums(name_or_path, _FILES).items()][:1])


def file_checksums(name_or_path: str, names: Collection[str]) -> dict[str, str]:
    """Return the SHA-256 of some files of a folder saved by transformers, or of a model on the hub.

    Args:
        name_or_path: The folder or name.
        names: Names of the files; those that do not exist are left out.
    """
    found = {name: _file(name_or_path, name) for name in names}
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in found.items() if path is not None}


def _file(name_or_path: str, name: str) -> Path | None:
    if Path(name_or_path).is_dir():
        file = Path(name_or_path) / name
        return file if file.exists() else None
    from transformers.utils.hub import cached_file

    found = loaded(
        lambda: cached_file(name_or_path, name, _raise_exceptions_for_missing_entries=False), name_or_path, ""
    )
    return None if found is None else Path(found)


def load_transformer(name_or_path: str, classes: Collection[str], what: str) -> Any:
    """Load a network of transformers, in fp32, from safetensors; nothing of the folder runs.

    Args:
        name_or_path: Folder saved by transformers, or a name on the hub.
        classes: Names of transformers' classes that will do, the best first. The first whose name the folder's
            configuration gives as its own is loaded, otherwise the last, which must be the bare network.
        what: What needs it, for messages.

    Raises:
        ValueError: In one line, if it can't be loaded, is another kind of network, or lacks weights.
    """
    with needs_extra("evaluation", what):
        import transformers

    kinds = {name: getattr(transformers, name) for name in classes}
    bare = list(kinds.values())[-1]

    def load() -> Any:
        config = transformers.AutoConfig.from_pretrained(name_or_path, trust_remote_code=False)
        if config.model_type != bare.config_class.model_type:
            raise ValueError(f"it holds a model of type {config.model_type}, not {bare.config_class.model_type}")
        own = config.architectures or []
        chosen = next((kind for name, kind in kinds.items() if name in own), bare)
        model, report = chosen.from_pretrained(
            name_or_path, use_safetensors=True, dtype=torch.float32, output_loading_info=True
        )
        missing = sorted(report["missing_keys"])
        if missing:  # transformers would draw them at random
            raise ValueError(f"{len(missing)} weights are missing, such as {missing[0]}")
        return model

    return loaded(load, name_or_path, "")
