"""``vdm-data index``: makes any WebDataset of ``.mp4`` with ``.json`` or ``.txt`` a set to train on, where it lies."""

import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from data_pipelines.assemble import choose_splits
from data_pipelines.index_tar import IndexedTar, index_tar
from data_pipelines.progress import progress_bar
from data_pipelines.report import described
from data_pipelines.set_settings import IndexSettings
from data_pipelines.workers import WorkerDiedError, map_in_processes
from vdm.cli.next_step import command, say_next
from vdm.config.options import parse
from vdm.data.index import INDEX_NAME, ShardIndex, write_index
from vdm.data.shards import ShardEntry
from vdm.text import printable


def run(config: DictConfig) -> int:
    """Index what ``conf/index.yaml`` says; see ``index_folder``."""
    values: Any = OmegaConf.to_container(config, resolve=True)
    return index_folder(parse(IndexSettings, values))


def index_folder(settings: IndexSettings) -> int:
    """Write a sidecar beside each tar and the index of all; print every fault in a line on stderr.

    Returns:
        0 if there was no fault, 1 if something had to be left out.

    Raises:
        ValueError: In one line, if there are no tars, there is an index already, or nothing can be used.
    """
    tars = _find_tars(settings.input)
    found: dict[str, IndexedTar] = {}
    with progress_bar(len(tars), "indexing", "tar") as bar:
        for tar, result in map_in_processes(index_tar, tars, settings.num_workers):
            if isinstance(result, WorkerDiedError):
                result = IndexedTar(None, frozenset(), (f"{tar.name}: {result}",))
            found[tar.name] = result
            bar.update()
    faults = [fault for tar in tars for fault in found[tar.name].faults]
    for fault in faults:
        print(printable(fault), file=sys.stderr)
    shards = {tar.name: shard for tar in tars if (shard := found[tar.name].shard) is not None}
    if not shards:
        raise ValueError(f"input={settings.input}: none of its {len(tars)} tars can be used, for the reasons above")
    index = _index(shards, found, settings)
    write_index(settings.input, index)
    folder = printable(settings.input)
    print(f"{folder}: clips: {described(index)}" + (f"; faults: {len(faults)}" if faults else ""))
    for what, counts in (
        ("members not read", sum((Counter(one.unread) for one in found.values()), Counter[str]())),
        ("texts not in UTF-8", sum((Counter(one.encodings) for one in found.values()), Counter[str]())),
    ):
        if counts:
            listed = ", ".join(f"{count} {name}" for name, count in counts.most_common())
            print(printable(f"{settings.input}: {what}: {listed}"))
    if num_uneven := sum(one.num_uneven for one in found.values()):
        print(
            f"{folder}: {num_uneven} videos have a variable frame rate, and count by its mean; "
            "`vdm-data build` brings videos to one rate"
        )
    say_next(command("vdm-data verify", str(settings.input)), command("vdm train", data__path=settings.input))
    return int(bool(faults))


def _find_tars(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise ValueError(f"input={folder}: no such folder; give a folder of tars")
    if (folder / INDEX_NAME).exists():
        raise ValueError(f"input={folder}: has an {INDEX_NAME} already; delete it to index the tars anew")
    tars = sorted(folder.glob("*.tar"))
    if not tars:
        raise ValueError(f"input={folder}: has no file *.tar")
    return tars


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
