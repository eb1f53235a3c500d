import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats

from vdm.diffusion.noise_levels import (
    Bell,
    CosineMap,
    DiscreteUniform,
    LogitNormal,
    LogNormal,
    Mode,
    NoiseLevels,
    Uniform,
)
from vdm.diffusion.schedules.base import NoiseSchedule
from vdm.diffusion.schedules.cosine import Cosine
from vdm.diffusion.schedules.rectified_flow import RectifiedFlow
from vdm.diffusion.schedules.shifted import Shifted
from vdm.diffusion.schedules.variance_exploding import VarianceExploding

BOTH = [Uniform(low_discrepancy=False), Uniform(low_discrepancy=True)]
EVERY_KIND: list[NoiseLevels] = [
    *BOTH,
    Uniform(t_min=1e-5),
    DiscreteUniform(),
    LogNormal(),
    LogitNormal(),
    LogitNormal(False, 0.5, 0.6),
    Mode(),
    Mode(scale=-1.0),
    Bell(),
    CosineMap(),
]


@pytest.mark.parametrize("noise_levels", EVERY_KIND, ids=str)
def test_time_of_a_position_is_the_same_however_the_step_is_split_over_processes(noise_levels: NoiseLevels) -> None:
    positions = torch.arange(36, 48)  # the fourth step of 12 samples
    whole = noise_levels(0, positions, 12, Cosine())

    for num_ranks in (2, 3, 4, 5):
        for rank in range(num_ranks):
            assert torch.equal(noise_levels(0, positions[rank::num_ranks], 12, Cosine()), whole[rank::num_ranks])


@pytest.mark.parametrize("noise_levels", BOTH, ids=str)
def test_each_slot_of_a_step_has_uniform_times(noise_levels: NoiseLevels) -> None:
    for slot in (0, 3):
        times = noise_levels(0, torch.arange(1000) * 4 + slot, 4, Cosine()).sort().values

        assert times.min() >= 0
        assert times.max() < 1
        # Kolmogorov-Smirnov: the distance exceeds 1.95 / sqrt(n) once in a thousand times.
        assert (times - (torch.arange(1000) + 0.5) / 1000).abs().max() < 1.95 / math.sqrt(1000)


@pytest.mark.parametrize("batch_size", [1, 2, 7, 64])
def test_low_discrepancy_times_of_a_step_are_evenly_spaced(batch_size: int) -> None:
    times = Uniform()(0, torch.arange(5 * batch_size, 6 * batch_size), batch_size, Cosine()).sort().values
    around = torch.cat([times, times[:1] + 1])

    torch.testing.assert_close(around.diff(), torch.full((batch_size,), 1 / batch_size), rtol=0, atol=1e-6)


@pytest.mark.parametrize("noise_levels", EVERY_KIND, ids=str)
def test_seed_and_step_change_the_times(noise_levels: NoiseLevels) -> None:
    positions = torch.arange(4)
    times = [noise_levels(seed, at, 4, Cosine()) for seed, at in ((0, positions), (1, positions), (0, positions + 4))]

    assert len({time.sum().item() for time in times}) == 3


def test_low_discrepancy_is_exact_at_positions_beyond_the_precision_of_fp32() -> None:
    positions = 10**12 + torch.arange(8)

    assert len(set(Uniform()(0, positions, 8, Cosine()).tolist())) == 8


def _cosine_map_distribution(t: np.ndarray) -> np.ndarray:
    return 2 / np.pi * np.arctan(t / (1 - t))  # the integral of 2 / (pi - 2 pi t + 2 pi t^2), eq. 22


def _mode_distribution(t: np.ndarray) -> np.ndarray:
    u = np.linspace(0, 1, 100001)  # f falls: the share of f(u) below t is that of u above its inverse
    return 1 - np.interp(t, (1 - u - 1.29 * (np.cos(np.pi / 2 * u) ** 2 - 1 + u))[::-1], u[::-1])


DISTRIBUTIONS: list[tuple[NoiseLevels, Callable[[np.ndarray], np.ndarray]]] = [
    (Uniform(False, t_min=0.25), stats.uniform(0.25, 0.75).cdf),
    (LogitNormal(False), lambda t: stats.norm.cdf(np.log(t / (1 - t)))),
    (LogitNormal(False, 0.5, 0.6), lambda t: stats.norm(0.5, 0.6).cdf(np.log(t / (1 - t)))),
    (Mode(False, 1.29), _mode_distribution),
    (Bell(False), stats.beta(2, 2).cdf),
    (CosineMap(False), _cosine_map_distribution),
]


@pytest.mark.parametrize("low_discrepancy", [False, True])
@pytest.mark.parametrize(("noise_levels", "distribution"), DISTRIBUTIONS, ids=[str(row[0]) for row in DISTRIBUTIONS])
def test_times_are_distributed_as_the_formula_says(
    noise_levels: NoiseLevels, distribution: Callable[[np.ndarray], np.ndarray], low_discrepancy: bool
) -> None:
    """By Kolmogorov and Smirnov's test, which errs once in a thousand times; of one slot, where slots are spread."""
    values = {**vars(noise_levels), "low_discrepancy": low_discrepancy}
    times = type(noise_levels)(**values)(0, torch.arange(2000) * 4 + 1, 4, RectifiedFlow())

    assert stats.kstest(times.double().numpy(), distribution).pvalue > 1e-3


SCHEDULES = [VarianceExploding(), VarianceExploding(0.1, 1.0), Shifted(Cosine(), -1.0), RectifiedFlow()]


@pytest.mark.parametrize("low_discrepancy", [False, True])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_log_normal_noise_levels_are_so_whatever_the_schedule(schedule: NoiseSchedule, low_discrepancy: bool) -> None:
    """Karras et al. 2022, table 1: log sigma is N(-1.2, 1.2^2), also beyond the ends of a schedule that goes on."""
    noise_levels = LogNormal(low_discrepancy, -1.2, 1.2)
    alpha, sigma = schedule.alpha_sigma(noise_levels(0, torch.arange(2000) * 4 + 1, 4, schedule))

    assert stats.kstest((sigma / alpha).log().double().numpy(), stats.norm(-1.2, 1.2).cdf).pvalue > 1e-3


def test_log_normal_noise_levels_beyond_a_schedule_are_taken_to_its_end() -> None:
    times = LogNormal(p_mean=50.0, p_std=1.0)(0, torch.arange(8), 8, Cosine())

    assert torch.equal(times, torch.ones(8))


def test_cosine_map_gives_straight_paths_the_noise_levels_of_the_cosine_schedule() -> None:
    """Esser et al. 2024: f is made so that log-SNR matches 2 log(cos(pi u / 2) / sin(pi u / 2))."""
    u = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
    matched = RectifiedFlow().log_snr(CosineMap().quantile(u, RectifiedFlow()))

    torch.testing.assert_close(matched, 2 * torch.log(torch.cos(torch.pi / 2 * u) / torch.sin(torch.pi / 2 * u)))
    torch.testing.assert_close(
        CosineMap().quantile(u, Cosine()), 1 - 1 / (torch.tan(torch.pi / 2 * u) + 1), rtol=0, atol=1e-12
    )


def test_each_timestep_is_drawn_once_in_a_step_of_as_many_samples() -> None:
    times = DiscreteUniform(num_timesteps=50)(3, torch.arange(100, 150), 50, Cosine())

    torch.testing.assert_close(times.sort().values, torch.arange(1, 51) / 50)


def test_all_timesteps_are_equally_likely() -> None:
    times = DiscreteUniform(False, num_timesteps=10)(0, torch.arange(5000), 4, Cosine())
    timesteps = (times * 10).round().long()

    assert timesteps.min() == 1
    assert timesteps.max() == 10
    assert stats.chisquare(torch.bincount(timesteps)[1:].numpy()).pvalue > 1e-3


@pytest.mark.parametrize("noise_levels", EVERY_KIND, ids=str)
@pytest.mark.parametrize("schedule", [Cosine(), VarianceExploding(), RectifiedFlow()], ids=str)
def test_quantiles_grow_and_are_finite_from_the_least_draw_to_the_largest(
    noise_levels: NoiseLevels, schedule: NoiseSchedule
) -> None:
    u = torch.cat([torch.tensor([0.0, 2.0**-24]), torch.linspace(0.001, 0.999, 999), torch.tensor([1 - 2.0**-24])])
    times = noise_levels.quantile(u, schedule)

    assert times.isfinite().all()
    assert (times.diff() >= 0).all()
    if not isinstance(noise_levels, LogNormal):
        assert times.min() >= 0
        assert times.max() <= 1


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (Uniform, {"t_min": 1.0}, r"t_min must lie in \[0, 1\), but is 1.0"),
        (DiscreteUniform, {"num_timesteps": 0}, "num_timesteps must be at least 1, but is 0"),
        (LogNormal, {"p_std": 0.0}, "p_std must be > 0, but is 0.0"),
        (LogitNormal, {"std": -1.0}, "std must be > 0, but is -1.0"),
        (Mode, {"scale": 2.0}, r"scale must lie in \[-1, 1.7519\], but is 2.0"),
        (Mode, {"scale": -1.1}, r"scale must lie in \[-1, 1.7519\], but is -1.1"),
    ],
)
def test_impossible_distributions_are_refused(kind: type[NoiseLevels], values: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=rf"^{message}$"):
        kind(**values)


def test_frames_of_low_discrepancy_differ_by_other_times_in_each_clip_of_a_step() -> None:
    positions, levels = torch.arange(128), Uniform()
    first, second = (levels(0, positions, 64, Cosine(), f"noise level of frame {frame}") for frame in (0, 1))
    for step in (slice(0, 64), slice(64, 128)):
        for frame in (first[step], second[step]):
            gaps = frame.sort().values.diff()
            torch.testing.assert_close(gaps, torch.full_like(gaps, 1 / 64), rtol=0, atol=1e-6)
        apart = torch.frac(first[step] - second[step] + 1).sort().values
        assert (apart.diff() > 1e-4).sum() > 20
        assert torch.stack([first[step], second[step]]).corrcoef()[0, 1].abs() < 0.5
    assert torch.equal(levels(0, positions[5:6], 64, Cosine(), "noise level of frame 1"), second[5:6])
