"""Latents whose distribution is normal, so that everything about them is known; and samplers as linear maps.

With a linear denoiser every sampler is a linear function of its noises and of what is observed. Run on a batch of unit
vectors, it shows that function itself, hence the exact mean and covariance of its samples, without any sampling.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from vdm.diffusion.denoiser import Denoise, Denoised
from vdm.diffusion.observations import Observation, Operator
from vdm.diffusion.samplers.base import GridSampler
from vdm.diffusion.schedules.base import NoiseSchedule
from vdm.diffusion.schedules.cosine import Cosine

Shape = tuple[int, int, int, int]
"""Channels, frames, rows, columns."""


@dataclass(frozen=True)
class Normal:
    """A normal distribution over flattened latents."""

    mean: Tensor
    covariance: Tensor

    def kl_from(self, other: "Normal", basis: Tensor) -> float:
        """Return the Kullback-Leibler divergence from ``other`` to this on the space that rows of ``basis`` span."""
        covariance, precision = basis @ self.covariance @ basis.T, torch.linalg.inv(basis @ other.covariance @ basis.T)
        difference = basis @ (self.mean - other.mean)
        quadratic = torch.trace(precision @ covariance) + difference @ precision @ difference
        log_ratio = torch.logdet(precision @ covariance)
        return float(quadratic - len(basis) - log_ratio) / 2


def smooth_process(places: Tensor, length: float, nugget: float = 1e-2) -> Tensor:
    """Return the covariance ``exp(-d^2 / 2 length^2)``, with a little independent variance, of values at places."""
    distance = torch.cdist(places, places)
    return torch.exp(-((distance / length) ** 2) / 2) + nugget * torch.eye(len(places), dtype=places.dtype)


def rough_process(places: Tensor, length: float) -> Tensor:
    """Return the covariance ``exp(-d / length)`` (Ornstein-Uhlenbeck) of values at places."""
    return torch.exp(-torch.cdist(places, places) / length)


def denoiser(covariance: Tensor) -> Denoise:
    """Return ``E[x0 | xt]`` for x0 of mean 0."""
    identity = torch.eye(len(covariance), dtype=covariance.dtype)

    def denoise(xt: Tensor, alpha: Tensor, sigma: Tensor) -> Denoised:
        noised = alpha[0] ** 2 * covariance + sigma[0] ** 2 * identity
        return Denoised((xt.flatten(1) @ torch.linalg.solve(noised, alpha[0] * covariance)).reshape(xt.shape))

    return denoise


def matrix(operator: Operator, shape: Shape) -> Tensor:
    """Return ``A`` as a matrix."""
    size = torch.Size(shape).numel()
    return operator(torch.eye(size, dtype=torch.float64).reshape(size, *shape)).flatten(1).T


def conditioned(covariance: Tensor, observed: Tensor, y: Tensor) -> Normal:
    """Return the distribution of x0 of mean 0, given ``observed @ x0 = y``."""
    gain = covariance @ observed.T @ torch.linalg.inv(observed @ covariance @ observed.T)
    return Normal(gain @ y, covariance - gain @ observed @ covariance)


@dataclass
class LinearRun:
    """A sampler's response to each of its unit noises, and to the observation.

    Args:
        sampler: The sampler.
        shape: Shape of a clip's latents.
        y: What is observed, without the axis of clips.
        operator: How it is observed.
        num_draws: How often the sampler draws fresh noise, at most.
        schedule: Signal and noise.
    """

    sampler: GridSampler
    shape: Shape
    y: Tensor
    operator: Operator
    num_draws: int
    schedule: NoiseSchedule = field(default_factory=Cosine)

    def __post_init__(self) -> None:
        self.size = torch.Size(self.shape).numel()
        self.num_rows = self.size * (self.num_draws + 1) + 1
        self.seen: list[tuple[float, float, Tensor]] = []
        """Alpha, sigma and noised latents of each call of the model."""

    def distribution(self, make: Callable[[Denoise, Sequence[Observation]], Denoise], denoise: Denoise) -> Normal:
        """Return that of the samples, with the denoising function that ``make`` returns."""
        y = torch.zeros(self.num_rows, *self.y.shape, dtype=torch.float64)
        y[-1] = self.y

        def recorded(xt: Tensor, alpha: Tensor, sigma: Tensor) -> Denoised:
            self.seen.append((float(alpha[0]), float(sigma[0]), xt.detach()))
            return denoise(xt, alpha, sigma)

        informed = make(recorded, [Observation(y, self.operator)])
        return self.moments(self.sampler(informed, self._unit_noise(0), self.schedule, self._unit_noise))

    def moments(self, x: Tensor) -> Normal:
        """Return the distribution of what the rows of ``x`` are the responses of."""
        *responses, mean = x.flatten(1)
        response = torch.stack(responses)
        return Normal(mean, response.T @ response)

    def _unit_noise(self, draw: int) -> Tensor:
        noise = torch.zeros(self.num_rows, self.size, dtype=torch.float64)
        noise[draw * self.size : (draw + 1) * self.size] = torch.eye(self.size, dtype=torch.float64)
        return noise.reshape(self.num_rows, *self.shape)
