"""The samples of one shard as columns: some 30 bytes a file, where objects would take ten times as much."""

from collections.abc import Collection, Sequence

import numpy as np

from vdm.data.shards import CHECKSUM_BYTES, Kind, Member, SampleEntry


class SampleTable:
    """The sidecar of one shard in a small part of the memory that its objects take."""

    def __init__(self, samples: Sequence[SampleEntry]) -> None:
        keys = [sample.key.encode() for sample in samples]
        self._keys = b"".join(keys)
        self._key_ends = np.cumsum([0, *map(len, keys)], dtype=np.uint32)
        self._kinds = list(dict.fromkeys(sample.kind for sample in samples))
        numbers = {kind: number for number, kind in enumerate(self._kinds)}
        self._kind_of = np.array([numbers[sample.kind] for sample in samples], dtype=np.uint32)
        self._extensions = sorted({extension for sample in samples for extension in sample.members})
        absent = Member(offset=-1, length=0, checksum="00" * CHECKSUM_BYTES)
        members = [sample.members.get(extension, absent) for sample in samples for extension in self._extensions]
        rows = (len(samples), len(self._extensions))
        self._offsets = np.array([member.offset for member in members], dtype=np.int64).reshape(rows)
        lengths = np.array([member.length for member in members], dtype=np.int64).reshape(rows)
        self._lengths = lengths.astype(np.uint32) if lengths.max(initial=0) < 1 << 32 else lengths
        self._checksums = bytes.fromhex("".join(member.checksum for member in members))
        self._rows: dict[frozenset[Kind], np.ndarray] = {}
        rows_bytes = 4 * len(samples)  # for the lists in ``_rows``, which are disjoint
        columns = (self._key_ends, self._kind_of, self._offsets, self._lengths)
        self.num_bytes = sum(map(len, (self._keys, self._checksums))) + sum(one.nbytes for one in columns) + rows_bytes
        """Memory that the table takes."""

    def __len__(self) -> int:
        return len(self._kind_of)

    def __getitem__(self, sample: int) -> SampleEntry:
        return self._entry(sample, self._extensions)

    def find(self, stored: frozenset[Kind], number: int, extensions: frozenset[str]) -> SampleEntry:
        """Return the ``number``-th of the samples that are of one of the kinds ``stored``, with some of its files."""
        if stored not in self._rows:
            kinds = [number for number, kind in enumerate(self._kinds) if kind in stored]
            self._rows[stored] = np.flatnonzero(np.isin(self._kind_of, kinds)).astype(np.uint32)
        return self._entry(int(self._rows[stored][number]), extensions)

    def _entry(self, sample: int, extensions: Collection[str]) -> SampleEntry:
        key = self._keys[self._key_ends[sample] : self._key_ends[sample + 1]].decode()
        shape, fps = self._kinds[self._kind_of[sample]]
        offsets, lengths = self._offsets[sample].tolist(), self._lengths[sample].tolist()
        members: dict[str, Member] = {}
        start = sample * len(self._extensions) * CHECKSUM_BYTES
        for extension, offset, length in zip(self._extensions, offsets, lengths, strict=True):
            if offset >= 0 and extension in extensions:
                members[extension] = Member(offset, length, self._checksums[start : start + CHECKSUM_BYTES].hex())
            start += CHECKSUM_BYTES
        return SampleEntry(key, shape, members, fps)
