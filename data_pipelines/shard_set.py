"""From sources to a finished set of shards: the clips of each source are encoded into its part, then shards written.

Both steps go on where they were interrupted, and do again only what has changed since.
"""

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from data_pipelines.assemble import Stored, choose_splits, plan_shards, publish, write_shards
from data_pipelines.encode.encoders import ClipEncoder
from data_pipelines.executors.base import Executor
from data_pipelines.parts import Part, find_part, make_part, restore_parts
from data_pipelines.progress import progress_bar
from data_pipelines.report import Report, digest_of, read_report, write_report
from data_pipelines.settings import SetSettings
from data_pipelines.sources import Inputs, Source, source_key
from vdm.data.index import ShardIndex, read_index
from vdm.data.shards import ShardEntry


@dataclass(frozen=True)
class Workshop:
    """Where a set is made."""

    parts: Path
    """Folder of the finished sources, and of shards until all are written."""
    claims: Path
    """See ``Executor.run``."""
    executor: Executor


def encode_parts(
    sources: Sequence[Source], output: Path, workshop: Workshop, encoder: ClipEncoder | None = None
) -> list[Part]:
    """Return the part of every source: kept from before where the source is unchanged, else made now."""
    workshop.parts.mkdir(parents=True, exist_ok=True)
    report = read_report(output)
    reported = {(part.source, part.fingerprint): part for part in (report.parts if report else ())}
    known: dict[str, Part] = {}
    for source in sources:
        part = find_part(source.name, workshop.parts) or reported.get((source.name, source.fingerprint))
        if part is not None and part.fingerprint == source.fingerprint:
            known[source.name] = part
    made = _make_parts([source for source in sources if source.name not in known], workshop, encoder)
    return [(known | made)[source.name] for source in sources]


def _make_parts(sources: Sequence[Source], workshop: Workshop, encoder: ClipEncoder | None) -> dict[str, Part]:
    """Make the part of every source.

    A part that counts as done, but is not there, was made by this array before, and removed when it was found damaged:
    it is made once more, which the tasks of the array must agree on anew.
    """
    parts: dict[str, Part] = {}
    num_clips = 0
    items = {f"{source_key(source.name)}-{source.fingerprint}": source for source in sources}
    work = partial(make_part, folder=workshop.parts, encoder=encoder)
    with progress_bar(len(sources), "cutting clips", "file") as bar:
        for claims in ("encode", "encode-again"):
            gone: dict[str, Source] = {}
            for name, fault in workshop.executor.run(work, items, workshop.claims / claims):
                source = items[name].name
                part = find_part(source, workshop.parts) if fault is None else None
                if part is None and fault is None:
                    gone[name] = items[name]
                    continue
                parts[source] = part or Part(source, fingerprint="", keys=(), fault=fault)
                num_clips += parts[source].num_clips
                bar.set_postfix(clips=num_clips, refresh=False)
                bar.update()
            items = gone
    lost = "what was made of it is damaged or gone, twice; run the same command again"
    return parts | {source.name: Part(source.name, fingerprint="", keys=(), fault=lost) for source in items.values()}


def write_set(
    parts: Sequence[Part],
    inputs: Inputs[Source],
    settings: SetSettings,
    workshop: Workshop,
    stored: Stored | None = None,
    encoder: ClipEncoder | None = None,
) -> ShardIndex:
    """Write the shards of both splits, and the index last; nothing is done where they are there already.

    Args:
        parts: One a source, in order.
        inputs: What they were made from.
        settings: Of the set.
        workshop: Where this is done.
        stored: What is to lie beside the clips.
        encoder: What made the latents, for parts that were lost and are made again.
    """
    stored, executor, claims = stored or Stored(), workshop.executor, workshop.claims
    names = [part.source for part in parts if part.num_clips]
    splits = choose_splits(names, settings.validation_fraction, settings.seed, inputs.recordings)
    digest = digest_of(parts, inputs, settings, stored)
    if (index := _finished_index(settings.output, digest)) is not None:
        return index
    executor.once(partial(_restore, parts, settings.output, workshop.parts), f"restore-{digest}", claims)

    def write(attempt: str) -> tuple[list[Part], str, Path, dict[str, tuple[tuple[ShardEntry, int], ...]]]:
        whole = _completed(parts, inputs.sources, workshop, encoder)
        digest = digest_of(whole, inputs, settings, stored)
        fresh = workshop.parts / f"{_FRESH}{digest}"
        plans = plan_shards(whole, splits, inputs, settings, stored, workshop.parts)
        return (
            whole,
            digest,
            fresh,
            write_shards(plans, workshop.parts, fresh, executor, claims / f"{attempt}-{digest}"),
        )

    try:
        parts, digest, fresh, shards = write("write")
    except ValueError:  # parts were damaged; they are removed, and made anew
        parts, digest, fresh, shards = write("rewrite")
    index = ShardIndex.of(
        {split: [entry for entry, _ in written] for split, written in shards.items()},
        labels=inputs.labels,
        fps=settings.fps,
        latents=stored.latents,
        text=stored.text,
        num_uncaptioned={split: sum(without for _, without in written) for split, written in shards.items()},
    )

    def finish() -> None:
        publish(index, stored.empty_text, fresh, settings.output)
        write_report(settings.output, Report(tuple(parts), splits, digest), inputs)
        for old in set(workshop.parts.glob(f"{_FRESH}*")) - {fresh}:
            if _DIGEST.fullmatch(old.name.removeprefix(_FRESH)) and not old.is_symlink():
                shutil.rmtree(old)

    executor.once(finish, f"publish-{digest}", claims)
    return index


_FRESH = "shards-"
"""Start of the name of a folder of shards that are not in the set yet; a digest follows."""
_DIGEST = re.compile("[0-9a-f]{32}")


def _restore(parts: Sequence[Part], output: Path, folder: Path) -> None:
    """Bring those parts back that are in the finished shards only."""
    restore_parts([part for part in parts if part.num_clips and find_part(part.source, folder) != part], output, folder)


def _completed(
    parts: Sequence[Part], sources: Sequence[Source], workshop: Workshop, encoder: ClipEncoder | None
) -> list[Part]:
    """Make those parts anew that could not be brought back."""
    lost = {part.source for part in parts if part.num_clips and find_part(part.source, workshop.parts) != part}
    made = _make_parts([source for source in sources if source.name in lost], workshop, encoder)
    return [made.get(part.source, part) for part in parts]


def _finished_index(output: Path, digest: str) -> ShardIndex | None:
    """Return the index of a set that is written already, or None if it was interrupted, or a shard was lost since."""
    report = read_report(output)
    if report is None or report.digest != digest:
        return None
    try:
        return read_index(output)
    except ValueError:
        return None
