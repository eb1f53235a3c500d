"""``vdm-data show``: a set of shards as a page to look at."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from data_pipelines.contact_sheet import ShownClip, contact_sheet
from data_pipelines.progress import progress_bar
from data_pipelines.set_settings import ShowSettings
from vdm.config.options import parse
from vdm.data.index import ShardIndex, read_index
from vdm.data.reading import PICTURES, VIDEO
from vdm.data.shards import DamagedSample, SampleEntry, ShardEntry, read_member
from vdm.data.sidecars import read_samples
from vdm.files import replacing
from vdm.randomness import permutation


def run(config: DictConfig) -> int:
    """Show what ``conf/show.yaml`` says; see ``show``."""
    values: Any = OmegaConf.to_container(config, resolve=True)
    return show(parse(ShowSettings, values))


def show(settings: ShowSettings) -> int:
    """Write the page.

    Returns:
        0.

    Raises:
        ValueError: In one line, if there is no such set or split, or the page can't be written.
    """
    index = read_index(settings.input, check_sizes=False)
    if settings.split is not None and settings.split not in index.splits:
        raise ValueError(f"split={settings.split}: the set has no such split; it has {', '.join(index.splits)}")
    clips = list(_read(settings, index))
    output = settings.output or settings.input / "contact_sheet.html"
    shown = [clip for clip in clips if clip.data]
    page = contact_sheet(str(settings.input), index, [clip.metadata for clip in clips], shown)
    try:
        with replacing(output) as file:
            file.write(page.encode())
    except OSError as error:
        raise ValueError(f"output={output}: can't be written: {error.strerror}") from None
    print(f"{output}: clips shown: {len(shown)}, statistics of {len(clips)}; open it in a browser")
    return 0


def _read(settings: ShowSettings, index: ShardIndex) -> Iterator[ShownClip]:
    """Read the metadata of a random choice of clips, and the videos of the first of them."""
    splits = [settings.split] if settings.split else list(index.splits)
    places = [
        (split, shard, number)
        for split in splits
        for shard in index.splits[split]
        for number in range(shard.num_samples)
    ]
    order = permutation(settings.seed, "contact sheet", str(settings.split), len(places))[: settings.max_read]
    wanted: dict[str, list[tuple[int, str, ShardEntry, int]]] = {}
    for rank, place in enumerate(order):
        split, shard, number = places[place]
        wanted.setdefault(shard.name, []).append((rank, split, shard, number))
    found: list[tuple[int, ShownClip]] = []
    with progress_bar(len(order), "reading", "clip") as bar:
        for clips in wanted.values():
            samples = read_samples(settings.input, clips[0][2])
            for rank, split, shard, number in clips:
                is_shown = rank < settings.max_clips
                found.append((rank, _clip(settings.input / shard.name, split, samples[number], is_shown)))
                bar.update()
    yield from (clip for _, clip in sorted(found, key=lambda ranked: ranked[0]))


def _clip(tar: Path, split: str, sample: SampleEntry, is_shown: bool) -> ShownClip:
    """Read one clip; what is damaged is shown as such."""
    metadata: dict[str, Any] = {"key": sample.key, "split": split, "shape": sample.shape}
    kind = next((name for name in (VIDEO, *PICTURES) if name in sample.members), "")
    try:
        with tar.open("rb") as file:
            if "txt" in sample.members:
                metadata["caption"] = read_member(file, tar.name, sample, "txt").decode(errors="replace")
            if "json" in sample.members:
                content = json.loads(read_member(file, tar.name, sample, "json"))
                metadata |= content if isinstance(content, dict) else {}
            data = read_member(file, tar.name, sample, kind) if is_shown and kind else b""
    except (OSError, DamagedSample, ValueError) as error:
        return ShownClip({**metadata, "damage": str(error)}, kind, b"")
    return ShownClip(metadata, kind, data)
