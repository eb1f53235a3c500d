"""Staggered sampling: each frame is denoised with a delay to the frame before."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from vdm.diffusion.denoiser import Denoise, Denoised
from vdm.diffusion.samplers.base import DrawNoise, GridPoint, GridSampler, OnStep, OnTransition, SamplerState
from vdm.diffusion.samplers.ddim import DDIM
from vdm.diffusion.schedules.base import NoiseSchedule
from vdm.diffusion.shapes import Latents, Level
from vdm.ranges import SizeOrZero

SomeFrames = Float[Tensor, "b c n h w"]


@dataclass(frozen=True)
class Staggered:
    """Applies another sampler to each latent frame, ``delay`` steps behind the frame before.

    The pyramid schedule of diffusion forcing (Chen et al. 2024, section 3.3 and appendix): early frames are nearly
    clean while late ones are still noise, so that later frames are conditioned on earlier ones. Requires a model
    trained with one noise level a frame, such as with ``IndependentFrames``. Each step calls the network once, for all
    frames.

    Args:
        sampler: Sampler of each frame. It must call the network once a step, which excludes ``Heun``, churn, and
            ``PredictorCorrector`` with corrections.
        delay: Number of steps between a frame and the one before. With 0, this is ``sampler`` itself. With
            ``sampler.num_steps`` or more, a frame starts when the one before is clean: autoregressive sampling.
    """

    sampler: GridSampler = DDIM()
    delay: SizeOrZero = 1

    def __post_init__(self) -> None:
        if self.delay < 0:
            raise ValueError(f"delay must be >= 0, but is {self.delay}")
        if not self.sampler.calls_network_once:
            raise ValueError(
                f"sampler must call the network once a step, before it adds noise, but is {self.sampler}: choose ddim, "
                "ddpm, euler without churn, dpm_solver_pp_2m or unipc"
            )

    @property
    def num_steps(self) -> int | None:
        """None if there is a delay, since the number of steps then depends on the number of frames."""
        return self.sampler.num_steps if self.delay == 0 else None

    def grid(self, schedule: NoiseSchedule) -> list[GridPoint]:
        """Return the grid of noise levels of each frame.

        Raises:
            ValueError: As ``grid`` of the sampler does.
        """
        return self.sampler.grid(schedule)

    def __call__(
        self,
        denoise: Denoise,
        noise: Latents,
        schedule: NoiseSchedule,
        draw_noise: DrawNoise,
        on_step: OnStep | None = None,
        on_transition: OnTransition | None = None,
    ) -> Latents:
        """Return clean latents; see ``Sampler``. If there is a delay, each transition is that of one frame.

        Raises:
            ValueError: If sampler, spacing and schedule are not compatible.
        """
        grid, num_frames = self.grid(schedule), noise.shape[2]
        groups = [slice(None)] if self.delay == 0 else [slice(frame, frame + 1) for frame in range(num_frames)]
        walks = [
            _Walk(
                self.sampler,
                SamplerState(schedule, denoise, _of_frames(draw_noise, frames), grid),
                frames,
                number * self.delay,
            )
            for number, frames in enumerate(groups)
        ]
        for walk in walks:
            walk.state.on_transition = on_transition
        xt = self.sampler.first_latents(noise, grid)
        for step in range(walks[-1].start + self.sampler.num_steps):
            denoised = denoise(xt, *_levels([walk.point(step) for walk in walks], xt))
            moved = [walk.step(step, xt, denoised) for walk in walks]
            xt = torch.cat([latents for latents, _ in moved], dim=2)
            if on_step is not None:
                on_step(step + 1, torch.cat([x0 for _, x0 in moved], dim=2))
        return xt


@dataclass
class _Walk:
    """The steps of a group of frames down the grid; the first of them is step ``start`` of the clip."""

    sampler: GridSampler
    state: SamplerState
    frames: slice
    start: int

    def point(self, step: int) -> GridPoint:
        """Return the grid point before a step: the first point until ``start``, the last after the end."""
        return self.state.grid[min(max(step - self.start, 0), self.sampler.num_steps)]

    def step(self, step: int, xt: Latents, denoised: Denoised) -> tuple[SomeFrames, SomeFrames]:
        """Return the frames after a step, and denoised, given the model's prediction for all frames."""
        latents, x0, share = xt[:, :, self.frames], denoised.x0[:, :, self.frames], denoised.variance_share
        number = step - self.start
        if number < 0:
            return latents, x0
        if number >= self.sampler.num_steps:
            return latents, latents
        answers = [Denoised(x0, None if share is None else share[:, :, self.frames])]

        def answer(xt: Latents, alpha: Level, sigma: Level) -> Denoised:
            if not answers:
                raise ValueError(f"{self.sampler} calls the network twice a step: its calls_network_once must be False")
            return answers.pop()

        self.state.denoise_at_level = answer
        self.state.steps_left = self.sampler.num_steps - number - 1
        return self.sampler.step(self.state, latents, *self.state.grid[number : number + 2])


def _of_frames(draw_noise: DrawNoise, frames: slice) -> DrawNoise:
    return lambda number: draw_noise(number)[:, :, frames]


def _levels(points: list[GridPoint], xt: Latents) -> tuple[Level, Level]:
    """Return alpha and sigma: one a clip if all frames are in one group, otherwise one a frame."""
    alpha, sigma = (xt.new_tensor(values) for values in zip(*((p.alpha, p.sigma) for p in points), strict=True))
    if len(points) == 1:
        return alpha.expand(len(xt)), sigma.expand(len(xt))
    return alpha.expand(len(xt), -1), sigma.expand(len(xt), -1)
