"""``vdm-data show``: an HTML page with clips and statistics of a set of shards."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf

from data_pipelines.contact_sheet import ShownClip, contact_sheet
from data_pipelines.progress import progress_bar
from data_pipelines.set_settings import ShowSettings
from vdm.cli.next_step import command, say_next
from vdm.config.options import parse
from vdm.data.captions import captions_of, parse_metadata
from vdm.data.index import ShardIndex, read_index
from vdm.data.member_checks import read_member
from vdm.data.reading import PICTURES, VIDEO
from vdm.data.shards import SampleEntry, ShardEntry
from vdm.data.sidecars import read_samples
from vdm.files import replacing
from vdm.randomness import generator, permutation
from vdm.regular_files import open_regular
from vdm.text import printable

MAX_SHOWN_BYTES = 1 << 24
"""Maximum size of a clip on the page, which embeds it whole."""
MAX_SHOWN_TEXT = 2000
"""Maximum number of characters of a text on the page."""
MAX_SHOWN_VALUES = 100
"""Maximum number of entries shown of a clip's ``.json``."""
_MANY = 10**7
"""Number of clips of which a random order fits into memory."""


def run(config: DictConfig) -> int:
    """Show what ``conf/show.yaml`` says; see ``show``."""
    values: Any = OmegaConf.to_container(config, resolve=True)
    return show(parse(ShowSettings, values))


def show(settings: ShowSettings) -> int:
    """Write the page; damaged clips and shards are left out and named on stderr.

    Returns:
        0, or 1 if a chosen clip or shard is damaged.

    Raises:
        ValueError: In one line, if the set or split does not exist, or the page can't be written.
    """
    index = read_index(settings.input, check_sizes=False)
    if settings.split is not None and settings.split not in index.splits:
        raise ValueError(f"split={settings.split}: the set has no such split; it has {', '.join(index.splits)}")
    faults: list[str] = []
    clips = list(_read(settings, index, faults))
    faults += [f"{clip.metadata['key']}: {clip.metadata['damage']}" for clip in clips if "damage" in clip.metadata]
    for fault in faults:
        print(printable(fault), file=sys.stderr)
    output = settings.output or settings.input / "contact_sheet.html"
    shown = [clip for clip in clips if clip.data]
    if num_large := sum("too_large" in clip.metadata for clip in clips):
        print(f"{num_large} clips are too large to be shown, and count for statistics only", file=sys.stderr)
    page = contact_sheet(str(settings.input), index, [clip.metadata for clip in clips], shown)
    try:
        with replacing(output) as file:
            file.write(page.encode())
    except OSError as error:
        raise ValueError(f"output={output}: can't be written: {error.strerror or error}") from None
    damaged = f"; {len(faults)} damaged, which `vdm-data verify` tells more about" if faults else ""
    print(f"{printable(output)}: clips shown: {len(shown)}, statistics of {len(clips)}{damaged}; open it in a browser")
    say_next(command("vdm train", data__path=settings.input))
    return int(bool(faults))


def _read(settings: ShowSettings, index: ShardIndex, faults: list[str]) -> Iterator[ShownClip]:
    """Read the metadata of randomly chosen clips, and the videos of the first of them.

    Shards that can't be read are added to ``faults``.
    """
    splits = [settings.split] if settings.split else list(index.splits)
    places = _choose(settings, index, splits)
    wanted: dict[str, list[_Place]] = {}
    for place in places:
        wanted.setdefault(place.shard.name, []).append(place)
    found: list[tuple[int, ShownClip]] = []
    with progress_bar(len(places), "reading", "clip") as bar:
        for clips in wanted.values():
            bar.update(len(clips))
            try:
                samples = read_samples(settings.input, clips[0].shard)
            except (OSError, ValueError) as error:  # the other shards are still shown
                faults.append(f"{clips[0].shard.name}: can't be shown: {error}")
                continue
            for rank, split, shard, number in clips:
                is_shown = rank < settings.max_clips
                found.append((rank, _clip(settings.input / shard.name, split, samples[number], is_shown)))
    yield from (clip for _, clip in sorted(found, key=lambda ranked: ranked[0]))


class _Place(NamedTuple):
    rank: int
    """Rank in the random order in which clips are shown."""
    split: str
    shard: ShardEntry
    number: int


def _choose(settings: ShowSettings, index: ShardIndex, splits: Sequence[str]) -> list[_Place]:
    """Choose clips at random, in memory that does not grow with the size of the set."""
    counts = np.concatenate([np.zeros(1, np.int64), *(index.splits[split].num_samples for split in splits)])
    ends = np.cumsum(counts)[1:]
    total = int(ends[-1]) if len(ends) else 0
    purpose = ("contact sheet", str(settings.split))
    if total <= _MANY:
        order = permutation(settings.seed, *purpose, total)[: settings.max_read]
    else:  # draws with replacement: a rare repetition costs one clip
        drawn = torch.randint(total, (settings.max_read,), generator=generator(settings.seed, *purpose))
        order = list(dict.fromkeys(drawn.tolist()))
    tables = [(split, number) for split in splits for number in range(len(index.splits[split]))]
    places: list[_Place] = []
    for rank, place in enumerate(order):
        one = int(np.searchsorted(ends, place, side="right"))
        split, number = tables[one]
        places.append(_Place(rank, split, index.splits[split][number], place - int(ends[one] - counts[one + 1])))
    return places


def _clip(tar: Path, split: str, sample: SampleEntry, is_shown: bool) -> ShownClip:
    """Read one clip; its metadata have an entry ``damage`` if it is damaged."""
    known = {"key": sample.key, "split": split, "shape": sample.shape}
    metadata: dict[str, Any] = dict(known)
    kind = next((name for name in (VIDEO, *PICTURES) if name in sample.members), "")
    try:
        with open_regular(tar) as file:
            labels = {
                name: read_member(file, tar.name, sample, name) for name in ("json", "txt") if name in sample.members
            }
            content = parse_metadata(labels.get("json", b"{}"))
            metadata = {**_shown_of(content), **known}
            captions = captions_of(content, labels.get("txt", b""))
            metadata["caption"] = " | ".join(captions)[:MAX_SHOWN_TEXT]
            if is_shown and kind and sample.members[kind].length > MAX_SHOWN_BYTES:
                metadata["too_large"] = True
            elif is_shown and kind:
                return ShownClip(metadata, kind, read_member(file, tar.name, sample, kind))
    except (OSError, ValueError) as error:
        return ShownClip({**metadata, "damage": str(error)}, kind, b"")
    return ShownClip(metadata, kind, b"")


def _shown_of(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of a clip's ``.json`` that the page shows: finite numbers, and texts, truncated."""
    shown: dict[str, Any] = {}
    for name, value in content.items():
        if len(shown) == MAX_SHOWN_VALUES:
            break
        if isinstance(value, str):
            shown[name[:80]] = value[:MAX_SHOWN_TEXT]
        elif isinstance(value, int | float) and abs(value) < 1e300:  # no NaN either
            shown[name[:80]] = value
    return shown
