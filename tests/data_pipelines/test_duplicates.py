from itertools import combinations

import numpy as np
import pytest

from data_pipelines.duplicates import duplicates, near_pairs


@pytest.mark.parametrize("max_bits", [0, 1, 6, 20])
def test_near_pairs_are_those_of_comparing_all_with_all(max_bits: int) -> None:
    generator = np.random.default_rng(0)
    centres = generator.integers(0, 256, (20, 24), dtype=np.uint8)
    bits = np.unpackbits(np.repeat(centres, 10, axis=0), axis=1)
    flips = generator.random(bits.shape) < generator.uniform(0, 0.08, (len(bits), 1))
    bits ^= flips.astype(np.uint8)

    found = list(near_pairs(np.packbits(bits, axis=1), max_bits))

    expected = {(a, b) for a, b in combinations(range(len(bits)), 2) if (bits[a] != bits[b]).sum() <= max_bits}
    assert len(found) == len(set(found))
    assert set(found) == expected
    assert max_bits == 0 or expected


def test_the_best_of_each_group_stays_and_clips_of_one_shot_are_not_compared() -> None:
    same, other = bytes(24), bytes([255] * 24)
    shots = [("a", 0), ("a", 0), ("b", 0), ("c", 0), ("d", 0)]

    assert duplicates([same, same, same, other, same], shots, [1, 1, 3, 9, 2], max_bits=3) == {0: 2, 1: 2, 4: 2}
    assert duplicates([same, same], [("a", 0), ("a", 0)], [1, 1], max_bits=3) == {}
