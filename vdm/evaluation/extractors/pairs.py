"""Comparing clips with their true clips, in batches of one fixed size."""

from collections.abc import Callable, Sequence

import torch
from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor

from vdm.evaluation.base import EvaluatedClip, Features
from vdm.evaluation.extractors.batches import Video, in_batches, stacked


def compare_frames(
    score: Callable[[Tensor, Tensor], Float[Tensor, " n"]],
    clips: Sequence[EvaluatedClip],
    truth: Sequence[EvaluatedClip],
    batch_size: int,
    device: torch.device,
) -> Features:
    """Return for each clip the mean over frames of a score of a frame and its true frame.

    Args:
        score: Scores frames against true frames, both of bytes ``n c h w``.
        clips: The clips.
        truth: Their true clips, in the same order.
        batch_size: Clips in a batch.
        device: Where scores are computed.

    Raises:
        ValueError: In one line, if clips and true clips differ in number or size.
    """
    if len(clips) != len(truth):
        raise ValueError(f"{len(clips)} clips can't be compared with {len(truth)} true clips")

    def describe(pairs: Sequence[tuple[EvaluatedClip, EvaluatedClip]]) -> Float[Tensor, "b 1 1"]:
        # Stacked together first, which checks that clips and true clips are of one size.
        video = stacked([clip for pair in pairs for clip in pair]).to(device)
        scores = score(_frames(video[0::2]), _frames(video[1::2]))
        return reduce(scores, "(b t) -> b 1 1", "mean", b=len(pairs))

    return in_batches(describe, list(zip(clips, truth, strict=True)), batch_size)


def _frames(video: Video) -> Tensor:
    return rearrange(video, "b c t h w -> (b t) c h w")
