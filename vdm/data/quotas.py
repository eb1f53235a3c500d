"""Shares kept by quotas: the choice of each number, and how many smaller numbers had it, in closed form."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from vdm import randomness
from vdm.data.cache import BoundedCache

MAX_CYCLE = 1 << 16
"""Shares that need a longer cycle to be exact are rounded to parts of this one."""


def quotas(shares: Sequence[Fraction]) -> tuple[int, ...]:
    """Return the shortest whole numbers in the proportion of ``shares``, all positive.

    Where their sum would exceed ``MAX_CYCLE`` they are rounded by largest remainders, and to no less than 1.
    """
    whole = [int(share * math.lcm(*(s.denominator for s in shares))) for share in shares]
    divisor = math.gcd(*whole)
    if sum(whole) // divisor <= MAX_CYCLE:
        return tuple(number // divisor for number in whole)
    exact = [Fraction(number * MAX_CYCLE, sum(whole)) for number in whole]
    rounded = [max(1, math.floor(number)) for number in exact]
    by_remainder = sorted(range(len(exact)), key=lambda choice: rounded[choice] - exact[choice])
    for choice in by_remainder[: max(0, MAX_CYCLE - sum(rounded))]:
        rounded[choice] += 1
    return tuple(rounded)


@dataclass(frozen=True)
class _Cycle:
    choices: Tensor
    """Choice of each place in the cycle."""
    earlier: Tensor
    """How many places before it in the cycle have the same choice."""


class QuotaSchedule:
    """Assigns the numbers 0, 1, 2, ... to choices; each choice gets its quota of numbers in every cycle.

    Within a cycle the order of choices is a random permutation, a function of (seed, purpose, cycle).

    Args:
        seed: Seed of the run.
        purpose: Tells the random numbers of this schedule from those of others.
        quotas: How many numbers each choice gets in a cycle. Their sum is the length of the cycle.
    """

    def __init__(self, seed: int, purpose: str, quotas: Sequence[int]) -> None:
        self._seed = seed
        self._purpose = purpose
        self._quotas = torch.tensor(quotas)
        self._length = sum(quotas)
        self._is_single = len(quotas) == 1
        self._cycles: BoundedCache[int, _Cycle] = BoundedCache(capacity=2)

    def assign(self, number: int) -> tuple[int, int]:
        """Return the choice that ``number`` goes to, and how many smaller numbers went to the same choice."""
        if self._is_single:
            return 0, number
        cycle, place = divmod(number, self._length)
        permuted = self._cycles.get(cycle, self._shuffle)
        choice = int(permuted.choices[place])
        return choice, cycle * int(self._quotas[choice]) + int(permuted.earlier[place])

    def _shuffle(self, cycle: int) -> _Cycle:
        generator = randomness.generator(self._seed, self._purpose, cycle)
        sorted_choices = torch.repeat_interleave(self._quotas)
        choices = sorted_choices[torch.randperm(self._length, generator=generator)]
        firsts = self._quotas.cumsum(0) - self._quotas
        earlier = torch.empty_like(choices)
        earlier[choices.argsort(stable=True)] = torch.arange(self._length) - firsts[sorted_choices]
        return _Cycle(choices, earlier)
