"""The solver against SciPy's RK45, which is the same pair with the same control of steps, and against formulas."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from vdm.diffusion.ode import DormandPrince, Slope, Step

STARTS = torch.tensor([[1.5, 1.0], [0.2, 0.4], [4.0, 3.0]], dtype=torch.float64)


def lotka_volterra(t: Tensor, y: Tensor) -> Tensor:
    """Prey and predators, with seasons."""
    prey, predators = y.unbind(1)
    season = 1 + 0.3 * torch.sin(t).to(y)
    return torch.stack([season * prey - prey * predators, prey * predators - predators], dim=1)


class Counted:
    """A right side that counts the evaluations asked for."""

    def __init__(self, slope: Slope) -> None:
        self.slope, self.count = slope, 0

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        self.count += 1
        return self.slope(t, y)


def of_scipy(y: Tensor, start: float, end: float, tolerance: float) -> tuple[Tensor, int]:
    def slope(t: float, y: np.ndarray) -> np.ndarray:
        return lotka_volterra(torch.tensor([t], dtype=torch.float64), torch.from_numpy(y)[None])[0].numpy()

    solution = solve_ivp(slope, (start, end), y.numpy(), "RK45", rtol=tolerance, atol=tolerance)
    return torch.from_numpy(solution.y[:, -1]), solution.nfev


@pytest.mark.parametrize("tolerance", [1e-2, 1e-5, 1e-9])
@pytest.mark.parametrize(("start", "end"), [(0.0, 7.0), (7.0, 0.5)])
def test_each_row_takes_the_steps_that_scipy_takes_for_it_alone(start: float, end: float, tolerance: float) -> None:
    solver = DormandPrince(tolerance, tolerance)
    together = solver(lotka_volterra, STARTS, start, end)

    for row in range(len(STARTS)):
        slope = Counted(lotka_volterra)
        alone = solver(slope, STARTS[row : row + 1], start, end)[0]
        peer, evaluations = of_scipy(STARTS[row], start, end, tolerance)
        torch.testing.assert_close(alone, peer, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(together[row], alone, rtol=1e-12, atol=1e-12)
        assert slope.count == evaluations


def test_a_batch_costs_no_more_evaluations_than_its_slowest_row() -> None:
    slope = Counted(lotka_volterra)
    DormandPrince()(slope, STARTS, 0.0, 7.0)

    assert slope.count == max(of_scipy(row, 0.0, 7.0, 1e-5)[1] for row in STARTS)


def test_error_follows_the_tolerance() -> None:
    def spiral(t: Tensor, y: Tensor) -> Tensor:
        return torch.stack([-y[:, 1], y[:, 0]], dim=1)

    start = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    exact = torch.tensor([[math.cos(5.0), math.sin(5.0)]], dtype=torch.float64)
    for tolerance in (1e-3, 1e-6, 1e-9):
        error = (DormandPrince(tolerance, tolerance)(spiral, start, 0.0, 5.0) - exact).abs().max()
        assert error < 10 * tolerance


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_state_keeps_its_shape_and_type(dtype: torch.dtype) -> None:
    y = torch.ones(2, 3, 1, 2, 2, dtype=dtype)
    result = DormandPrince()(lambda t, y: -y, y, 0.0, 1.0)

    torch.testing.assert_close(result, y * math.exp(-1), rtol=1e-4, atol=1e-4)


def test_steps_are_reported_as_they_are_taken() -> None:
    steps: list[Step] = []
    result = DormandPrince()(lotka_volterra, STARTS, 0.0, 7.0, steps.append)
    times = torch.stack([step.t for step in steps])

    assert (times.diff(dim=0) >= 0).all()
    assert (times.diff(dim=0) > 0).any(1).all()
    assert times[-1].tolist() == [7.0] * 3
    assert torch.equal(steps[-1].y, result)
    for step in (steps[0], steps[-1]):
        torch.testing.assert_close(step.slope, lotka_volterra(step.t, step.y))


def test_a_row_does_not_see_what_becomes_of_the_others() -> None:
    def one_of_them_stiff(t: Tensor, y: Tensor) -> Tensor:
        return -y * torch.tensor([[1.0], [500.0]], dtype=y.dtype)

    y = torch.ones(2, 1, dtype=torch.float64)
    alone = DormandPrince()(lambda t, y: -y, y[:1], 0.0, 1.0)

    torch.testing.assert_close(DormandPrince()(one_of_them_stiff, y, 0.0, 1.0)[:1], alone, rtol=1e-14, atol=0)


def test_too_few_steps_are_one_line() -> None:
    message = r"^max_steps=5: too few for rtol=1e-09 and atol=1e-09; raise one of the three$"
    with pytest.raises(ValueError, match=message):
        DormandPrince(1e-9, 1e-9, max_steps=5)(lotka_volterra, STARTS, 0.0, 7.0)


@pytest.mark.parametrize("start", [0.0, 0.5])
def test_what_no_step_is_short_enough_for_is_one_line(start: float) -> None:
    def breaks_down(t: Tensor, y: Tensor) -> Tensor:
        return torch.where((t >= 0.5).view(-1, 1), torch.nan, y)

    with pytest.raises(ValueError, match=r"^rtol=1e-05 and atol=1e-05 are out of reach: no step is short enough$"):
        DormandPrince()(breaks_down, STARTS, start, 1.0)


def test_mistaken_tolerances_are_named() -> None:
    with pytest.raises(ValueError, match=r"^rtol must be at least 0 and atol > 0, but are -1\.0 and 1e-05$"):
        DormandPrince(rtol=-1.0)
    with pytest.raises(ValueError, match=r"^rtol must be at least 0 and atol > 0, but are 1e-05 and 0\.0$"):
        DormandPrince(atol=0.0)
    with pytest.raises(ValueError, match=r"^max_steps must be at least 1, but is 0$"):
        DormandPrince(max_steps=0)
