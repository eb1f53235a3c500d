"""Data whose best denoiser and whose probability-flow ODE are known in closed form, and noise of exact moments."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg import hadamard
from scipy.optimize import brentq
from scipy.stats import norm
from torch import Tensor

from vdm.diffusion.denoiser import Denoised
from vdm.diffusion.samplers.base import GridSampler
from vdm.diffusion.schedules.base import NoiseSchedule
from vdm.diffusion.shapes import over_latents


@dataclass(frozen=True)
class Mixture:
    """Every number of the latents is drawn from a mixture of Gaussians."""

    weights: tuple[float, ...]
    means: tuple[float, ...]
    deviations: tuple[float, ...]

    def denoise(self, xt: Tensor, alpha: Tensor, sigma: Tensor) -> Denoised:
        """Return E[x0 | xt], by conditioning within each Gaussian and by Bayes' rule between them."""
        a, s = (over_latents(level)[..., None] for level in (alpha, sigma))
        weights, means, deviations = (xt.new_tensor(v) for v in (self.weights, self.means, self.deviations))
        total = a**2 * deviations**2 + s**2
        gap = xt[..., None] - a * means
        share = torch.softmax(weights.log() - gap**2 / (2 * total) - total.log() / 2, -1)
        return Denoised((share * (means + a * deviations**2 / total * gap)).sum(-1))

    def flow(self, x: Tensor, start: float, end: float) -> Tensor:
        """Carry ``xt / alpha`` along the ODE from one ratio of noise to signal to a smaller one.

        In one dimension paths can't cross, so that the ODE leaves each point its quantile.
        """

        def probability(point: float, sigma: float) -> float:
            terms = zip(self.weights, self.means, self.deviations, strict=True)
            return sum(weight * norm.cdf(point, mean, np.hypot(deviation, sigma)) for weight, mean, deviation in terms)

        def carried(point: float) -> float:
            quantile = probability(point, start)
            return brentq(lambda candidate: probability(candidate, end) - quantile, -50, 50, xtol=1e-13, rtol=1e-14)

        return x.new_tensor([carried(point) for point in x.flatten().tolist()]).reshape(x.shape)


MEAN, DEVIATION = 0.7, 0.5
GAUSSIAN = Mixture((1.0,), (MEAN,), (DEVIATION,))
TWO_PEAKS = Mixture((0.3, 0.7), (-1.0, 0.8), (0.4, 0.5))


def exact_noise() -> Tensor:
    """Return noises of 1024 numbers whose means are exactly 0, variances 1, and correlations with each other 0.

    They are the rows of a Hadamard matrix but for the first, which is constant. What is linear in such noises has, over
    its 1024 numbers, exactly the mean and the variance that it would have over all noise there is.
    """
    return torch.tensor(hadamard(1024)[1:], dtype=torch.float64).reshape(-1, 1, 1, 1, 32, 32)


def moments(sampler: GridSampler, schedule: NoiseSchedule, data: Mixture = GAUSSIAN) -> tuple[float, float]:
    """Return mean and variance of what a sampler makes of all noise, exactly, for Gaussian data."""
    noises = exact_noise()
    sample = sampler(data.denoise, noises[0], schedule, lambda number: noises[number])
    return sample.mean().item(), sample.var(correction=0).item()
