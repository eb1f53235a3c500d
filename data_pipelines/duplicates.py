"""Near duplicates by perceptual hash, found without comparing all pairs."""

from array import array
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int, UInt8


def duplicates(
    hashes: Sequence[bytes], shots: Sequence[tuple[str, int]], preference: Sequence[float], max_bits: int
) -> dict[int, int]:
    """Find the near duplicates among clips, going from the most preferred clip to the least.

    Args:
        hashes: Perceptual hash of each clip.
        shots: File and shot of each clip; clips of one shot are not compared.
        preference: Of near duplicates, the clip with the greatest preference is kept; of equals, the first.
        max_bits: Maximum number of bits in which the hashes of near duplicates differ.

    Returns:
        By number of each duplicate, the number of the clip that is kept instead.
    """
    if not hashes:
        return {}
    kept_clips = _KeptClips(np.stack([np.frombuffer(value, np.uint8) for value in hashes]), shots, max_bits)
    dropped: dict[int, int] = {}
    for clip in sorted(kept_clips.comparable(), key=lambda clip: (-preference[clip], clip)):
        better = kept_clips.near(clip)
        if better is None:
            kept_clips.add(clip)
        else:
            dropped[clip] = better
    return dropped


class _KeptClips:
    """The clips that are kept so far, searchable by near hashes.

    The bits of a hash are distributed over ``max_bits + 1`` bands: two hashes that differ in at most ``max_bits`` bits
    have at least one equal band (Manku et al. 2007, "Detecting near-duplicates for web crawling"). Only clips with an
    equal band are compared. Kept clips with equal hashes are all of one shot, since any others would be duplicates: one
    entry stands for all of them.
    """

    def __init__(self, hashes: UInt8[np.ndarray, "n bytes"], shots: Sequence[tuple[str, int]], max_bits: int) -> None:
        self._max_bits = max_bits
        self._hashes, self._of_clip = _distinct(hashes)
        numbers = {shot: number for number, shot in enumerate(dict.fromkeys(shots))}
        self._shots: Int[np.ndarray, " n"] = np.array([numbers[shot] for shot in shots])
        self._groups = _groups(hashes, max_bits)
        self._first: Int[np.ndarray, " hashes"] = np.full(len(self._hashes), -1)
        """The first kept clip of each hash; -1 if there is none."""
        self._found: dict[tuple[int, int], array[int]] = {}
        """Hashes of kept clips, by band and group."""

    def comparable(self) -> list[int]:
        """Return the clips that have a band in common with another clip."""
        return np.flatnonzero((self._groups >= 0).any(0)).tolist()

    def near(self, clip: int) -> int | None:
        """Return a kept clip of another shot that is a near duplicate of this one; None if there is none."""
        for key in self._keys(clip):
            if key not in self._found:
                continue
            others = np.frombuffer(self._found[key], np.int64)
            changes: UInt8[np.ndarray, "m bytes"] = self._hashes[others] ^ self._hashes[self._of_clip[clip]]
            firsts = self._first[others[np.unpackbits(changes, axis=1).sum(1) <= self._max_bits]]
            firsts = firsts[self._shots[firsts] != self._shots[clip]]
            if len(firsts):
                return int(firsts.min())
        return None

    def add(self, clip: int) -> None:
        """Keep a clip that is no near duplicate of a kept clip."""
        number = int(self._of_clip[clip])
        if self._first[number] >= 0:
            self._first[number] = min(self._first[number], clip)
            return
        self._first[number] = clip
        for key in self._keys(clip):
            self._found.setdefault(key, array("q")).append(number)

    def _keys(self, clip: int) -> list[tuple[int, int]]:
        return [(band, group) for band, group in enumerate(self._groups[:, clip].tolist()) if group >= 0]


def _distinct(
    hashes: UInt8[np.ndarray, "n bytes"],
) -> tuple[UInt8[np.ndarray, "hashes bytes"], Int[np.ndarray, " n"]]:
    """Return the distinct rows, and the number of the distinct row that each row equals."""
    values, numbers = np.unique(hashes, axis=0, return_inverse=True)
    return values, numbers.reshape(-1)


def _groups(hashes: UInt8[np.ndarray, "n bytes"], max_bits: int) -> Int[np.ndarray, "bands n"]:
    """Group the rows by each band: rows with an equal band have the same number; -1 means equal to no other row."""
    bits: Bool[np.ndarray, "n bits"] = np.unpackbits(hashes, axis=1).astype(bool)
    num_bands = min(max_bits + 1, bits.shape[1])
    groups = np.full((num_bands, len(hashes)), -1, np.int32)
    for band in range(num_bands):
        _, numbers = _distinct(np.packbits(bits[:, band::num_bands], axis=1))
        shared = np.bincount(numbers)[numbers] > 1
        groups[band, shared] = numbers[shared]
    return groups
