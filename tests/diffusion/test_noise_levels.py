import math

import pytest
import torch

from vdm.diffusion.noise_levels import LowDiscrepancy, NoiseLevels, Uniform

BOTH = [Uniform(), LowDiscrepancy()]


@pytest.mark.parametrize("noise_levels", BOTH, ids=str)
def test_time_of_a_position_is_the_same_however_the_step_is_split_over_processes(noise_levels: NoiseLevels) -> None:
    positions = torch.arange(36, 48)  # the fourth step of 12 samples
    whole = noise_levels(0, positions, 12)

    for num_ranks in (2, 3, 4, 5):
        for rank in range(num_ranks):
            assert torch.equal(noise_levels(0, positions[rank::num_ranks], 12), whole[rank::num_ranks])


@pytest.mark.parametrize("noise_levels", BOTH, ids=str)
def test_each_slot_of_a_step_has_uniform_times(noise_levels: NoiseLevels) -> None:
    for slot in (0, 3):
        times = noise_levels(0, torch.arange(1000) * 4 + slot, 4).sort().values

        assert times.min() >= 0
        assert times.max() < 1
        # Kolmogorov-Smirnov: the distance exceeds 1.95 / sqrt(n) once in a thousand times.
        assert (times - (torch.arange(1000) + 0.5) / 1000).abs().max() < 1.95 / math.sqrt(1000)


@pytest.mark.parametrize("batch_size", [1, 2, 7, 64])
def test_low_discrepancy_times_of_a_step_are_evenly_spaced(batch_size: int) -> None:
    times = LowDiscrepancy()(0, torch.arange(5 * batch_size, 6 * batch_size), batch_size).sort().values
    around = torch.cat([times, times[:1] + 1])

    torch.testing.assert_close(around.diff(), torch.full((batch_size,), 1 / batch_size), rtol=0, atol=1e-6)


@pytest.mark.parametrize("noise_levels", BOTH, ids=str)
def test_seed_and_step_change_the_times(noise_levels: NoiseLevels) -> None:
    positions = torch.arange(4)
    times = [noise_levels(0, positions, 4), noise_levels(1, positions, 4), noise_levels(0, positions + 4, 4)]

    assert len({time.sum().item() for time in times}) == 3


def test_low_discrepancy_is_exact_at_positions_beyond_the_precision_of_fp32() -> None:
    positions = 10**12 + torch.arange(8)

    assert len(set(LowDiscrepancy()(0, positions, 8).tolist())) == 8
