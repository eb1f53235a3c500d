"""The second-order multistep DPM-Solver++, for the ODE and for the SDE."""

from dataclasses import dataclass

from vdm.diffusion.samplers.base import Evaluation, GridPoint, GridSampler, SamplerState
from vdm.diffusion.shapes import Latents
from vdm.ranges import NotNegative


@dataclass(frozen=True)
class DPMSolverPP2M(GridSampler):
    """Lu et al. 2022b, algorithm 2 (ODE) and SDE-DPM-Solver++(2M) (SDE), between which ``eta`` interpolates.

    With ``h`` the increase of half the log-SNR, ``xt' = sigma'/sigma e^(-eta h) xt + alpha' (1 - e^(-(1 + eta) h)) D +
    sigma' sqrt(1 - e^(-2 eta h)) noise``. ``D`` extrapolates ``x0`` to the middle of the step, from this prediction and
    the one before. In the first step, and in the last, whose ``h`` is infinite, ``D`` is ``x0``.

    Args:
        num_steps: Number of network evaluations.
        spacing: Spacing of the grid's points.
        eta: Noise of the SDE relative to that of the reverse diffusion: 0 is the ODE, 1 the reverse diffusion.
    """

    eta: NotNegative = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_steps < 2:
            raise ValueError(
                f"num_steps must be at least 2 for a solver of second order, but is {self.num_steps}: choose ddim for 1"
            )
        if self.eta < 0:
            raise ValueError(f"eta must be >= 0, but is {self.eta}")

    def step(self, state: SamplerState, xt: Latents, now: GridPoint, then: GridPoint) -> tuple[Latents, Latents]:
        """Take one step."""
        x0 = state.denoise(xt, now)
        extrapolated = x0
        if state.past and then.sigma > 0:
            before = state.past[-1]
            # 1 / (2 r); it is 0 if the step before started from pure noise, where log-SNR is minus infinity.
            half_step = (then.half_log_snr - now.half_log_snr) / (now.half_log_snr - before.level.half_log_snr) / 2
            extrapolated = x0 + half_step * (x0 - before.x0)
        state.past = [Evaluation(now, xt, x0)]
        shrink = then.noise_to_signal / now.noise_to_signal  # exp(-h)
        kept = then.sigma / now.sigma * shrink**self.eta
        mean = kept * xt + then.alpha * (1 - shrink ** (1 + self.eta)) * extrapolated
        variance = then.sigma**2 * (1 - shrink ** (2 * self.eta))
        return state.drawn(mean, variance**0.5, now, then), x0
