"""Continuous schedules made to end in pure noise."""

import pytest
import torch

from tests.diffusion.schedules.every_schedule import TIMES, VARIANCE_PRESERVING
from vdm.diffusion.schedules.base import NoiseSchedule
from vdm.diffusion.schedules.cosine import Cosine
from vdm.diffusion.schedules.discrete import LinearBetas
from vdm.diffusion.schedules.rectified_flow import RectifiedFlow
from vdm.diffusion.schedules.sub_variance_preserving import SubVariancePreserving
from vdm.diffusion.schedules.variance_exploding import VarianceExploding
from vdm.diffusion.schedules.zero_terminal_snr import ZeroTerminalSNR


@pytest.mark.parametrize("schedule", VARIANCE_PRESERVING, ids=str)
def test_alpha_is_shifted_and_scaled_to_0_at_the_end_and_stays_at_the_start(schedule: NoiseSchedule) -> None:
    """Lin et al. 2023, algorithm 1."""
    before, _ = schedule.alpha_sigma(TIMES)
    alpha, sigma = ZeroTerminalSNR(schedule).alpha_sigma(TIMES)

    expected = (before - before[-1]) * before[0] / (before[0] - before[-1])
    torch.testing.assert_close(alpha, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(sigma**2, 1 - expected**2, rtol=0, atol=1e-12)
    assert (alpha[-1], sigma[-1]) == (0, 1)


def test_a_fine_table_with_the_table_s_own_rescaling_has_the_same_limit() -> None:
    """The table keeps its first timestep, the wrapper t = 0: as the steps grow finer, that is the same."""
    errors = []
    for num_timesteps in (1000, 10000):
        ends = {"beta_start": 0.1 / num_timesteps, "beta_end": 20.0 / num_timesteps}
        tables = [LinearBetas(num_timesteps, zero, **ends) for zero in (True, False)]
        alphas = [schedule.alpha_sigma(TIMES)[0] for schedule in (tables[0], ZeroTerminalSNR(tables[1]))]
        errors.append((alphas[0] - alphas[1]).abs().max().item())

    assert errors[0] < 1e-4
    assert errors[1] == pytest.approx(errors[0] / 10, rel=0.1)


def test_pure_noise_at_the_end_is_exact_in_fp32() -> None:
    for schedule in (Cosine(-5.0, 8.0), *VARIANCE_PRESERVING):
        alpha, sigma = ZeroTerminalSNR(schedule).alpha_sigma(torch.ones(3))

        assert (alpha == 0).all()
        assert (sigma == 1).all()


@pytest.mark.parametrize("schedule", [RectifiedFlow(), SubVariancePreserving(), VarianceExploding()], ids=str)
def test_a_schedule_that_does_not_preserve_variance_is_refused(schedule: NoiseSchedule) -> None:
    with pytest.raises(ValueError, match=r"^schedule must preserve variance, as Cosine.* do, but is \w+\(.*\)$"):
        ZeroTerminalSNR(schedule)
