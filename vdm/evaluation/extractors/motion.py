"""What Fréchet distances of appearance are blind to: flicker, too little motion, frozen clips.

No network is needed.
"""

from collections.abc import Callable, Sequence

import torch
from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from vdm.evaluation.base import EvaluatedClip, Features
from vdm.evaluation.extractors.batches import Video, WithoutNetwork, check_frames, in_batches, stacked
from vdm.ranges import NotNegative

_GRID = 32


class TemporalFlickering(WithoutNetwork):
    """VBench's "temporal flickering": (255 - MAE) / 255, higher is steadier.

    MAE is the mean absolute difference of successive frames in bytes (Huang et al. 2024, "VBench", section 3.1;
    ``vbench/temporal_flickering.py``). VBench applies it to clips of still scenes alone, since it takes motion for
    flicker.
    """

    def describe(self, clips: Sequence[EvaluatedClip]) -> Features:
        """Return the score of each clip, 0 to 1."""
        return _scores(lambda video: (255 - _mean_change(video.float())) / 255, clips, self.device)


class MotionMagnitude(WithoutNetwork):
    """Mean absolute change of brightness between successive frames, 0 to 1; to be compared with real clips' motion.

    With Y(t) the brightness of frame t (Rec. 601 weights, 0 to 1), averaged over the cells of a grid of at most 32x32,
    it is the mean over t and cells of |Y(t + 1) - Y(t)|. The cells average out noise of single pixels.
    """

    def describe(self, clips: Sequence[EvaluatedClip]) -> Features:
        """Return the score of each clip, 0 to 1."""
        return _scores(motion_magnitude, clips, self.device)


class StaticClips(WithoutNetwork):
    """1 for clips that stand still, 0 for others: the mean is the share of static clips.

    Args:
        threshold: A clip stands still if its ``MotionMagnitude`` is at most this, in bytes of brightness, 0 to 255.
    """

    def __init__(self, threshold: NotNegative = 0.5) -> None:
        self.threshold = threshold

    def describe(self, clips: Sequence[EvaluatedClip]) -> Features:
        """Return 0 or 1 for each clip."""
        return _scores(lambda video: (motion_magnitude(video) * 255 <= self.threshold).float(), clips, self.device)


def motion_magnitude(video: Video) -> Float[Tensor, " b"]:
    """Return the motion of each clip; see ``MotionMagnitude``."""
    weights = torch.tensor([0.299, 0.587, 0.114], device=video.device)
    brightness = torch.einsum("b c t h w, c -> b t h w", video.float() / 255, weights)
    height, width = (min(length, _GRID) for length in brightness.shape[2:])
    cells = F.adaptive_avg_pool2d(rearrange(brightness, "b t h w -> (b t) 1 h w"), (height, width))
    return _mean_change(rearrange(cells, "(b t) c h w -> b c t h w", b=len(video)))


def _mean_change(video: Float[Tensor, "b c t h w"]) -> Float[Tensor, " b"]:
    """Return the mean absolute difference of successive frames."""
    return reduce((video[:, :, 1:] - video[:, :, :-1]).abs(), "b c t h w -> b", "mean")


def _scores(score: Callable[[Tensor], Tensor], clips: Sequence[EvaluatedClip], device: torch.device) -> Features:
    def describe(batch: Sequence[EvaluatedClip]) -> Float[Tensor, "b 1 1"]:
        video = stacked(batch).to(device)
        check_frames(video, video.shape[2] >= 2, "motion needs at least 2")
        return rearrange(score(video), "b -> b 1 1")

    return in_batches(describe, clips, WithoutNetwork.batch_size)
