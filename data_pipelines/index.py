"""``vdm-data index``: makes any WebDataset of ``.mp4`` with ``.json`` or ``.txt`` a set to train on, where it lies."""

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from omegaconf import DictConfig, OmegaConf

from data_pipelines.assemble import choose_splits
from data_pipelines.index_tar import IndexedTar, index_tar
from data_pipelines.progress import progress_bar
from data_pipelines.report import described
from data_pipelines.set_settings import IndexSettings
from data_pipelines.tar_folder import list_tars
from data_pipelines.workers import WorkerDiedError, map_in_processes
from vdm.cli.next_step import command, say_next
from vdm.config.options import parse
from vdm.data.index import ShardIndex, write_index
from vdm.data.shards import ShardEntry
from vdm.text import printable


def run(config: DictConfig) -> int:
    """Index what ``conf/index.yaml`` says; see ``index_folder``."""
    values: Any = OmegaConf.to_container(config, resolve=True)
    return index_folder(parse(IndexSettings, values))


def index_folder(settings: IndexSettings) -> int:
    """Write a sidecar beside each tar and the index of all; print every fault in a line on stderr.

    With ``settings.output`` they are written there, beside links to the tars.

    Returns:
        0 if there was no fault, 1 if something had to be left out.

    Raises:
        ValueError: In one line, if there are no tars, there is an index already, or nothing can be used.
    """
    listed = list_tars(settings.input, settings.output)
    found: dict[str, IndexedTar] = {}
    with progress_bar(len(listed.tars), "indexing", "tar") as bar:
        work = partial(index_tar, hdr=settings.hdr)
        for tar, result in map_in_processes(work, listed.tars, settings.num_workers):
            if isinstance(result, WorkerDiedError):
                result = IndexedTar(None, frozenset(), (f"{tar.name}: {result}",))
            found[tar.name] = result
            bar.update()
    faults = [*listed.faults, *(fault for tar in listed.tars for fault in found[tar.name].faults)]
    for fault in faults:
        print(printable(fault), file=sys.stderr)
    shards = {tar.name: shard for tar in listed.tars if (shard := found[tar.name].shard) is not None}
    if not shards:
        listed.unlink()
        raise ValueError(f"input={settings.input}: none of its {len(found)} tars can be used, for the reasons above")
    index = _index(shards, found, settings)
    folder = settings.output or listed.folder
    write_index(folder, index)
    print(f"{printable(folder)}: clips: {described(index)}" + (f"; faults: {len(faults)}" if faults else ""))
    for note in _notes(list(found.values())):
        print(printable(f"{folder}: {note}"))
    say_next(command("vdm-data verify", str(folder)), command("vdm train", data__path=folder))
    return int(bool(faults))


def _notes(found: Sequence[IndexedTar]) -> Iterator[str]:
    """Yield in a line each what the user should know of the set as it is."""
    for what, counts in (
        ("members not read", sum((Counter(one.unread) for one in found), Counter[str]())),
        ("texts not in UTF-8", sum((Counter(one.encodings) for one in found), Counter[str]())),
    ):
        if counts:
            listed = ", ".join(f"{count} {name}" for name, count in counts.most_common())
            yield f"{what}: {listed}"
    if num_uneven := sum(one.num_uneven for one in found):
        yield (
            f"{num_uneven} videos have a variable frame rate, and count by its mean; "
            "`vdm-data build` brings videos to one rate"
        )
    if num_mapped := sum(one.num_mapped for one in found):
        yield f"{num_mapped} HDR videos, which training maps to SDR; hdr=leave_out leaves them out"
    if num_left_out := sum(one.num_left_out for one in found):
        yield f"{num_left_out} HDR videos left out, as hdr=leave_out says"
    if sequences := [start for one in found for start in one.sequences]:
        yield (
            f"{len(sequences)} rows of numbered pictures without captions, such as {sequences[0]}..., of which each "
            "picture is a clip of one frame; if they are frames of videos, make each an mp4"
        )


def _index(shards: Mapping[str, ShardEntry], found: Mapping[str, IndexedTar], settings: IndexSettings) -> ShardIndex:
    splits = choose_splits(list(shards), settings.validation_fraction, settings.seed)
    names = {split: [name for name in shards if splits[name] == split] for split in ("train", "validation")}
    rates = frozenset[float | None]().union(*(one.rates for one in found.values()))
    return ShardIndex.of(
        {split: tuple(shards[name] for name in of_split) for split, of_split in names.items()},
        fps=next(iter(rates)) if len(rates) == 1 else None,
        num_uncaptioned={
            split: sum(found[name].num_uncaptioned for name in of_split) for split, of_split in names.items()
        },
    )
