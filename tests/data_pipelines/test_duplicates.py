import time
import tracemalloc

import numpy as np
import pytest
from jaxtyping import UInt8

from data_pipelines.duplicates import duplicates


def _noisy_hashes(generator: np.random.Generator, num_bytes: int) -> UInt8[np.ndarray, "n bytes"]:
    """Twenty hashes, each ten times with few bits flipped or none."""
    centres = generator.integers(0, 256, (20, num_bytes), dtype=np.uint8)
    bits = np.unpackbits(np.repeat(centres, 10, axis=0), axis=1)
    flips = generator.random(bits.shape) < np.maximum(0, generator.uniform(-0.04, 0.08, (len(bits), 1)))
    return np.packbits(bits ^ flips.astype(np.uint8), axis=1)


def _by_comparing_all(
    hashes: UInt8[np.ndarray, "n bytes"], shots: list[tuple[str, int]], preference: list[float], max_bits: int
) -> dict[int, int]:
    """Of several better clips the first of those of the first equal band is named, as it is the first that is found."""
    bits = np.unpackbits(hashes, axis=1)
    differ = bits[:, None] != bits
    near = differ.sum(2) <= max_bits
    num_bands = min(max_bits + 1, bits.shape[1])
    band = np.stack([~differ[:, :, start::num_bands].any(2) for start in range(num_bands)]).argmax(0)
    stays: list[int] = []
    dropped: dict[int, int] = {}
    for clip in sorted(range(len(hashes)), key=lambda clip: (-preference[clip], clip)):
        better = [other for other in stays if near[clip, other] and shots[clip] != shots[other]]
        if better:
            dropped[clip] = min(better, key=lambda other: (band[clip, other], other))
        else:
            stays.append(clip)
    return dropped


@pytest.mark.parametrize("num_bytes", [2, 24])
@pytest.mark.parametrize("max_bits", [0, 1, 6, 20])
def test_duplicates_are_those_of_comparing_all_with_all(max_bits: int, num_bytes: int) -> None:
    generator = np.random.default_rng(max_bits)
    for num_shots in (1, 3, 200):
        hashes = generator.permutation(_noisy_hashes(generator, num_bytes))
        if max_bits >= 8 * num_bytes:  # a hash and its opposite have no equal band
            hashes[:, 0] &= 127
        shots = [("file", int(shot)) for shot in generator.integers(0, num_shots, len(hashes))]
        preference = generator.integers(0, 3, len(hashes)).astype(float).tolist()

        found = duplicates([row.tobytes() for row in hashes], shots, preference, max_bits)

        assert found == _by_comparing_all(hashes, shots, preference, max_bits)
        assert bool(found) == (num_shots > 1)


def test_the_best_of_each_group_stays_and_clips_of_one_shot_are_not_compared() -> None:
    same, other = bytes(24), bytes([255] * 24)
    shots = [("a", 0), ("a", 0), ("b", 0), ("c", 0), ("d", 0)]

    assert duplicates([same, same, same, other, same], shots, [1, 1, 3, 9, 2], max_bits=3) == {0: 2, 1: 2, 4: 2}
    assert duplicates([same, same], [("a", 0), ("a", 0)], [1, 1], max_bits=3) == {}


@pytest.mark.parametrize("num_shots", [1, 5_000])
def test_an_intro_that_thousands_of_clips_share_takes_little_time_and_memory(num_shots: int) -> None:
    num_clips = 5_000
    shots = [("file", clip % num_shots) for clip in range(num_clips)]
    hashes, preference = [bytes(24)] * num_clips, [1.0] * num_clips
    started = time.process_time()
    tracemalloc.start()

    found = duplicates(hashes, shots, preference, max_bits=6)

    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == ({} if num_shots == 1 else dict.fromkeys(range(1, num_clips), 0))
    assert time.process_time() - started < 15
    assert peak < 2000 * num_clips
