"""Check of some samples before training: whether the shards are those of the index."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from vdm.data.index import ShardIndex
from vdm.data.member_checks import DamagedSample, check_member
from vdm.data.shard_table import ShardTable
from vdm.data.shards import SampleEntry, ShardEntry, max_bytes_of
from vdm.data.sidecars import read_samples
from vdm.data.storage import Folder

MAX_SHARDS = 16
"""Number of shards to check, spread evenly over the set; training finds other faults as it reads."""


def check_shards(folder: Folder, index: ShardIndex) -> None:
    """Refuse a set whose shards were exchanged, or whose index belongs to another set.

    Equal sizes are no proof. So the first sample of some shards is read; if it does not match the index, the middle and
    the last one too. A shard passes with one undamaged sample of these; training leaves out and reports damaged ones.

    Raises:
        ValueError: In one line, if none of the three samples of a shard matches, or the shard can't be read.
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
    """Return a message about a shard, empty if it passes."""
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
