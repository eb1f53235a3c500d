"""Rotary positions (Su et al. 2021, "RoFormer", section 3.2) in time, rows and columns: each has a part of a head."""

from typing import NamedTuple

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor

_BASE = 10_000.0
"""Ratio of the longest period to the shortest."""


class Rotation(NamedTuple):
    """Cosine and sine of the angle by which each pair of features of a token is rotated; the same in all heads."""

    cos: Float[Tensor, "t h w d_half"]
    sin: Float[Tensor, "t h w d_half"]


def rotation_of_tokens(frames: Int[Tensor, " t"], height: int, width: int, head_channels: int) -> Rotation:
    """Return the rotation of each token in a grid.

    A third of the pairs rotates with the row, a third with the column, and the rest with the frame.

    Args:
        frames: Position of each frame in time; independent images are at 0.
        height: Rows of tokens.
        width: Columns of tokens.
        head_channels: Width of an attention head, an even number.
    """
    of_space = 2 * (head_channels // 6)
    rows, columns = (torch.arange(size, device=frames.device) for size in (height, width))
    sizes = {"t": len(frames), "h": height, "w": width}
    angles = torch.cat(
        [
            repeat(_angles(frames, head_channels - 2 * of_space), "t d -> t h w d", **sizes),
            repeat(_angles(rows, of_space), "h d -> t h w d", **sizes),
            repeat(_angles(columns, of_space), "w d -> t h w d", **sizes),
        ],
        dim=-1,
    )
    return Rotation(angles.cos().float(), angles.sin().float())


def _angles(positions: Int[Tensor, " n"], channels: int) -> Float[Tensor, "n d_half"]:
    # In fp32, the angles of late frames would be wrong in the fourth digit.
    exponents = torch.arange(0, channels, 2, dtype=torch.float64, device=positions.device) / channels
    return positions[:, None] * _BASE**-exponents


def rotate(x: Float[Tensor, "b t h w n d"], rotation: Rotation) -> Float[Tensor, "b t h w n d"]:
    """Rotate neighbouring features of each head as pairs: ``(x + i y) (cos + i sin)``."""
    real, imaginary = rearrange(x, "... (d pair) -> pair ... d", pair=2)
    cos, sin = (rearrange(part, "t h w d -> t h w 1 d") for part in rotation)
    rotated = torch.stack([real * cos - imaginary * sin, real * sin + imaginary * cos], dim=-1)
    return rearrange(rotated, "... d pair -> ... (d pair)").to(x.dtype)
