from fractions import Fraction
from itertools import product

import pytest

from vdm.data.quotas import MAX_CYCLE, QuotaSchedule, quotas


def test_quotas_are_the_shares_in_lowest_terms() -> None:
    assert quotas([Fraction(3), Fraction(1)]) == (3, 1)
    assert quotas([Fraction("0.7"), Fraction("0.3")]) == (7, 3)
    assert quotas([Fraction(1, 3), Fraction(1, 2), Fraction(1, 6)]) == (2, 3, 1)
    assert quotas([Fraction(5)]) == (1,)


def test_shares_that_need_too_long_a_cycle_are_rounded() -> None:
    shares = [Fraction(1_000_003), Fraction(2_999_999), Fraction(7)]
    found = quotas(shares)
    assert sum(found) == MAX_CYCLE
    assert all(abs(q - s * MAX_CYCLE / sum(shares)) < 1 for q, s in zip(found, shares, strict=True))
    assert found[2] == 1  # not left out


@pytest.mark.parametrize("quota", [(1,), (1, 1), (3, 1), (2, 3, 1), (1, 5, 2, 2)])
def test_each_choice_gets_its_quota_in_every_cycle_and_counts_without_gap(quota: tuple[int, ...]) -> None:
    schedule, length = QuotaSchedule(0, "test", quota), sum(quota)
    assigned = [schedule.assign(number) for number in range(4 * length)]
    for cycle in range(4):
        choices = [choice for choice, _ in assigned[cycle * length : (cycle + 1) * length]]
        assert [choices.count(choice) for choice in range(len(quota))] == list(quota)
    for number, (choice, earlier) in enumerate(assigned):
        assert earlier == sum(other == choice for other, _ in assigned[:number])


def test_an_assignment_does_not_depend_on_earlier_ones() -> None:
    used = QuotaSchedule(0, "test", (3, 2))
    in_sequence = [used.assign(number) for number in range(50)]
    for number in (49, 0, 23, 7):
        assert QuotaSchedule(0, "test", (3, 2)).assign(number) == in_sequence[number]


def test_cycles_seeds_and_purposes_differ() -> None:
    schedules = [QuotaSchedule(seed, purpose, (8, 8)) for seed, purpose in product((0, 1), ("a", "b"))]
    cycles = {
        tuple(schedule.assign(16 * cycle + place)[0] for place in range(16))
        for schedule in schedules
        for cycle in range(3)
    }
    assert len(cycles) == 12
