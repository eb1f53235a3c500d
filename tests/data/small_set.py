"""The least set of shards: one sample, in a tar that is none."""

from pathlib import Path

from vdm.data import shards, sidecars
from vdm.data.index import ShardIndex, write_index
from vdm.data.shards import Member, SampleEntry

CONTENT = b"abcdefghijkl"
SAMPLE = SampleEntry(
    "a", (4, 16, 32), {"mp4": Member(2, 5, shards.checksum(b"cdefg")), "json": Member(9, 1, shards.checksum(b"j"))}
)


def write_small_set(folder: Path) -> ShardIndex:
    """Write a set of one shard with ``SAMPLE``; the tar is any file, as the schema does not look into it."""
    (folder / "train-000000.tar").write_bytes(CONTENT)
    shard = shards.shard_of("train-000000.tar", len(CONTENT), shards.checksum(CONTENT), [SAMPLE])
    index = ShardIndex.of({"train": (shard,), "validation": ()}, labels=("zero", "one"), fps=8.0)
    sidecars.write_samples(folder, shard.name, [SAMPLE])
    write_index(folder, index)
    return index
