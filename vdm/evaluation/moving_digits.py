"""Accuracy of sampled moving digits: do they show the digit and the motion of their prompts?

The protocol: a small convolutional network learns digits from frames of the training clips, and its accuracy on
held-out handwriting is reported beside every figure. A clip's digit is the class with the greatest mean probability
over frames. A clip's motion is the displacement of its centre of brightness over its first half, rounded to the nearest
of eight directions. The same figures of held-out real clips show how far the measure can be trusted.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise

import torch
from einops import rearrange, reduce
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from vdm import randomness
from vdm.types import ClipBatch

Video = UInt8[Tensor, "b c t h w"]

LABEL_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
"""Classes of a set of moving digits."""

_NUM_STEPS = 400
_FRAMES_PER_CLIP = 4
_NOISE = 0.1
"""Standard deviation of noise on training frames, full brightness being 1: sampled frames are not quite clean."""


def grey(video: Video) -> Float[Tensor, "b t h w"]:
    """Return brightness from 0 to 1."""
    return reduce(video.float() / 255, "b c t h w -> b t h w", "mean")


class DigitClassifier(nn.Module):
    """Four convolutions and a linear layer, over single frames."""

    def __init__(self) -> None:
        super().__init__()
        widths = (1, 16, 32, 64, 64)
        convolutions = [
            layer
            for before, after in pairwise(widths)
            for layer in (nn.Conv2d(before, after, 3, stride=2, padding=1), nn.BatchNorm2d(after), nn.ReLU())
        ]
        # The maximum over the last feature map makes the result independent of the digit's place.
        self.features = nn.Sequential(*convolutions, nn.AdaptiveMaxPool2d(1), nn.Flatten())
        self.classify = nn.Linear(widths[-1], 10)

    def forward(self, frames: Float[Tensor, "n h w"]) -> Float[Tensor, "n digits"]:
        """Return the logit of each digit."""
        return self.classify(self.features(frames[:, None]))

    @torch.no_grad()
    def describe(self, video: Video) -> Float[Tensor, "b d"]:
        """Return the features of each clip: those of the penultimate layer, averaged over frames."""
        features = self.features(rearrange(grey(video), "b t h w -> (b t) 1 h w"))
        return rearrange(features, "(b t) d -> b t d", b=len(video)).mean(1)

    @torch.no_grad()
    def predict(self, video: Video) -> Int[Tensor, " b"]:
        """Return the most probable digit of each clip."""
        frames = grey(video)
        logits = self(rearrange(frames, "b t h w -> (b t) h w"))
        return rearrange(logits.softmax(-1), "(b t) d -> b t d", b=len(video)).mean(1).argmax(-1)


def train_classifier(batches: Iterable[ClipBatch], on_step: Callable[[], None] | None = None) -> DigitClassifier:
    """Train a classifier on frames of labelled clips, from an endless stream of batches; deterministic."""
    torch.manual_seed(0)
    classifier = DigitClassifier()
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=_NUM_STEPS)
    for step, batch in enumerate(islice(batches, _NUM_STEPS)):
        frames = grey(batch.video)
        chosen = randomness.permutation(0, "classifier frames", step, frames.shape[1])[:_FRAMES_PER_CLIP]
        noise = randomness.normal(0, "classifier noise", [step], (len(frames), len(chosen), *frames.shape[2:]))[0]
        inputs = rearrange(frames[:, chosen] + _NOISE * noise, "b t h w -> (b t) h w")
        loss = F.cross_entropy(classifier(inputs), batch.labels.repeat_interleave(len(chosen)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if on_step is not None:
            on_step()
    return classifier.eval()


def captioned_directions(captions: Sequence[str]) -> Int[Tensor, "b 2"]:
    """Return the motion that captions describe as (x, y), each -1, 0 or 1; x points right and y down."""
    words = [caption.split() for caption in captions]
    return torch.tensor([[("right" in w) - ("left" in w), ("down" in w) - ("up" in w)] for w in words])


def seen_directions(video: Video) -> Int[Tensor, "b 2"]:
    """Return the motion over the first half of each clip as (x, y), rounded to the nearest of eight directions."""
    frames = grey(video)
    frames = frames * (frames > 0.2)  # a dim background would shift the centre
    mass = reduce(frames, "b t h w -> b t", "sum").clamp(min=1e-6)
    x = torch.einsum("b t h w, w -> b t", frames, torch.arange(frames.shape[3]).float()) / mass
    y = torch.einsum("b t h w, h -> b t", frames, torch.arange(frames.shape[2]).float()) / mass
    middle = frames.shape[1] // 2
    eighth = torch.round(torch.atan2(y[:, middle] - y[:, 0], x[:, middle] - x[:, 0]) / (math.pi / 4))
    return torch.stack([torch.cos(eighth * math.pi / 4), torch.sin(eighth * math.pi / 4)], dim=-1).round().long()


@dataclass(frozen=True)
class PromptedDigits:
    """Shares of clips that show what was asked for, 0 to 1."""

    digit: float
    """Clips with the right digit; chance is 1/10."""
    direction: float
    """Clips with the right direction, within 22.5 degrees; chance is 1/8."""


def score(
    classifier: DigitClassifier, video: Video, captions: Sequence[str], labels: Int[Tensor, " b"]
) -> PromptedDigits:
    """Return the shares of clips that show the digit of their label and the motion of their caption."""
    directions = (seen_directions(video) == captioned_directions(captions)).all(-1)
    return PromptedDigits(
        digit=(classifier.predict(video) == labels).float().mean().item(), direction=directions.float().mean().item()
    )
