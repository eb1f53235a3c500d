"""Interface of a sampler, and the loop over a grid of noise levels that most samplers share."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count, pairwise
from typing import ClassVar, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from vdm.diffusion.denoiser import Denoise, Denoised
from vdm.diffusion.samplers.spacing import Spacing, Trailing
from vdm.diffusion.schedules.base import NoiseSchedule
from vdm.diffusion.shapes import Latents, PerClip
from vdm.ranges import NumSteps, ShareBelowOne

DrawNoise = Callable[[int], Latents]
"""Returns fresh noise from the diffusion's noise prior. Its argument numbers the calls, from 1."""
OnStep = Callable[[int, Latents], object]
"""Called after each step with the number of steps done and the denoised latents."""


@dataclass(frozen=True)
class NoiseLevel:
    """A noise level as Python floats, so that the factors of a step are computed in float64 on the host."""

    alpha: float
    sigma: float

    @property
    def noise_to_signal(self) -> float:
        """``sigma / alpha``, the sigma of Karras et al. 2022; infinite if there is no signal."""
        return self.sigma / self.alpha if self.alpha > 0 else math.inf

    @property
    def half_log_snr(self) -> float:
        """``lambda = log(alpha / sigma)``, the variable of DPM-Solver; infinite if there is no noise or no signal."""
        if self.sigma == 0:
            return math.inf
        return math.log(self.alpha / self.sigma) if self.alpha > 0 else -math.inf


@dataclass(frozen=True)
class GridPoint(NoiseLevel):
    """A noise level of the grid and its time, which only solvers of the SDE use."""

    t: float


CLEAN = GridPoint(alpha=1.0, sigma=0.0, t=0.0)
"""The last point of every grid, unless ``t_end`` is above 0."""


@dataclass(frozen=True)
class Evaluation:
    """A prediction of the model at a noise level; multistep solvers keep the last ones."""

    level: NoiseLevel
    xt: Latents
    x0: Latents


@dataclass(frozen=True)
class Transition:
    """A random transition of a sampler: ``latents`` drawn from a normal distribution with mean ``mean``."""

    mean: Latents
    deviation: Float[Tensor, "..."] | float
    """Standard deviation: one number, or a tensor that broadcasts to ``mean``."""
    latents: Latents
    """The latents that were drawn."""
    now: NoiseLevel
    """Noise level before the transition."""
    then: NoiseLevel
    """Noise level after it: higher than ``now`` for churn, the same for a Langevin step."""

    def log_probability(self, latents: Latents | None = None) -> PerClip:
        """Return the log-density of each clip's latents, by default of those drawn, in nats.

        It is summed over all latents of a clip, in fp32 at least. Gradients go to mean and deviation alone.
        """
        drawn = (self.latents if latents is None else latents).detach()
        dtype = torch.promote_types(self.mean.dtype, torch.float32)
        mean, deviation = self.mean.to(dtype), torch.as_tensor(self.deviation, dtype=dtype, device=self.mean.device)
        standard = (drawn.to(dtype) - mean) / deviation
        log_density = -(standard**2) / 2 - torch.log(deviation) - math.log(2 * math.pi) / 2
        return log_density.flatten(1).sum(1)


OnTransition = Callable[[Transition], Latents | None]
"""Called for each transition. Returned latents replace those that were drawn; ``None`` keeps them.

A function that returns the latents of an earlier run gives their probabilities under other weights, as PPO and GRPO
need.
"""


@dataclass
class SamplerState:
    """What the steps of one sampled batch share: the model, fresh noise and earlier evaluations."""

    schedule: NoiseSchedule
    denoise_at_level: Denoise
    draw_numbered: DrawNoise
    grid: list[GridPoint]
    steps_left: int = 0
    """Number of steps after the current one."""
    past: list[Evaluation] = field(default_factory=list[Evaluation])
    """Earlier evaluations that the solver keeps, newest last."""
    draws: "count[int]" = field(default_factory=lambda: count(1))
    on_transition: OnTransition | None = None

    def denoise(self, xt: Latents, level: NoiseLevel) -> Latents:
        """Return the predicted clean latents for ``xt``."""
        return self.denoised(xt, level).x0

    def denoised(self, xt: Latents, level: NoiseLevel) -> Denoised:
        """Return the whole prediction of the model for ``xt``."""
        return self.denoise_at_level(xt, xt.new_full((len(xt),), level.alpha), xt.new_full((len(xt),), level.sigma))

    def draw_noise(self) -> Latents:
        """Return fresh noise."""
        return self.draw_numbered(next(self.draws))

    def drawn(
        self,
        mean: Latents,
        deviation: Float[Tensor, "..."] | float,
        now: NoiseLevel,
        then: NoiseLevel,
        noise: Latents | None = None,
    ) -> Latents:
        """Return ``mean`` plus noise. All noise of a step must be added here, so that ``on_transition`` sees it.

        Args:
            mean: Mean of the latents after the transition.
            deviation: Standard deviation of the noise; 0 for none.
            now: Noise level before the transition.
            then: Noise level after the transition.
            noise: Noise of unit variance; fresh by default.
        """
        if not isinstance(deviation, Tensor) and deviation == 0:
            return mean
        latents = mean + deviation * (self.draw_noise() if noise is None else noise)
        if self.on_transition is None:
            return latents
        chosen = self.on_transition(Transition(mean, deviation, latents, now, then))
        return latents if chosen is None else chosen

    def level(self, noise_to_signal: float) -> NoiseLevel:
        """Return the schedule's ``alpha`` and ``sigma`` at any noise-to-signal ratio."""
        log_snr = torch.tensor([-2 * math.log(noise_to_signal)], dtype=torch.float64, device="cpu")
        alpha, sigma = self.schedule.at_log_snr(log_snr)
        return NoiseLevel(float(alpha), float(sigma))

    @cached_property
    def drift_diffusion(self) -> dict[GridPoint, tuple[float, float]]:
        """``f`` and ``g^2`` at each point of the grid except the last, computed together, which is faster."""
        *noisy, _ = self.grid
        times = torch.tensor([point.t for point in noisy], dtype=torch.float64, device="cpu")
        drift, diffusion = self.schedule.drift_diffusion(times)
        return {point: (float(f), float(g2)) for point, f, g2 in zip(noisy, drift, diffusion, strict=True)}


class Sampler(Protocol):
    """Generates clean latents from noise."""

    @property
    def num_steps(self) -> int | None:
        """Number of calls of ``on_step``; None if it is not known in advance."""
        ...

    def __call__(
        self,
        denoise: Denoise,
        noise: Latents,
        schedule: NoiseSchedule,
        draw_noise: DrawNoise,
        on_step: OnStep | None = None,
        on_transition: OnTransition | None = None,
    ) -> Latents:
        """Return clean latents.

        Args:
            denoise: The model, including conditions and guidance.
            noise: Initial noise of unit variance, in the shape of the latents.
            schedule: Signal and noise at each time.
            draw_noise: Source of fresh noise for stochastic samplers.
            on_step: Called after each step.
            on_transition: Called for each random transition; never by deterministic samplers.
        """
        ...


@dataclass(frozen=True)
class GridSampler(ABC):
    """A sampler that takes steps down a grid of noise levels.

    Args:
        num_steps: Number of steps, and of network evaluations unless the sampler says otherwise.
        spacing: Spacing of the grid's points.
        t_end: Time at which the last step ends. 0 is data. Some published models stop at the first timestep of their
            table, whose noise remains in the sample (``set_alpha_to_one=False`` in diffusers).
        unit_variance: Whether the initial noise has variance ``alpha^2 + sigma^2`` instead of ``sigma^2``. Samplers of
            diffusers do so: noise of unit variance replaces the signal that the first point should have.
    """

    num_steps: NumSteps = 50
    spacing: Spacing = Trailing()
    t_end: ShareBelowOne = field(default=0.0, kw_only=True)
    unit_variance: bool = field(default=False, kw_only=True)

    needs_signal: ClassVar[bool] = False
    """Whether the first point of the grid must have ``alpha > 0``."""

    @property
    def calls_network_once(self) -> bool:
        """Whether each step calls the network exactly once, with the latents at the beginning of the step."""
        return True

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise ValueError(f"num_steps must be at least 1, but is {self.num_steps}")
        if not 0 <= self.t_end < 1:
            raise ValueError(f"t_end must lie in [0, 1), but is {self.t_end}")

    @abstractmethod
    def step(self, state: SamplerState, xt: Latents, now: GridPoint, then: GridPoint) -> tuple[Latents, Latents]:
        """Take one step.

        Args:
            state: The model, fresh noise and earlier evaluations.
            xt: Noised latents at ``now``.
            now: Grid point at the beginning of the step; ``sigma > 0``.
            then: Grid point at its end; ``alpha > 0``, and ``CLEAN`` in the last step unless ``t_end`` is above 0.

        Returns:
            The latents at ``then``, and the denoised latents for ``on_step``.
        """

    def __call__(
        self,
        denoise: Denoise,
        noise: Latents,
        schedule: NoiseSchedule,
        draw_noise: DrawNoise,
        on_step: OnStep | None = None,
        on_transition: OnTransition | None = None,
    ) -> Latents:
        """Return clean latents; see ``Sampler``.

        Raises:
            ValueError: If sampler, spacing and schedule are not compatible, as in ``grid``.
        """
        grid = self.grid(schedule)
        state = SamplerState(schedule, denoise, draw_noise, grid, on_transition=on_transition)
        xt = self.first_latents(noise, grid)
        for number, (now, then) in enumerate(pairwise(grid), start=1):
            state.steps_left = self.num_steps - number
            xt, x0 = self.step(state, xt, now, then)
            if on_step is not None:
                on_step(number, x0)
        return xt

    def first_latents(self, noise: Latents, grid: Sequence[GridPoint]) -> Latents:
        """Return the latents at the first point of the grid."""
        first = grid[0]
        return (math.hypot(first.alpha, first.sigma) if self.unit_variance else first.sigma) * noise

    def grid(self, schedule: NoiseSchedule) -> list[GridPoint]:
        """Return ``num_steps`` points from most noise to least, then ``CLEAN``, or the point at ``t_end``.

        Raises:
            ValueError: If the spacing is not compatible with the schedule, or the sampler can't start at its first
                point.
        """
        # In float64, since cancellation near t = 0 would make sigma inaccurate in fp32. On the CPU, which supports it.
        times = self.spacing(schedule, self.num_steps)
        if self.t_end > 0:
            times = torch.cat([times, times.new_tensor([self.t_end])])
        alpha, sigma = schedule.alpha_sigma(times)
        grid = [*map(GridPoint, map(float, alpha), map(float, sigma), map(float, times))]
        grid += [CLEAN] if self.t_end == 0 else []
        if not all(now.noise_to_signal > then.noise_to_signal for now, then in pairwise(grid)):
            raise ValueError(
                f"spacing must give decreasing noise levels above 0, but {self.spacing} gives equal ones, or 0, in "
                f"{self.num_steps} steps of {schedule}: choose fewer steps or another spacing"
            )
        if self.needs_signal and grid[0].alpha == 0:
            raise ValueError(
                f"{type(self).__name__} can't start from pure noise, where the diffusion's drift is infinite: choose "
                "sampler/spacing=log_snr with a sampler.spacing.sigma_max such as 80, or sampler=dpm_solver_pp_2m_sde"
            )
        return grid
