"""EMAs with a power-function profile, and post-hoc EMA: an EMA of any length after training (Karras et al. 2024, EDM2).

The average at step ``t`` gives the weights of step ``tau`` the density ``(gamma + 1) tau^gamma / t^(gamma + 1)``: its
length grows with the run, and the beginning fades out (section 3.1). ``gamma`` follows from ``sigma_rel``, the
profile's standard deviation as a share of the run's length. From snapshots of two such averages along training, the
average of any other length is reconstructed by a least-squares fit of profiles (section 3.2).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Interval

MAX_SIGMA_REL = 12**-0.5
"""The value for gamma = 0, which weights all steps equally."""
SigmaRel = Annotated[float, Interval(gt=0, lt=MAX_SIGMA_REL)]
"""Standard deviation of an EMA's profile, as a share of the run's length."""


def gamma_of(sigma_rel: float) -> float:
    """Return the exponent of the profile whose standard deviation is ``sigma_rel`` times the run's length.

    ``sigma_rel^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3))`` is a cubic equation with one positive root.

    Raises:
        ValueError: If ``sigma_rel`` is not between 0 and ``MAX_SIGMA_REL``.
    """
    if not 0 < sigma_rel < MAX_SIGMA_REL:
        raise ValueError(f"sigma_rel must lie between 0 and {MAX_SIGMA_REL:.4f}, but is {sigma_rel}")
    squared = sigma_rel**-2
    return float(np.roots([1, 7, 16 - squared, 12 - squared]).real.max())


@dataclass(frozen=True)
class PowerFunction:
    """The profile of an EMA.

    Args:
        sigma_rel: Standard deviation of the profile, as a share of the steps so far.
        step: Steps so far.
    """

    sigma_rel: float
    step: int

    def density(self, step: np.ndarray) -> np.ndarray:
        """Return the weight of each step in the EMA."""
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
    """An EMA as a linear combination of saved ones.

    Args:
        target: Profile of the EMA that is asked for.
        sources: Profiles of the saved EMAs.
        shares: Coefficient of each saved EMA; it may be negative.
    """

    target: PowerFunction
    sources: tuple[PowerFunction, ...]
    shares: tuple[float, ...]

    @property
    def error(self) -> float:
        """Norm of the difference between the combined profile and the target, as a share of the target's norm."""
        everything = [*self.sources, self.target]
        factors = np.array([*self.shares, -1.0])
        products = np.array([[one.dot(other) for other in everything] for one in everything])
        return math.sqrt(max(0.0, factors @ products @ factors) / self.target.dot(self.target))


def reconstruct(target: PowerFunction, sources: Sequence[PowerFunction]) -> PostHocEMA:
    """Return the combination whose profile is nearest to ``target`` in the least-squares sense.

    Unlike in the paper, the coefficients are constrained to sum to 1, so that the result is a weighted mean of the
    weights even if there are few sources.

    Args:
        target: Profile of the EMA that is asked for.
        sources: Profiles of the saved EMAs, at steps up to the target's.
    """
    products = np.array([[one.dot(other) for other in sources] for one in sources])
    wanted = np.array([source.dot(target) for source in sources])
    # Profiles of neighbouring steps are nearly parallel. Large coefficients that cancel each other would amplify the
    # rounding errors of saved weights; the cut-off discards directions in which normalized profiles hardly differ.
    scale = np.sqrt(np.diag(products))
    both = np.stack([wanted, np.ones_like(wanted)], axis=1) / scale[:, None]
    nearest, change = (np.linalg.lstsq(products / np.outer(scale, scale), both, rcond=1e-10)[0] / scale[:, None]).T
    shares = nearest + change * (1 - nearest.sum()) / change.sum()
    return PostHocEMA(target, tuple(sources), tuple(shares.tolist()))
