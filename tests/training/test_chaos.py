"""Training killed anywhere and resumed gives the model of training left alone.

The long form, 105 kills, runs by ``make test-chaos``; it prints how many there were of each kind. ``CHAOS_KILLS`` sets
another number for each case, and ``CHAOS_SEED`` other moments.
"""

import os
import random
from pathlib import Path

import pytest

from tests.training.chaos import Case, assert_each_position_once, assert_same_model, summary
from tests.training.zygote import Zygote

LONG = [("auto", 1), ("ddp", 2), ("ddp", 3), ("fsdp2", 2), ("fsdp2", 3), ("deepspeed_zero2", 2), ("deepspeed_zero2", 3)]
KILLS_EACH = int(os.environ.get("CHAOS_KILLS", "15"))
SEED = os.environ.get("CHAOS_SEED", "0")
SHORT = [("auto", 1, 4), ("ddp", 2, 3)]


def check(case: Case, num_kills: int) -> None:
    """Kill a case so many times, in as many runs as that takes."""
    alone = case.run_alone()
    assert_each_position_once(alone)
    number = 0
    while num_kills > 0:
        number += 1
        run, done = case.run_under_fire(f"killed-{number}", min(num_kills, 8))
        assert_same_model(run, alone)
        num_kills -= done
    print(summary([case]))


@pytest.mark.parametrize(("strategy", "num_ranks", "num_kills"), SHORT)
def test_killed_and_resumed_run_equals_one_left_alone(
    tmp_path: Path, shards: Path, zygote: Zygote, strategy: str, num_ranks: int, num_kills: int
) -> None:
    check(Case(strategy, num_ranks, shards, tmp_path, zygote, random.Random(num_ranks)), num_kills)


@pytest.mark.chaos
@pytest.mark.parametrize(("strategy", "num_ranks"), LONG)
def test_killed_many_times(tmp_path: Path, shards: Path, zygote: Zygote, strategy: str, num_ranks: int) -> None:
    case = Case(strategy, num_ranks, shards, tmp_path, zygote, random.Random(f"{strategy} {num_ranks} {SEED}"))
    check(case, KILLS_EACH)
