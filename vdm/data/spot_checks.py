"""Whether shards are those that the index speaks of: a look at some samples before training begins."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from vdm.data.index import ShardIndex
from vdm.data.member_checks import DamagedSample, check_member
from vdm.data.shard_table import ShardTable
from vdm.data.shards import SampleEntry, ShardEntry, max_bytes_of
from vdm.data.sidecars import read_samples
from vdm.data.storage import Folder

MAX_SHARDS = 16
"""Shards that are looked into, evenly over the set; whatever a larger set has elsewhere is found as it is read."""


def check_shards(folder: Folder, index: ShardIndex) -> None:
    """Refuse a set whose shards have been exchanged for others, or whose index belongs to another set.

    Sizes tell most of it, but not all, so of some shards the first sample is read, and if that is not what was
    recorded, the middle and the last. A shard with one whole sample of these may have damaged ones, which training
    leaves out and reports.

    Raises:
        ValueError: In one line, if all three samples of a shard are others than recorded, or it can't be read.
    """
    shards = ShardTable.joined(list(index.splits.values()))
    filled = np.flatnonzero(shards.num_samples)
    num_chosen = min(MAX_SHARDS, len(filled))
    chosen = filled[np.arange(num_chosen) * len(filled) // max(1, num_chosen)]
    with ThreadPoolExecutor(MAX_SHARDS if folder.is_remote else 1) as threads:
        for message in threads.map(lambda number: _fault(folder, shards[number]), chosen.tolist()):
            if message:
                raise ValueError(message)


def _fault(folder: Folder, shard: ShardEntry) -> str:
    """Return what is wrong with a shard, or nothing."""
    try:
        samples = read_samples(folder, shard)
        looked_at = (0, len(samples) // 2, len(samples) - 1)
        if any(_is_whole(folder, shard, samples[number]) for number in looked_at):
            return ""
    except OSError as error:
        return f"{folder.path_of(shard.name)}: can't be read: {error}"
    return (
        f"{folder.path_of(shard.name)}: does not hold the samples that the index records; it was changed or exchanged, "
        "or the index is another set's. `vdm-data verify` lists the faults, data.check_shards=false trains on"
        " what is whole"
    )


def _is_whole(folder: Folder, shard: ShardEntry, sample: SampleEntry) -> bool:
    extension, member = max(sample.members.items(), key=lambda item: item[1].length)  # captions of sets may be alike
    if member.length > max_bytes_of(extension):
        return False
    try:
        check_member(folder.read(shard.name, member.offset, member.length), shard.name, sample, extension)
    except DamagedSample:
        return False
    return True
