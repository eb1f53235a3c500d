"""DPM-Solver++, multistep, of second order, for the ODE and for the SDE."""

from dataclasses import dataclass

from vdm.diffusion.samplers.base import Evaluation, GridPoint, GridSampler, Run
from vdm.diffusion.shapes import Latents
from vdm.ranges import NotNegative


@dataclass(frozen=True)
class DPMSolverPP2M(GridSampler):
    """Lu et al. 2022b, algorithm 2 (ODE) and SDE-DPM-Solver++(2M) (SDE), between which ``eta`` interpolates.

    With ``h`` the growth of half the log-SNR, ``xt' = sigma'/sigma e^(-eta h) xt + alpha' (1 - e^(-(1 + eta) h)) D +
    sigma' sqrt(1 - e^(-2 eta h)) noise``, where ``D`` is ``x0`` extrapolated to the middle of the step from this
    evaluation and the one before. The first step and the last, whose ``h`` is infinite, do without.

    Args:
        num_steps: Number of calls of the network.
        spacing: Where the grid's points lie.
        eta: Noise of the SDE that is solved, against that of the reverse diffusion: 0 is the ODE, 1 that SDE.
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

    def step(self, run: Run, xt: Latents, now: GridPoint, then: GridPoint) -> tuple[Latents, Latents]:
        """Take one step."""
        x0 = run.denoise(xt, now)
        extrapolated = x0
        if run.past and then.sigma > 0:
            before = run.past[-1]
            # 1 / (2 r); with no signal before, where log-SNR is infinitely far, it is 0.
            half_step = (then.half_log_snr - now.half_log_snr) / (now.half_log_snr - before.level.half_log_snr) / 2
            extrapolated = x0 + half_step * (x0 - before.x0)
        run.past = [Evaluation(now, xt, x0)]
        shrink = then.noise_to_signal / now.noise_to_signal  # exp(-h)
        kept = then.sigma / now.sigma * shrink**self.eta
        mean = kept * xt + then.alpha * (1 - shrink ** (1 + self.eta)) * extrapolated
        variance = then.sigma**2 * (1 - shrink ** (2 * self.eta))
        return run.drawn(mean, variance**0.5, now, then), x0
