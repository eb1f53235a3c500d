"""A user's captions, classes and first frame, read and checked."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from jaxtyping import UInt8
from PIL import Image, ImageOps
from torch import Tensor

from vdm.data.containers import open_picture
from vdm.data.decoding import PICTURE_ERRORS
from vdm.data.frames import rgb_picture
from vdm.regular_files import UnfitFileError, read_limited

MAX_PROMPTS_BYTES = 1 << 26
IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF", "TGA", "ICO", "MPO")
"""Pillow's names of the formats that are read. PostScript is not among them: Pillow runs another program for it."""


def read_prompts(prompts: str | Sequence[str] | None, file: str | None) -> list[str] | None:
    """Return captions from the argument, or from the lines of a text file, except blank ones.

    Raises:
        ValueError: If both are given, the file can't be read, or there is no caption.
    """
    if prompts is not None and file is not None:
        raise ValueError("prompts_file: give either prompts or prompts_file, not both")
    if file is not None:
        try:
            captions = [
                line.strip()
                for line in read_limited(file, MAX_PROMPTS_BYTES).decode("utf-8-sig").splitlines()
                if line.strip()
            ]
        except OSError as error:
            raise ValueError(f"prompts_file={file}: can't be read: {error.strerror or error}") from None
        except UnicodeDecodeError as error:
            raise ValueError(f"prompts_file={file}: {error}") from None
        if not captions:
            raise ValueError(f"prompts_file={file}: there is no caption in it")
        return captions
    if prompts is None:
        return None
    captions = [prompts] if isinstance(prompts, str) else list(prompts)
    if not captions or not all(isinstance(caption, str) for caption in captions):
        raise ValueError(f"prompts={prompts}: must be a list of one or more texts; quote those that look like numbers")
    return captions


def resolve_labels(
    labels: int | str | Sequence[int | str] | None, names: Sequence[str], num_classes: int
) -> list[int] | None:
    """Return the indices of classes that are given by index or by name.

    Raises:
        ValueError: If the model has no classes, or lacks one of these.
    """
    if labels is None:
        return None
    if num_classes == 0:
        raise ValueError(f"labels={labels}: the model was trained without classes (num_classes=0)")
    given = [labels] if isinstance(labels, int | str) else list(labels)
    indices = [names.index(label) if isinstance(label, str) and label in names else label for label in given]
    for label in indices:
        if not isinstance(label, int) or not 0 <= label < num_classes:
            allowed = ", ".join(names) or f"0 to {num_classes - 1}"
            raise ValueError(f"labels={label}: no such class; there are {allowed}")
    return [int(label) for label in indices]


def fit_picture(picture: Image.Image, height: int, width: int) -> UInt8[Tensor, "1 c h w"]:
    """Return a picture as an RGB frame: turned upright, scaled to cover the frame, and cropped at its centre."""
    upright = ImageOps.exif_transpose(picture)
    fitted = ImageOps.fit(rgb_picture(upright), (width, height), Image.Resampling.BICUBIC)
    return rearrange(torch.from_numpy(np.array(fitted)), "h w c -> 1 c h w")


def load_image(path: Path, height: int, width: int, name: str = "image") -> UInt8[Tensor, "1 c h w"]:
    """Read a picture and fit it to a frame; see ``fit_picture``. Messages begin with the ``name`` of the option.

    Raises:
        ValueError: If it can't be read.
    """
    try:
        with open_picture(path, IMAGE_FORMATS) as opened:
            return fit_picture(opened, height, width)
    except FileNotFoundError:
        raise ValueError(f"{name}={path}: no such file") from None
    except UnfitFileError as error:
        raise ValueError(f"{name}={path}: can't be read as a picture: {error.strerror}") from None
    except PICTURE_ERRORS as error:  # Pillow raises errors of many classes for damaged files
        raise ValueError(f"{name}={path}: can't be read as a picture: {' '.join(str(error).split())}") from None
