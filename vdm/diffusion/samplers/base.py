"""The loop that all samplers on a grid of noise levels share; each of them adds one step."""

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
"""Fresh noise of the diffusion's kind, by the number of the draw, from 1 up."""
OnStep = Callable[[int, Latents], object]
"""Called after each step with the number of steps done and the denoised latents."""


@dataclass(frozen=True)
class NoiseLevel:
    """Plain float64 numbers, so that a step's factors lose nothing and cost nothing."""

    alpha: float
    sigma: float

    @property
    def noise_to_signal(self) -> float:
        """``sigma / alpha``, the sigma of Karras et al. 2022; infinite without signal."""
        return self.sigma / self.alpha if self.alpha > 0 else math.inf

    @property
    def half_log_snr(self) -> float:
        """``lambda = log(alpha / sigma)``, the variable of DPM-Solver; infinite without noise or without signal."""
        if self.sigma == 0:
            return math.inf
        return math.log(self.alpha / self.sigma) if self.alpha > 0 else -math.inf


@dataclass(frozen=True)
class GridPoint(NoiseLevel):
    """A noise level of the grid, and its time, at which only solvers of an equation in time look."""

    t: float


CLEAN = GridPoint(alpha=1.0, sigma=0.0, t=0.0)
"""Where every grid ends."""


@dataclass(frozen=True)
class Evaluation:
    """What the model said at a noise level: multistep solvers look back at these."""

    level: NoiseLevel
    xt: Latents
    x0: Latents


@dataclass(frozen=True)
class Transition:
    """Where a sampler draws: ``latents`` from a normal distribution about ``mean``."""

    mean: Latents
    deviation: Float[Tensor, "..."] | float
    """Standard deviation: one for all numbers, or in a shape that multiplies ``mean``."""
    latents: Latents
    """What was drawn."""
    now: NoiseLevel
    """Noise level before."""
    then: NoiseLevel
    """Noise level after: above ``now`` for churn, the same for a Langevin step."""

    def log_probability(self, latents: Latents | None = None) -> PerClip:
        """Return the logarithm of the probability density of a clip's latents, by default of those drawn, in nats.

        It is summed over all numbers of a clip, in fp32 at least. Gradients go to mean and deviation alone.
        """
        drawn = (self.latents if latents is None else latents).detach()
        dtype = torch.promote_types(self.mean.dtype, torch.float32)
        mean, deviation = self.mean.to(dtype), torch.as_tensor(self.deviation, dtype=dtype, device=self.mean.device)
        standard = (drawn.to(dtype) - mean) / deviation
        log_density = -(standard**2) / 2 - torch.log(deviation) - math.log(2 * math.pi) / 2
        return log_density.flatten(1).sum(1)


OnTransition = Callable[[Transition], Latents | None]
"""Called wherever noise is added. What it returns takes the place of the latents drawn; ``None`` leaves them.

By returning the latents of an earlier run, one gets their probabilities under other weights, as PPO and GRPO need.
"""


@dataclass
class Run:
    """What a step may use."""

    schedule: NoiseSchedule
    denoise_at_level: Denoise
    draw_numbered: DrawNoise
    grid: list[GridPoint]
    steps_left: int = 0
    """Number of steps after the present one."""
    past: list[Evaluation] = field(default_factory=list[Evaluation])
    """Earlier evaluations, newest last, as far as the solver keeps them."""
    draws: "count[int]" = field(default_factory=lambda: count(1))
    on_transition: OnTransition | None = None

    def denoise(self, xt: Latents, level: NoiseLevel) -> Latents:
        """Return the clean latents expected behind ``xt``."""
        return self.denoised(xt, level).x0

    def denoised(self, xt: Latents, level: NoiseLevel) -> Denoised:
        """Return all that the model says about ``xt``."""
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
        """Return ``mean`` with noise of a standard deviation, 0 for none: the only way in which noise enters a step.

        Args:
            mean: Mean of the latents at ``then``, or of those that take the place of the latents at ``now``.
            deviation: Standard deviation of the noise.
            now: Noise level before.
            then: Noise level after.
            noise: Noise of unit variance; by default it is fresh.
        """
        if not isinstance(deviation, Tensor) and deviation == 0:
            return mean
        latents = mean + deviation * (self.draw_noise() if noise is None else noise)
        if self.on_transition is None:
            return latents
        chosen = self.on_transition(Transition(mean, deviation, latents, now, then))
        return latents if chosen is None else chosen

    def level(self, noise_to_signal: float) -> NoiseLevel:
        """Return the schedule's ``alpha`` and ``sigma`` at a ratio of noise to signal, on the grid or off it."""
        log_snr = torch.tensor([-2 * math.log(noise_to_signal)], dtype=torch.float64, device="cpu")
        alpha, sigma = self.schedule.at_log_snr(log_snr)
        return NoiseLevel(float(alpha), float(sigma))

    @cached_property
    def drift_diffusion(self) -> dict[GridPoint, tuple[float, float]]:
        """``f`` and ``g^2`` at each point of the grid but the last, all at once: one by one they would cost more."""
        *noisy, _ = self.grid
        times = torch.tensor([point.t for point in noisy], dtype=torch.float64, device="cpu")
        drift, diffusion = self.schedule.drift_diffusion(times)
        return {point: (float(f), float(g2)) for point, f, g2 in zip(noisy, drift, diffusion, strict=True)}


class Sampler(Protocol):
    """A way from noise to clean latents."""

    @property
    def num_steps(self) -> int | None:
        """How often ``on_step`` is called; none where that is not known before."""
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
            denoise: The model, with conditions and guidance inside.
            noise: Noise of unit variance in the shape of the latents.
            schedule: Signal and noise at each time.
            draw_noise: Fresh noise for samplers that need it.
            on_step: Called after each step.
            on_transition: Called wherever noise is added, never by samplers without noise in their steps.
        """
        ...


@dataclass(frozen=True)
class GridSampler(ABC):
    """A sampler that walks down a grid of noise levels.

    Args:
        num_steps: Number of steps; also of calls of the network, unless the sampler's own documentation says otherwise.
        spacing: Where the grid's points lie.
        t_end: Where the last step ends. 0 is data; some published models stop at the first timestep of their table,
            whose noise stays in the sample (diffusers' ``set_alpha_to_one=False``).
        unit_variance: Begin with noise of variance ``alpha^2 + sigma^2`` in the place of ``sigma^2``, as if what signal
            there is at the first point, of unit variance, were noise too: diffusers' samplers do.
    """

    num_steps: NumSteps = 50
    spacing: Spacing = Trailing()
    t_end: ShareBelowOne = field(default=0.0, kw_only=True)
    unit_variance: bool = field(default=False, kw_only=True)

    needs_signal: ClassVar[bool] = False
    """Whether the grid may not begin with pure noise, ``alpha = 0``."""

    @property
    def calls_network_once(self) -> bool:
        """Whether each step calls the network once, and with the latents that it begins with."""
        return True

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise ValueError(f"num_steps must be at least 1, but is {self.num_steps}")
        if not 0 <= self.t_end < 1:
            raise ValueError(f"t_end must lie in [0, 1), but is {self.t_end}")

    @abstractmethod
    def step(self, run: Run, xt: Latents, now: GridPoint, then: GridPoint) -> tuple[Latents, Latents]:
        """Take one step.

        Args:
            run: The model, fresh noise and earlier evaluations.
            xt: Noised latents at ``now``.
            now: Where the step begins; has noise.
            then: Where it ends; has signal, and in the last step is ``CLEAN`` unless the grid ends elsewhere.

        Returns:
            The latents at ``then``, and the denoised latents, to be looked at.
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
            ValueError: If this sampler, its spacing and the schedule don't go together: as ``grid`` does.
        """
        grid = self.grid(schedule)
        run = Run(schedule, denoise, draw_noise, grid, on_transition=on_transition)
        xt = self.first_latents(noise, grid)
        for number, (now, then) in enumerate(pairwise(grid), start=1):
            run.steps_left = self.num_steps - number
            xt, x0 = self.step(run, xt, now, then)
            if on_step is not None:
                on_step(number, x0)
        return xt

    def first_latents(self, noise: Latents, grid: Sequence[GridPoint]) -> Latents:
        """Return the latents at the first point of the grid."""
        first = grid[0]
        return (math.hypot(first.alpha, first.sigma) if self.unit_variance else first.sigma) * noise

    def grid(self, schedule: NoiseSchedule) -> list[GridPoint]:
        """Return ``num_steps`` points from most noise to least, then ``CLEAN``, or what there is at ``t_end``.

        Raises:
            ValueError: If the spacing can't be had with this schedule, or the sampler can't begin where it begins.
        """
        # In float64 near t = 0, fp32 would lose sigma to cancellation; on the CPU, since not every device has float64.
        times = self.spacing(schedule, self.num_steps)
        if self.t_end > 0:
            times = torch.cat([times, times.new_tensor([self.t_end])])
        alpha, sigma = schedule.alpha_sigma(times)
        grid = [*map(GridPoint, map(float, alpha), map(float, sigma), map(float, times))]
        grid += [CLEAN] if self.t_end == 0 else []
        if not all(now.noise_to_signal > then.noise_to_signal for now, then in pairwise(grid)):
            raise ValueError(
                f"spacing must give falling noise levels above 0, but {self.spacing} gives two alike, or none, in "
                f"{self.num_steps} steps of {schedule}: choose fewer steps or another spacing"
            )
        if self.needs_signal and grid[0].alpha == 0:
            raise ValueError(
                f"{type(self).__name__} can't begin with pure noise, where the diffusion's drift is infinite: choose "
                "sampler/spacing=log_snr with a sampler.spacing.sigma_max such as 80, or sampler=dpm_solver_pp_2m_sde"
            )
        return grid
