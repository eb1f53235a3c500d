"""An adaptive solver of ordinary differential equations, with separate step sizes for each row of a batch."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vdm.ranges import NotNegative, NumSteps, Positive

Time = Float[Tensor, " b"]
"""Time of each row: float64 on the CPU, whatever the state's data type and device."""
State = Float[Tensor, "b *shape"]
Slope = Callable[[Time, State], State]
"""Right-hand side of the ODE: ``dy/dt`` of each row at its time."""


class Step(NamedTuple):
    """State of each row after a step; unchanged for rows whose step was rejected or that have reached the end."""

    t: Time
    y: State
    slope: State
    """Right-hand side at ``t`` and ``y``."""
    length: Time
    """Length of the next step to try; at least 0."""
    failed: Bool[Tensor, " b"]
    """Whether the last step was rejected since its error was too large."""


# Dormand & Prince 1980, table 2 (RK5(4)7M). The last stage is evaluated at the end of the step, and reused as the first
# stage of the next step.
_NODES = (0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1, 1)
_STAGES = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_ERROR = (71 / 57600, 0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
"""Weights of the solution of order 5 minus those of the solution of order 4."""
_ORDER = 5
"""The error estimate of a step grows with this power of its length."""

_SAFETY, _MIN_FACTOR, _MAX_FACTOR = 0.9, 0.2, 10.0


@dataclass(frozen=True)
class DormandPrince:
    """The Runge-Kutta pair of orders 5 and 4 of Dormand & Prince 1980, with adaptive step sizes.

    A step is accepted if the root mean square of ``error / (atol + rtol |y|)`` over a row is below 1. Step size control
    and the first step size are those of Hairer, Norsett & Wanner 1993, section II.4. Each row has its own time and
    steps, so that its result does not depend on the other rows.

    Args:
        rtol: Relative tolerance of a step.
        atol: Absolute tolerance of a step.
        max_steps: Largest number of steps, including rejected ones; each takes 6 evaluations of the right-hand side.
    """

    rtol: NotNegative = 1e-5
    atol: Positive = 1e-5
    max_steps: NumSteps = 1000

    def __post_init__(self) -> None:
        if self.rtol < 0 or self.atol <= 0:
            raise ValueError(f"rtol must be at least 0 and atol > 0, but are {self.rtol} and {self.atol}")
        if self.max_steps < 1:
            raise ValueError(f"max_steps must be at least 1, but is {self.max_steps}")

    def __call__(
        self, slope: Slope, y: State, start: float, end: float, on_step: Callable[[Step], object] | None = None
    ) -> State:
        """Solve the ODE from ``start`` to ``end``, and return the state there.

        Args:
            slope: The right-hand side ``dy/dt``.
            y: The state at ``start``.
            start: Initial time.
            end: Final time, before or after ``start``.
            on_step: Called after each step that was accepted for at least one row.

        Raises:
            ValueError: If the tolerance can't be reached at all, or not within ``max_steps``.
        """
        now = self._start(slope, y, start, end)
        for _ in range(self.max_steps):
            before, now = now, self._advance(slope, now, end)
            if on_step is not None and bool((now.t != before.t).any()):
                on_step(now)
            if bool((now.t == end).all()):
                return now.y
        raise ValueError(
            f"max_steps={self.max_steps}: too few for rtol={self.rtol} and atol={self.atol}; raise one of the three"
        )

    def _start(self, slope: Slope, y: State, start: float, end: float) -> Step:
        """Choose the length of each row's first step by the error of Euler's method."""
        t = torch.full((len(y),), start, dtype=torch.float64)
        here = slope(t, y)
        size, speed = self._norm(y, y.abs()), self._norm(here, y.abs())
        probe = torch.where((size < 1e-5) | (speed < 1e-5), 1e-6, 0.01 * size / speed).clamp(max=abs(end - start))
        offset = math.copysign(1, end - start) * probe
        there = slope(t + offset, y + _per_row(offset, y) * here)
        bend = self._norm(there - here, y.abs()) / probe
        fastest = torch.maximum(speed, bend)
        length = torch.where(fastest <= 1e-15, (probe * 1e-3).clamp(min=1e-6), (0.01 / fastest) ** (1 / _ORDER))
        return Step(t, y, here, length.minimum(100 * probe), torch.zeros_like(t, dtype=torch.bool))

    def _advance(self, slope: Slope, now: Step, end: float) -> Step:
        """Try a step with each row."""
        ahead = end - now.t
        then_t = torch.where(now.length < ahead.abs(), now.t + torch.copysign(now.length, ahead), end)
        if bool(((then_t == now.t) & (ahead != 0)).any()):
            raise ValueError(f"rtol={self.rtol} and atol={self.atol} are out of reach: no step is short enough")
        y, slope_there, error = _try_step(slope, now, then_t)
        norm = self._norm(error, torch.maximum(now.y.abs(), y.abs())).nan_to_num(nan=math.inf)
        failed = norm >= 1
        # The step length does not grow directly after a rejected step.
        factor = (_SAFETY * norm ** (-1 / _ORDER)).clamp(min=_MIN_FACTOR)
        factor = factor.minimum(torch.where(now.failed, 1.0, _MAX_FACTOR))
        stays = _per_row(failed, y).bool()
        return Step(
            t=torch.where(failed, now.t, then_t),
            y=torch.where(stays, now.y, y),
            slope=torch.where(stays, now.slope, slope_there),
            length=factor * (then_t - now.t).abs(),
            failed=failed,
        )

    def _norm(self, difference: State, size: State) -> Time:
        """Return the root mean square of each row's difference, relative to the tolerance for states of this size."""
        scaled = difference / (self.atol + self.rtol * size)
        return scaled.flatten(1).square().mean(1).sqrt().cpu().double()


def _try_step(slope: Slope, now: Step, then_t: Time) -> tuple[State, State, State]:
    """Return state and slope after a step to ``then_t``, and the estimated error of the state."""
    step = then_t - now.t
    h = _per_row(step, now.y)
    slopes, y = [now.slope], now.y
    for node, weights in zip(_NODES[1:], _STAGES[1:], strict=True):
        y = now.y + h * _combined(weights, slopes)
        slopes.append(slope(then_t if node == 1 else now.t + node * step, y))
    return y, slopes[-1], h * _combined(_ERROR, slopes)


def _combined(weights: tuple[float, ...], slopes: list[State]) -> State:
    total = torch.zeros_like(slopes[0])
    for weight, slope in zip(weights, slopes, strict=True):
        total = total.add_(slope, alpha=weight)
    return total


def _per_row(values: Time | Bool[Tensor, " b"], like: State) -> Float[Tensor, "b ..."]:
    """Reshape one number a row so that it broadcasts over a state."""
    return values.to(like).view(-1, *[1] * (like.dim() - 1))
