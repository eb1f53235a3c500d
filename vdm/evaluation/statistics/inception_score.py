"""Inception score of logits."""

import math
from dataclasses import dataclass
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor

from vdm import randomness
from vdm.evaluation.base import Features
from vdm.evaluation.statistics.checks import one_side
from vdm.ranges import Seed, Size


@dataclass(frozen=True)
class InceptionScore:
    """``exp(mean over x of KL(p(y|x) || p(y)))`` (Salimans et al. 2016, section 4), from a classifier's logits.

    It lies between 1 and the number of classes d. Each row is an x: a video, as in TGAN (Saito et al. 2017), or a
    frame. Clips are shuffled and cut into parts of about the same size, whose scores are averaged, as in
    torch-fidelity; without shuffling, clips that come class by class would score low. Part i of s begins at clip
    ``floor(i n / s)``.

    Args:
        num_splits: Number s of parts.
        seed: Seed of the order of clips.
    """

    num_splits: Size = 10
    seed: Seed = 0

    needs_reference = False
    is_share = False

    def min_clips(self, num_features: int) -> int:
        """Return d clips for each part, since the score of n rows can't be above n."""
        return self.num_splits * num_features

    def value(self, clips: Features, reference: Features | None = None) -> float:
        """Return the mean score of parts. ``reference`` means nothing here.

        Raises:
            ValueError: If there are fewer clips than parts.
        """
        name = f"an inception score of {self.num_splits} parts (num_splits)"
        logits = one_side(name, clips, at_least=self.num_splits)
        n = len(logits)
        logits = logits[randomness.permutation(self.seed, "inception score", 0, n)].double()
        bounds = [index * n // self.num_splits for index in range(self.num_splits + 1)]
        scores = [_score(logits[start:end].flatten(0, 1)) for start, end in pairwise(bounds)]
        return sum(scores) / self.num_splits


def _score(logits: Float[Tensor, "r d"]) -> float:
    log_p = logits.log_softmax(1)
    log_marginal = log_p.logsumexp(0) - math.log(len(log_p))
    return float((log_p.exp() * (log_p - log_marginal)).sum(1).mean().exp())
