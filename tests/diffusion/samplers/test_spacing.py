"""Grids against their papers' formulas and against diffusers' timesteps and noise levels."""

import re
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, EDMEulerScheduler, FlowMatchEulerDiscreteScheduler

from vdm.diffusion.samplers.ddim import DDIM
from vdm.diffusion.samplers.spacing import Karras, Leading, Linspace, Spacing, Trailing, UniformLogSNR
from vdm.diffusion.schedules.base import NoiseSchedule
from vdm.diffusion.schedules.cosine import Cosine
from vdm.diffusion.schedules.discrete import LinearBetas, ScaledLinearBetas
from vdm.diffusion.schedules.rectified_flow import RectifiedFlow
from vdm.diffusion.schedules.sub_variance_preserving import SubVariancePreserving
from vdm.diffusion.schedules.variance_exploding import VarianceExploding
from vdm.diffusion.schedules.variance_preserving import VariancePreserving
from vdm.diffusion.schedules.zero_terminal_snr import ZeroTerminalSNR
from vdm.diffusion.shapes import Level

SCHEDULES = [
    Cosine(),
    VariancePreserving(),
    SubVariancePreserving(),
    VarianceExploding(),
    RectifiedFlow(),
    LinearBetas(),
    ZeroTerminalSNR(Cosine()),
]


def _ratios(spacing: Spacing, schedule: NoiseSchedule, num_steps: int) -> list[float]:
    return [point.noise_to_signal for point in DDIM(num_steps, spacing).grid(schedule)]


@pytest.mark.parametrize("num_steps", [2, 10, 50, 200])
@pytest.mark.parametrize(
    ("spacing", "name", "offset"),
    [
        (Trailing(), "trailing", 0),
        (Linspace(), "linspace", 0),
        (Leading(), "leading", 0),
        (Leading(0.002), "leading", 1),
    ],
    ids=str,
)
def test_spacings_in_time_are_those_of_diffusers(spacing: Spacing, name: str, offset: int, num_steps: int) -> None:
    """t = (timestep + 1) / 1000; diffusers rounds to whole timesteps."""
    scheduler = DDIMScheduler(1000, timestep_spacing=name, steps_offset=offset)
    scheduler.set_timesteps(num_steps)
    timesteps = spacing(LinearBetas(), num_steps) * 1000 - 1

    assert np.round(timesteps.numpy(), 6).round().tolist() == scheduler.timesteps.tolist()


@pytest.mark.parametrize("num_steps", [2, 7, 40])
@pytest.mark.parametrize(("spacing", "kind"), [(Karras(), "karras"), (UniformLogSNR(), "exponential")], ids=str)
def test_spacings_in_noise_are_those_of_diffusers(spacing: Spacing, kind: str, num_steps: int) -> None:
    scheduler = EDMEulerScheduler(0.002, 80.0, sigma_schedule=kind)
    scheduler.set_timesteps(num_steps)

    assert _ratios(spacing, VarianceExploding(0.002, 80.0), num_steps) == pytest.approx(
        scheduler.sigmas.tolist(), rel=1e-5
    )


@pytest.mark.parametrize("num_steps", [2, 7, 40])
def test_linspace_on_rectified_flows_is_that_of_diffusers(num_steps: int) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(num_steps)

    assert Linspace()(RectifiedFlow(), num_steps).tolist() == pytest.approx(scheduler.sigmas[:-1].tolist(), rel=1e-5)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
@pytest.mark.parametrize("rho", [1.0, 7.0])
def test_karras_spacing_has_its_noise_levels_in_every_schedule(schedule: NoiseSchedule, rho: float) -> None:
    """Karras et al. 2022, eq. 5."""
    expected = [(50 ** (1 / rho) + i / 8 * (0.02 ** (1 / rho) - 50 ** (1 / rho))) ** rho for i in range(9)]

    assert _ratios(Karras(0.02, 50.0, rho), schedule, 9) == pytest.approx([*expected, 0.0], rel=1e-9)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_uniform_log_snr_has_equal_steps_in_every_schedule(schedule: NoiseSchedule) -> None:
    grid = DDIM(9, UniformLogSNR(0.02, 50.0)).grid(schedule)
    steps = np.diff([point.half_log_snr for point in grid[:-1]])

    assert steps == pytest.approx([np.log(50 / 0.02) / 8] * 8, rel=1e-9)
    assert grid[0].noise_to_signal == pytest.approx(50, rel=1e-9)


@pytest.mark.parametrize("spacing", [Karras(), UniformLogSNR()], ids=str)
def test_noise_levels_end_where_the_schedule_does(spacing: Spacing) -> None:
    """Where there is no noise at t = 0, at the first of a thousand timesteps."""
    exploding = _ratios(spacing, VarianceExploding(0.01, 50.0), 5)
    betas = _ratios(spacing, ScaledLinearBetas(), 5)

    assert [exploding[0], exploding[-2]] == pytest.approx([50, 0.01])
    # Rombach et al. 2022: the noise levels of Stable Diffusion go from 14.61 to 0.0292.
    assert [betas[0], betas[-2]] == pytest.approx([14.6146, 0.0292], rel=2e-3)


@pytest.mark.parametrize("spacing", [Trailing(), Leading(), Linspace(), UniformLogSNR(), Karras()], ids=str)
@pytest.mark.parametrize("schedule", SCHEDULES[:4], ids=str)
@pytest.mark.parametrize("num_steps", [1, 2, 30])
def test_grids_fall_from_noise_to_clean_latents(spacing: Spacing, schedule: NoiseSchedule, num_steps: int) -> None:
    ratios = _ratios(spacing, schedule, num_steps)

    assert len(ratios) == num_steps + 1
    assert all(first > second for first, second in pairwise(ratios))
    assert ratios[-1] == 0


@pytest.mark.parametrize("schedule", [RectifiedFlow(), LinearBetas(zero_terminal_snr=True)], ids=str)
@pytest.mark.parametrize("spacing", [Karras(), UniformLogSNR()], ids=str)
def test_pure_noise_is_refused_where_noise_levels_are_spaced(spacing: Spacing, schedule: NoiseSchedule) -> None:
    with pytest.raises(ValueError, match=r"^sigma_max must be given, .* choose sampler.spacing.sigma_max=80 or so"):
        spacing(schedule, 10)

    assert len(type(spacing)(sigma_max=80.0)(schedule, 10)) == 10
    assert Trailing()(schedule, 10)[0] == 1


@pytest.mark.parametrize("spacing", [Karras, UniformLogSNR])
def test_noise_levels_outside_the_schedule_are_refused(spacing: Callable[..., Spacing]) -> None:
    with pytest.raises(ValueError, match=r"^sigma_max must lie in the schedule's 0 to 14\.61\d*, but is 80\.0$"):
        spacing(sigma_max=80.0)(ScaledLinearBetas(), 10)
    with pytest.raises(
        ValueError, match=r"^sigma_min must lie in the schedule's 0\.1353\d* to 7\.389\d*, but is 0\.01$"
    ):
        spacing(sigma_min=0.01)(Cosine(-4.0, 4.0), 10)
    with pytest.raises(ValueError, match=r"^sigma_min must lie below sigma_max, but is 20 against 14\.61\d*$"):
        spacing(sigma_min=20.0)(ScaledLinearBetas(), 10)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Karras(rho=0.0), "rho must be > 0, but is 0.0"),
        (lambda: Karras(sigma_min=0.0), "sigma_min must be > 0 and finite, but is 0.0"),
        (lambda: UniformLogSNR(sigma_max=float("inf")), "sigma_max must be > 0 and finite, but is inf"),
        (lambda: UniformLogSNR(2.0, 1.0), "sigma_min must lie below sigma_max, but is 2 against 1"),
        (lambda: Linspace(0.0), "t_min must lie between 0 and 1, since there may be no noise at 0, but is 0.0"),
        (lambda: Leading(1.0), "t_min must lie between 0 and 1, since there may be no noise at 0, but is 1.0"),
        (lambda: Leading(0.1)(Cosine(), 20), "t_min must be at most 1 / num_steps = 0.05, but is 0.1"),
    ],
)
def test_values_out_of_range_are_refused_in_a_line(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(message) + "$"):
        make()


class Standing:
    """A spacing of one's own that stays where it is."""

    def __call__(self, schedule: NoiseSchedule, num_steps: int) -> Level:
        return torch.full((num_steps,), 0.5, dtype=torch.float64)


def test_spacings_that_do_not_fall_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^spacing must give decreasing noise levels above 0, but .*Standing"):
        DDIM(3, Standing()).grid(Cosine())
