"""Arguments of a call from Python, each checked for its type and range; an error is one line that names it."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypedDict, get_type_hints

import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from vdm.config.annotations import validated
from vdm.generation.generate import Output
from vdm.generation.requests import fit_picture, load_image, read_prompts
from vdm.generation.tasks import Known
from vdm.ranges import Number, NumSteps, Positive, Seed, Size, Text
from vdm.types import ClipSize

Picture = str | Path | Image.Image | UInt8[Tensor, "c h w"]
"""A first frame: a file, a picture, or RGB of the videos' height and width."""


class _Plain(TypedDict):
    num_videos: Size
    num_frames: Size | None
    height: Size | None
    width: Size | None
    fps: Positive | None
    num_steps: NumSteps | None
    guidance_scale: Number | None
    negative: Text
    seed: Seed
    batch_size: Size
    block_frames: Size | None
    overlap: Size | None
    output: Output
    progress: bool


PLAIN: Mapping[str, Any] = get_type_hints(_Plain, include_extras=True)
"""Annotations of the arguments that are plain values, by name."""
_EXAMPLES = {
    "sampler": "vdm.diffusion.samplers.ddim.DDIM(num_steps=20)",
    "guidance": "vdm.diffusion.guidance.Extrapolation(3.0)",
}


def checked(name: str, value: object, annotation: Any) -> Any:
    """Return a value converted to its annotation.

    Raises:
        ValueError: If the annotation does not allow it.
    """
    try:
        return validated(value, annotation)
    except ValueError as error:
        raise ValueError(f"{name}{error}") from None


def check_kinds(labels: object, noise: object, known: object, method: object) -> None:
    """Refuse arguments of a wrong type.

    Raises:
        ValueError: In one line.
    """
    if not isinstance(labels, int | str | list | tuple | None):
        raise ValueError(f"labels: must be a class by its index or name, or a list, not {type(labels).__name__}")
    if noise is not None and not (isinstance(noise, Tensor) and noise.is_floating_point()):
        raise ValueError("noise: must be a tensor of floating-point numbers, in the shape of the latents")
    if known is not None and not isinstance(known, Known):
        raise ValueError("known: must be what a function of vdm.generation.tasks returns")
    if method is not None and not callable(method):
        raise ValueError(f"method={method!r}: must be an object of vdm.diffusion.observations, such as CleanFrames()")


def captions_of(prompts: object) -> list[str] | None:
    """Return captions as a list; None if there are none.

    Raises:
        ValueError: If they are neither a text nor a list of texts.
    """
    if prompts is not None and not isinstance(prompts, str | list | tuple):
        raise ValueError(f"prompts: must be a caption, a list of captions, or Prompts, not {type(prompts).__name__}")
    return read_prompts(prompts, None)


def pictures_of(image: object, size: ClipSize, name: str) -> UInt8[Tensor, "n 3 h w"]:
    """Return one or several pictures as frames of the given size; messages begin with the argument's ``name``.

    Raises:
        ValueError: If one is not a picture, can't be read, or is a tensor of another size.
    """
    if isinstance(image, list | tuple):
        if not image:
            raise ValueError(f"{name}: must be a picture, or a list of one or more")
        return torch.cat([pictures_of(one, size, name) for one in image])
    if isinstance(image, str | Path):
        return load_image(Path(image), size.height, size.width, name)
    if isinstance(image, Image.Image):
        return fit_picture(image, size.height, size.width)
    wanted = (3, size.height, size.width)
    if not isinstance(image, Tensor) or image.dtype != torch.uint8:
        kind = image.dtype if isinstance(image, Tensor) else type(image).__name__
        raise ValueError(f"{name}: must be a file, a PIL picture or a tensor of uint8, or a list of these, not {kind}")
    if tuple(image.shape) != wanted:
        raise ValueError(f"{name}: has the shape {tuple(image.shape)}, but the videos' frames are {wanted}")
    return image[None]


def changed(component: Any, kind: str, name: str, value: object) -> Any:
    """Return a sampler or guidance with one of its fields replaced, or unchanged if ``value`` is None.

    Raises:
        ValueError: If it is not such an object, or has no such field.
    """
    if not callable(component) or isinstance(component, type):
        raise ValueError(f"{kind}={component!r}: must be an object, such as {_EXAMPLES[kind]}")
    if value is None:
        return component
    if not is_dataclass(component) or name not in {field.name for field in fields(component) if field.init}:
        raise ValueError(f"{name}={value}: {type(component).__name__} has no {name}; give another {kind}")
    return replace(component, **{name: value})  # pyright: ignore[reportArgumentType] - an object, not a class
