"""Near duplicates by perceptual hash, found without comparing all with all."""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Int, UInt8


def near_pairs(hashes: UInt8[np.ndarray, "n bytes"], max_bits: int) -> Iterator[tuple[int, int]]:
    """Yield each pair of rows whose hashes differ in at most ``max_bits`` bits, once, the lower number first.

    Bits are dealt to ``max_bits + 1`` bands: of two hashes that differ in no more bits, at least one band is equal
    (Manku et al. 2007, "Detecting near-duplicates for web crawling"). Only rows with an equal band are compared.
    """
    bits: Bool[np.ndarray, "n bits"] = np.unpackbits(hashes, axis=1).astype(bool)
    num_bands = min(max_bits + 1, bits.shape[1])
    seen: set[tuple[int, int]] = set()
    for band in range(num_bands):
        for group in _equal(np.packbits(bits[:, band::num_bands], axis=1)):
            for place, row in enumerate(group[:-1]):
                others = group[place + 1 :]
                near = others[(bits[others] != bits[row]).sum(1) <= max_bits]
                for other in near.tolist():
                    pair = (int(row), other)
                    if pair not in seen:
                        seen.add(pair)
                        yield pair


def _equal(keys: UInt8[np.ndarray, "n bytes"]) -> Iterator[Int[np.ndarray, " m"]]:
    """Yield the numbers of the rows that are equal, in order, groups of one apart."""
    order = np.lexsort(keys.T[::-1])
    changes = (keys[order][1:] != keys[order][:-1]).any(1)
    for group in np.split(order, np.flatnonzero(changes) + 1):
        if len(group) > 1:
            yield np.sort(group)


def duplicates(
    hashes: Sequence[bytes], shots: Sequence[tuple[str, int]], preference: Sequence[float], max_bits: int
) -> dict[int, int]:
    """Return which clips are near duplicates, each with the better clip that stays in its place.

    Args:
        hashes: Of each clip.
        shots: File and shot of each clip; clips of one shot follow each other and are not compared.
        preference: The greater, the rather a clip stays; among equals the first does.
        max_bits: In how many bits of their hashes duplicates may differ.
    """
    if not hashes:
        return {}
    near: dict[int, list[int]] = {}
    for one, other in near_pairs(np.stack([np.frombuffer(value, np.uint8) for value in hashes]), max_bits):
        if shots[one] != shots[other]:
            near.setdefault(one, []).append(other)
            near.setdefault(other, []).append(one)
    dropped: dict[int, int] = {}
    stays: set[int] = set()
    for clip in sorted(near, key=lambda clip: (-preference[clip], clip)):
        better = [other for other in near[clip] if other in stays]
        if better:
            dropped[clip] = better[0]
        else:
            stays.add(clip)
    return dropped
