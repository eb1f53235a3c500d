"""What published protocols do to frames before a network sees them: resize rules and ranges, one function a rule.

Video papers measure with the same networks and yet get different numbers, since each resizes in its own way. These
functions follow the cited code operation by operation; frames are bytes from 0 to 255.
"""

import math
from collections.abc import Callable

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

Video = UInt8[Tensor, "b c t h w"]
Prepared = Float[Tensor, "b c t h2 w2"]
Frames = Float[Tensor, "n c h w"]

I3D_SIZE = 224
"""Height and width that I3D was trained with."""
C3D_SIZE = 112


def i3d_original(video: Video) -> Prepared:
    """Original FVD: bilinear to 224x224 by TensorFlow 1's rule, -1 to 1.

    Unterthiner et al. 2019, "FVD"; ``preprocess`` of google-research/frechet_video_distance.
    """
    resized = per_frame(video.float(), lambda frames: bilinear_tensorflow1(frames, I3D_SIZE, I3D_SIZE))
    return 2 * resized / 255 - 1


def i3d_cdfvd(video: Video) -> Prepared:
    """cd-fvd with I3D: bilinear to 224x224 without antialiasing, half-pixel centres, -1 to 1.

    Ge et al. 2024, "On the Content Bias in Fréchet Video Distance"; ``preprocess_i3d`` of content-debiased-fvd.
    """
    return 2 * per_frame(video.float(), lambda frames: bilinear(frames, I3D_SIZE, I3D_SIZE)) / 255 - 1


def i3d_shorter_side(video: Video) -> Prepared:
    """VideoGPT, TATS and common_metrics_on_video_quality: shorter side to 224, centre crop, -1 to 1.

    ``preprocess_single`` of Yan et al. 2021, "VideoGPT"; bilinear without antialiasing, half-pixel centres.
    """
    return (shorter_side(video.float() / 255, I3D_SIZE, antialias=False) - 0.5) * 2


def videomae_cdfvd(video: Video) -> Prepared:
    """cd-fvd with VideoMAE v2: 0 to 1, then bilinear to 224x224 without antialiasing; not normalized further.

    ``preprocess_videomae`` of content-debiased-fvd.
    """
    return per_frame(video.float() / 255, lambda frames: bilinear(frames, 224, 224))


def cdfvd_loader(video: Video, size: int) -> UInt8[Tensor, "b c t size size"]:
    """How cd-fvd reads videos of any size: shorter side to ``size`` with antialiasing, centre crop, bytes cut off.

    ``preprocess`` of ``cdfvd/utils/data_utils.py``, and ``byte()`` of ``compute_real_stats``.
    """
    return (shorter_side(video.float() / 255, size, antialias=True) * 255).byte()


def c3d_tgan2(video: Video, mean: Float[Tensor, "3 16 128 171"]) -> Float[Tensor, "b 3 16 112 112"]:
    """TGAN2's input of C3D: BGR from 0 to 255, bilinear to 112x112 between corner pixels, minus the training mean.

    Saito et al. 2020, "Train Sparsely, Generate Densely"; ``C3DVersion1UCF101``, whose crop of the mean begins at 8 in
    both directions.

    Args:
        video: Clips of 16 frames.
        mean: Mean clip of C3D's training, BGR.
    """
    corner = 8
    crop = mean[:, :, corner : corner + C3D_SIZE, corner : corner + C3D_SIZE]
    return per_frame(video.flip(1).float(), lambda frames: bilinear_corners(frames, C3D_SIZE, C3D_SIZE)) - crop


def per_frame(video: Float[Tensor, "b c t h w"], resize: Callable[[Tensor], Tensor]) -> Prepared:
    """Resize each frame on its own."""
    resized = resize(rearrange(video, "b c t h w -> (b t) c h w"))
    return rearrange(resized, "(b t) c h w -> b c t h w", b=len(video))


def bilinear(frames: Frames, height: int, width: int) -> Float[Tensor, "n c height width"]:
    """Resize between half-pixel centres, without antialiasing."""
    return F.interpolate(frames, size=(height, width), mode="bilinear", align_corners=False)


def bilinear_corners(frames: Frames, height: int, width: int) -> Float[Tensor, "n c height width"]:
    """Resize between the centres of the corner pixels, as Chainer's ``resize_images`` does."""
    return F.interpolate(frames, size=(height, width), mode="bilinear", align_corners=True)


def bilinear_tensorflow1(frames: Frames, height: int, width: int) -> Float[Tensor, "n c height width"]:
    """Resize as TensorFlow 1's ``resize_bilinear``: pixel i comes from i * old / new, without half-pixel centres."""
    return _stretched(_stretched(frames, 2, height), 3, width)


def _stretched(frames: Frames, axis: int, size: int) -> Float[Tensor, "n c h2 w2"]:
    length = frames.shape[axis]
    place = torch.arange(size, device=frames.device) * (length / size)
    lower = place.floor().long()
    upper = (lower + 1).clamp(max=length - 1)
    fraction = (place - lower).view(-1, 1) if axis == 2 else place - lower
    before, after = frames.index_select(axis, lower), frames.index_select(axis, upper)
    return before + (after - before) * fraction


def shorter_side(video: Float[Tensor, "b c t h w"], size: int, antialias: bool) -> Float[Tensor, "b c t size size"]:
    """Resize bilinearly until the shorter side has ``size`` pixels, and crop the middle; a half pixel is rounded down.

    The longer side is rounded up.
    """
    height, width = video.shape[-2:]
    scale = size / min(height, width)
    target = (size, math.ceil(width * scale)) if height < width else (math.ceil(height * scale), size)
    resized = per_frame(
        video,
        lambda frames: F.interpolate(frames, target, mode="bilinear", align_corners=False, antialias=antialias),
    )
    top, left = ((length - size) // 2 for length in target)
    return resized[..., top : top + size, left : left + size]
