"""Captions rendered as pictures, for the videos of a grid."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from vdm.text import printable

_MAX_CHARS = 400
"""Characters of a caption that are rendered, at most."""
_MARGIN = 3
"""Pixels between a caption and the edges of its strip."""
_PAPER, _INK = (255, 255, 255), (0, 0, 0)


def caption_strips(captions: Sequence[str], width: int, size: int, max_lines: int) -> list[UInt8[Tensor, "c h w"]]:
    """Return each caption as black text on white, all of one height.

    A character that the font lacks is shown as a box.

    Args:
        captions: Any texts.
        width: Width of the strips in pixels.
        size: Height of letters in pixels.
        max_lines: Lines of a caption, at most; a longer one is cut off and ends in dots.
    """
    font = _font(size)
    shown = (printable(" ".join(text.split()), _MAX_CHARS) for text in captions)
    lines = [_lines(text, font, width - 2 * _MARGIN, max_lines) for text in shown]
    height = max(map(len, lines), default=0) * sum(font.getmetrics()) + 2 * _MARGIN
    return [_strip(text, font, height, width) for text in lines]


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """Return DejaVu Sans, which comes with matplotlib and covers European and some other scripts."""
    from matplotlib import get_data_path

    return ImageFont.truetype(Path(get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), size)


def _lines(text: str, font: ImageFont.FreeTypeFont, width: int, max_lines: int) -> list[str]:
    """Break a text between words if possible, else within them."""
    lines: list[str] = []
    while text and len(lines) < max_lines:
        is_last = len(lines) == max_lines - 1
        fitting = _fitting(text, font, width)
        if fitting < len(text) and is_last:
            dots = "\u2026"
            fitting = _fitting(text, font, width - int(font.getlength(dots)))
            return [*lines, text[:fitting].rstrip() + dots]
        if fitting < len(text) and " " in text[: fitting + 1].strip():
            fitting = text[: fitting + 1].rindex(" ")
        lines.append(text[:fitting].rstrip())
        text = text[fitting:].lstrip()
    return lines


def _fitting(text: str, font: ImageFont.FreeTypeFont, width: int) -> int:
    """Return how many characters fit, at least one."""
    low, high = 1, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if font.getlength(text[:middle]) <= width else (low, middle - 1)
    return low


def _strip(lines: Sequence[str], font: ImageFont.FreeTypeFont, height: int, width: int) -> UInt8[Tensor, "c h w"]:
    picture = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(picture)
    for number, line in enumerate(lines):
        draw.text((_MARGIN, _MARGIN + number * sum(font.getmetrics())), line, _INK, font)
    return rearrange(torch.from_numpy(np.array(picture)), "h w c -> c h w")
