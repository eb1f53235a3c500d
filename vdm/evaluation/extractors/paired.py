"""Distances of frames from the true frames, in pixels: PSNR and SSIM."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from vdm.evaluation.base import EvaluatedClip, Features
from vdm.evaluation.extractors.batches import WithoutNetwork
from vdm.evaluation.extractors.pairs import compare_frames
from vdm.ranges import Positive, Size

Frames = UInt8[Tensor, "n c h w"]

_WINDOW = 11
"""Rows and columns of SSIM's Gaussian window."""
_DEVIATION = 1.5


class PSNR(WithoutNetwork):
    """Peak signal-to-noise ratio of frames, 10 log10(255^2 / MSE) in decibels; the mean over frames.

    Args:
        max_db: Frames that equal the true ones, or nearly, count as this, for the mean to stay finite.
        batch_size: Clips in a batch.
    """

    def __init__(self, max_db: Positive = 100.0, batch_size: Size = 1) -> None:
        self.max_db, self.batch_size = max_db, batch_size

    def compare(self, clips: Sequence[EvaluatedClip], truth: Sequence[EvaluatedClip]) -> Features:
        """Return the ratio of each clip; see ``PairExtractor``."""
        return compare_frames(self._decibels, clips, truth, self.batch_size, self.device)

    def _decibels(self, frames: Frames, truth: Frames) -> Float[Tensor, " n"]:
        error = (frames.float() - truth.float()).square().mean((1, 2, 3))
        return (10 * torch.log10(255**2 / error)).clamp(max=self.max_db)  # equal frames: log10(inf)


class SSIM(WithoutNetwork):
    """Structural similarity of frames (Wang et al. 2004), 1 for equal ones; the mean over frames.

    A Gaussian window of 11x11 pixels and standard deviation 1.5, K1 = 0.01, K2 = 0.03; the mean over all pixels and
    channels of RGB. As in torchmetrics, frames are reflected at the border; codes that leave the border out, such as
    that of the paper, differ by about 0.001.

    Args:
        batch_size: Clips in a batch.
    """

    def __init__(self, batch_size: Size = 1) -> None:
        self.batch_size = batch_size

    def compare(self, clips: Sequence[EvaluatedClip], truth: Sequence[EvaluatedClip]) -> Features:
        """Return the similarity of each clip; see ``PairExtractor``."""
        return compare_frames(_similarity, clips, truth, self.batch_size, self.device)


def _similarity(frames: Frames, truth: Frames) -> Float[Tensor, " n"]:
    height, width = frames.shape[2:]
    if min(height, width) < _WINDOW:
        raise ValueError(f"frames have {height}x{width} pixels; SSIM needs at least {_WINDOW}x{_WINDOW}")
    x, y = frames.float(), truth.float()
    # The window's means of x, y, x^2, y^2 and xy.
    mean_x, mean_y, mean_xx, mean_yy, mean_xy = _windowed(torch.cat([x, y, x * x, y * y, x * y])).chunk(5)
    variances = mean_xx - mean_x.square() + mean_yy - mean_y.square()
    covariance = mean_xy - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    numerator = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return (numerator / ((mean_x.square() + mean_y.square() + c1) * (variances + c2))).mean((1, 2, 3))


def _windowed(frames: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """Return the Gaussian mean around each pixel."""
    offset = torch.arange(_WINDOW, device=frames.device) - _WINDOW // 2
    weights = torch.exp(-(offset**2) / (2 * _DEVIATION**2))
    weights = (weights / weights.sum()).expand(frames.shape[1], 1, -1)
    padded = F.pad(frames, [_WINDOW // 2] * 4, mode="reflect")
    across = F.conv2d(padded, weights[:, :, None], groups=frames.shape[1])
    return F.conv2d(across, weights[..., None], groups=frames.shape[1])
