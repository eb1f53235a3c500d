import math

import torch

from vdm import randomness


def test_draw_of_a_position_does_not_depend_on_its_batch() -> None:
    together = randomness.normal(3, "noise", range(10), (2, 3))
    alone = torch.cat([randomness.normal(3, "noise", [position], (2, 3)) for position in reversed(range(10))])

    assert torch.equal(together, alone.flip(0))


def test_seed_purpose_and_position_each_change_the_draw() -> None:
    draws = [
        randomness.uniform(seed, purpose, [position]).item()
        for seed in (0, 1)
        for purpose in ("noise", "noise level")
        for position in (0, 1, 10**12, "clip-0")
    ]

    assert len(set(draws)) == len(draws)


def test_neighbouring_parts_of_the_seed_are_not_run_together() -> None:
    assert randomness.uniform(1, "1", [1]) != randomness.uniform(11, "", [1])
    assert randomness.uniform(0, "a", ["1"]) != randomness.uniform(0, "a1", [""])


def test_a_number_and_its_digits_are_the_same_position() -> None:
    assert torch.equal(randomness.normal(0, "noise", [7], (4,)), randomness.normal(0, "noise", ["7"], (4,)))


def test_normal_draws_have_mean_0_and_variance_1_over_positions_and_inside_one() -> None:
    across = randomness.normal(0, "noise", range(2000), (4,))
    inside = randomness.normal(0, "noise", [5], (8000,))

    for draws in (across, inside):
        assert abs(draws.mean().item()) < 4 / math.sqrt(8000)
        assert abs(draws.var().item() - 1) < 4 * math.sqrt(2 / 8000)


def test_uniform_draws_fill_the_unit_interval_evenly() -> None:
    draws = randomness.uniform(0, "noise level", range(2000)).sort().values
    expected = (torch.arange(2000) + 0.5) / 2000

    # Kolmogorov-Smirnov: the distance exceeds 1.95 / sqrt(n) once in a thousand times.
    assert (draws - expected).abs().max() < 1.95 / math.sqrt(2000)


def test_permutation_has_each_number_once_and_differs_by_position() -> None:
    first, second = (randomness.permutation(0, "shards", epoch, 50) for epoch in (0, 1))

    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second
    assert first == randomness.permutation(0, "shards", 0, 50)


def test_torch_s_own_generator_is_left_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    randomness.normal(1, "noise", [0], (3,))

    assert torch.equal(torch.rand(1), expected)
