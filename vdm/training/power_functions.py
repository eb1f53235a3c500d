"""Averages of weights with a power-function profile, and any of them after training (Karras et al. 2024, EDM2).

The average at step ``t`` gives the weights of step ``tau`` the density ``(gamma + 1) tau^gamma / t^(gamma + 1)``: its
length grows with the run, and the beginning fades out (section 3.1). ``gamma`` follows from ``sigma_rel``, the
profile's standard deviation as a share of the run's length. From averages of two lengths, saved now and then, the
average of any other length is put together by least squares of profiles (section 3.2).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Interval

MAX_SIGMA_REL = 12**-0.5
"""That of gamma = 0, which weighs all steps alike."""
SigmaRel = Annotated[float, Interval(gt=0, lt=MAX_SIGMA_REL)]
"""Standard deviation of an average's profile, as a share of the run's length."""


def gamma_of(sigma_rel: float) -> float:
    """Return the exponent of the profile whose standard deviation is ``sigma_rel`` times the run's length.

    ``sigma_rel^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3))`` is a cubic equation with one root above zero.

    Raises:
        ValueError: If ``sigma_rel`` does not lie between 0 and that of a mean of all steps.
    """
    if not 0 < sigma_rel < MAX_SIGMA_REL:
        raise ValueError(f"sigma_rel must lie between 0 and {MAX_SIGMA_REL:.4f}, but is {sigma_rel}")
    squared = sigma_rel**-2
    return float(np.roots([1, 7, 16 - squared, 12 - squared]).real.max())


@dataclass(frozen=True)
class PowerFunction:
    """The profile of an average.

    Args:
        sigma_rel: Standard deviation of the profile, as a share of the steps so far.
        step: Steps so far.
    """

    sigma_rel: float
    step: int

    def density(self, step: np.ndarray) -> np.ndarray:
        """Return the weight of each step in the average."""
        gamma = gamma_of(self.sigma_rel)
        inside = (gamma + 1) / self.step * (step / self.step) ** gamma
        return np.where(step <= self.step, inside, 0)

    def dot(self, other: "PowerFunction") -> float:
        """Return the integral of the product of two profiles (Algorithm 3)."""
        first, last = (self, other) if self.step <= other.step else (other, self)
        a, b = gamma_of(first.sigma_rel), gamma_of(last.sigma_rel)
        ratio = math.exp(b * math.log(first.step / last.step))
        return (a + 1) * (b + 1) / (a + b + 1) * ratio / last.step


@dataclass(frozen=True)
class PostHocEMA:
    """How an average is put together from others.

    Args:
        target: Its profile.
        sources: Profiles of the averages there are.
        shares: Factor of each of them; they need not be positive.
    """

    target: PowerFunction
    sources: tuple[PowerFunction, ...]
    shares: tuple[float, ...]

    @property
    def error(self) -> float:
        """Norm of the difference between the profile reached and the target, as a share of the target's norm."""
        everything = [*self.sources, self.target]
        factors = np.array([*self.shares, -1.0])
        products = np.array([[one.dot(other) for other in everything] for one in everything])
        return math.sqrt(max(0.0, factors @ products @ factors) / self.target.dot(self.target))


def reconstruct(target: PowerFunction, sources: Sequence[PowerFunction]) -> PostHocEMA:
    """Return the shares whose combined profile is nearest to that of ``target`` in the sense of least squares.

    Unlike the paper's, they add up to 1 also where the averages there are don't suffice: it is an average in any case.

    Args:
        target: The average that is asked for.
        sources: The averages there are, at steps up to the target's.
    """
    products = np.array([[one.dot(other) for other in sources] for one in sources])
    wanted = np.array([source.dot(target) for source in sources])
    # Neighbours' profiles are all but parallel: shares far beyond 1 that cancel out would amplify rounding errors of
    # the saved weights. So directions in which profiles, scaled to unit length, hardly differ are left aside.
    scale = np.sqrt(np.diag(products))
    both = np.stack([wanted, np.ones_like(wanted)], axis=1) / scale[:, None]
    nearest, change = (np.linalg.lstsq(products / np.outer(scale, scale), both, rcond=1e-10)[0] / scale[:, None]).T
    shares = nearest + change * (1 - nearest.sum()) / change.sum()
    return PostHocEMA(target, tuple(sources), tuple(shares.tolist()))
