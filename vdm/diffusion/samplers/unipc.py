"""The unified predictor-corrector."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from vdm.diffusion.samplers.base import Evaluation, GridPoint, GridSampler, NoiseLevel, SamplerState
from vdm.diffusion.shapes import Latents


@dataclass(frozen=True)
class UniPC(GridSampler):
    """Zhao et al. 2023, section 3, multistep, for data prediction (appendix).

    Predictor (UniP) and corrector (UniC) have the same form. Both advance ``xt`` with prediction ``x0`` from one noise
    level to another, where half the log-SNR is higher by ``h``:

        xt' = sigma'/sigma xt + alpha' (1 - e^(-h)) x0 - alpha' B(h) sum over m of a_m / r_m (x0_m - x0),

    with predictions ``x0_m`` at distances ``r_m h`` from the start, and ``a`` such that polynomials are integrated
    exactly. UniP of order p uses p - 1 predictions before the start. UniC also uses the prediction at the end of the
    step, which is computed for the next step anyway, and corrects the latents there. As in the authors' code and in
    diffusers, the order grows over the first steps and shrinks over the last ones.

    Args:
        num_steps: Number of network evaluations.
        spacing: Spacing of the grid's points.
        order: Order p of the predictor, 1 to 3; the corrector raises the order to p + 1. The authors recommend 2 with
            guidance, 3 without.
        variant: ``B(h)``: ``bh1`` is ``-h``, ``bh2`` is ``e^(-h) - 1``. The authors recommend ``bh1`` for fewer than 10
            steps without guidance, ``bh2`` otherwise.
        corrector: Whether to apply the corrector.
    """

    order: Literal[1, 2, 3] = 2
    variant: Literal["bh1", "bh2"] = "bh2"
    corrector: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.order <= 3:
            raise ValueError(f"order must lie in 1 to 3, but is {self.order}")
        if self.variant not in ("bh1", "bh2"):
            raise ValueError(f"variant must be bh1 or bh2, but is {self.variant!r}")
        if self.num_steps < self.order:
            raise ValueError(
                f"num_steps must be at least the order, {self.order}, but is {self.num_steps}: choose a lower order"
            )

    def step(self, state: SamplerState, xt: Latents, now: GridPoint, then: GridPoint) -> tuple[Latents, Latents]:
        """Take one step."""
        here = Evaluation(now, xt, state.denoise(xt, now))
        if self.corrector and state.past:
            order_before = min(len(state.past), state.steps_left + 2)
            *others, start = state.past[-order_before:]
            here = Evaluation(now, self._advanced(start, [*others, here], now), here.x0)
        order = min(self.order, len(state.past) + 1, state.steps_left + 1)
        xt = self._advanced(here, state.past[len(state.past) + 1 - order :], then)
        # A prediction for pure noise is infinitely far away in log-SNR and can't be used in later steps.
        if now.alpha > 0:
            state.past = [*state.past, here][-self.order :]
        return xt, here.x0

    def _advanced(self, start: Evaluation, others: Sequence[Evaluation], to: NoiseLevel) -> Latents:
        """Return the latents at ``to``."""
        decay = to.sigma / start.level.sigma
        xt = decay * start.xt + (to.alpha - decay * start.level.alpha) * start.x0
        if not others:
            return xt
        h = to.half_log_snr - start.level.half_log_snr
        b = -h if self.variant == "bh1" else math.expm1(-h)
        ratios = [(other.level.half_log_snr - start.level.half_log_snr) / h for other in others]
        for weight, ratio, other in zip(_weights(h, b, ratios), ratios, others, strict=True):
            xt = xt - to.alpha * b * weight / ratio * (other.x0 - start.x0)
        return xt


def _weights(h: float, b: float, ratios: Sequence[float]) -> list[float]:
    """Return ``a``, the solution of ``sum over m of r_m^(k - 1) a_m = k! (-h) phi_(k + 1)(-h) / B(h)`` for each k."""
    if len(ratios) == 1:
        return [0.5]  # accurate enough for any B(h), as the authors note
    z, size = -h, len(ratios)
    phi, right = math.expm1(z) / z, list[float]()
    for k in range(1, size + 1):
        phi = (phi - 1 / math.factorial(k)) / z
        right.append(math.factorial(k) * z * phi / b)
    powers = torch.tensor([[ratio**k for ratio in ratios] for k in range(size)], dtype=torch.float64, device="cpu")
    return list(map(float, powers.inverse() @ torch.tensor(right, dtype=torch.float64, device="cpu")))
