"""From sources to a finished set of shards: encode the clips of each source, then write the shards and the index.

Both steps resume where they were interrupted, and repeat only what has changed since.
"""

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from data_pipelines.assemble import StoredEncodings, choose_splits, plan_shards, publish, write_shards
from data_pipelines.encode.encoders import ClipEncoder
from data_pipelines.encoded_sources import EncodedSource, encode_source, find_encoded, restore_encoded
from data_pipelines.executors.base import Executor
from data_pipelines.progress import progress_bar
from data_pipelines.report import Report, digest_of, read_report, write_report
from data_pipelines.settings import SetSettings
from data_pipelines.sources import Inputs, Source, source_key
from vdm.data.index import ShardIndex, read_index
from vdm.data.shards import ShardEntry

_STAGING = "shards-"
"""Prefix of the staging folders, which hold shards that are not in the set yet; a digest follows."""
_DIGEST = re.compile("[0-9a-f]{32}")


@dataclass(frozen=True)
class SetBuild:
    """The intermediate files of one build of a set, and the executor that makes them."""

    folder: Path
    """Holds the encoded sources, and the shards until all are written."""
    locks: Path
    """See ``Executor.run``."""
    executor: Executor


@dataclass(frozen=True)
class _Staged:
    """Shards that are written but not in the set yet."""

    encoded_sources: Sequence[EncodedSource]
    """What they were written from."""
    digest: str
    """See ``Report.digest``."""
    folder: Path
    shards: Mapping[str, tuple[tuple[ShardEntry, int], ...]]
    """See ``write_shards``."""


def encode_sources(
    sources: Sequence[Source], output: Path, set_build: SetBuild, encoder: ClipEncoder | None = None
) -> list[EncodedSource]:
    """Encode every source, except those that were encoded before and are unchanged; return the records of all.

    Args:
        sources: The sources.
        output: Folder of the set, whose report lists the sources that the last build encoded.
        set_build: Where the clips are encoded and kept.
        encoder: Makes the latents that are stored beside the clips; None stores clips alone.
    """
    set_build.folder.mkdir(parents=True, exist_ok=True)
    report = read_report(output)
    reported = {(one.source, one.fingerprint): one for one in (report.encoded_sources if report else ())}
    known: dict[str, EncodedSource] = {}
    for source in sources:
        encoded = find_encoded(source.name, set_build.folder) or reported.get((source.name, source.fingerprint))
        if encoded is not None and encoded.fingerprint == source.fingerprint:
            known[source.name] = encoded
    made = _encode([source for source in sources if source.name not in known], set_build, encoder)
    return [(known | made)[source.name] for source in sources]


def _encode(sources: Sequence[Source], set_build: SetBuild, encoder: ClipEncoder | None) -> dict[str, EncodedSource]:
    """Encode every source; return the records by name of the source.

    The executor may report a source as done whose files are missing: an earlier task of this SLURM array encoded it,
    and the files were removed later because they were damaged. It is encoded once more, under locks of its own.
    """
    found: dict[str, EncodedSource] = {}
    num_clips = 0
    items = {f"{source_key(source.name)}-{source.fingerprint}": source for source in sources}
    work = partial(encode_source, folder=set_build.folder, encoder=encoder)
    with progress_bar(len(sources), "cutting clips", "file") as bar:
        for attempt in ("encode", "encode-again"):
            missing: dict[str, Source] = {}
            for name, fault in set_build.executor.run(work, items, set_build.locks / attempt):
                source = items[name].name
                encoded = find_encoded(source, set_build.folder) if fault is None else None
                if encoded is None and fault is None:
                    missing[name] = items[name]
                    continue
                found[source] = encoded or EncodedSource(source, fingerprint="", keys=(), fault=fault)
                num_clips += found[source].num_clips
                bar.set_postfix(clips=num_clips, refresh=False)
                bar.update()
            items = missing
    lost = "its encoded clips were damaged or missing twice; run the same command again"
    return found | {one.name: EncodedSource(one.name, fingerprint="", keys=(), fault=lost) for one in items.values()}


def write_set(
    encoded_sources: Sequence[EncodedSource],
    inputs: Inputs[Source],
    settings: SetSettings,
    set_build: SetBuild,
    stored: StoredEncodings | None = None,
    encoder: ClipEncoder | None = None,
) -> ShardIndex:
    """Write the shards of both splits, then the index; do nothing if the set is complete and unchanged.

    Args:
        encoded_sources: One record a source, in order.
        inputs: What they were made from.
        settings: Settings of the set.
        set_build: Where the shards are written.
        stored: Latents and text embeddings that are stored beside the clips.
        encoder: Made the latents; needed where encoded sources were lost and are encoded again.
    """
    stored, executor, locks = stored or StoredEncodings(), set_build.executor, set_build.locks
    names = [encoded.source for encoded in encoded_sources if encoded.num_clips]
    splits = choose_splits(names, settings.validation_fraction, settings.seed, inputs.recordings)
    digest = digest_of(encoded_sources, inputs, settings, stored)
    if (index := _finished_index(settings.output, digest)) is not None:
        return index
    restore = partial(_restore, encoded_sources, settings.output, set_build.folder)
    executor.once(restore, f"restore-{digest}", locks)

    def stage(attempt: str) -> _Staged:
        complete = _encode_lost(encoded_sources, inputs.sources, set_build, encoder)
        digest = digest_of(complete, inputs, settings, stored)
        staging = set_build.folder / f"{_STAGING}{digest}"
        plans = plan_shards(complete, splits, inputs, settings, stored, set_build.folder)
        shards = write_shards(plans, set_build.folder, staging, executor, locks / f"{attempt}-{digest}")
        return _Staged(complete, digest, staging, shards)

    try:
        staged = stage("write")
    except ValueError:  # damaged encoded sources were found and removed; encode them again
        staged = stage("rewrite")
    index = ShardIndex.of(
        {split: [entry for entry, _ in written] for split, written in staged.shards.items()},
        labels=inputs.labels,
        fps=settings.fps,
        latents=stored.latents,
        text=stored.text,
        num_uncaptioned={split: sum(without for _, without in written) for split, written in staged.shards.items()},
    )

    def finish() -> None:
        publish(index, stored.empty_text, staged.folder, settings.output)
        write_report(settings.output, Report(tuple(staged.encoded_sources), splits, staged.digest), inputs)
        for old in set(set_build.folder.glob(f"{_STAGING}*")) - {staged.folder}:
            if _DIGEST.fullmatch(old.name.removeprefix(_STAGING)) and not old.is_symlink():
                shutil.rmtree(old)

    executor.once(finish, f"publish-{staged.digest}", locks)
    return index


def _is_lost(encoded: EncodedSource, folder: Path) -> bool:
    """Whether a source has clips whose intermediate files are missing or changed."""
    return bool(encoded.num_clips) and find_encoded(encoded.source, folder) != encoded


def _restore(encoded_sources: Sequence[EncodedSource], output: Path, folder: Path) -> None:
    """Copy back those encoded sources that exist in the finished shards only."""
    restore_encoded([encoded for encoded in encoded_sources if _is_lost(encoded, folder)], output, folder)


def _encode_lost(
    encoded_sources: Sequence[EncodedSource],
    sources: Sequence[Source],
    set_build: SetBuild,
    encoder: ClipEncoder | None,
) -> list[EncodedSource]:
    """Encode again what could not be copied back; return the records of all sources."""
    lost = {encoded.source for encoded in encoded_sources if _is_lost(encoded, set_build.folder)}
    made = _encode([source for source in sources if source.name in lost], set_build, encoder)
    return [made.get(encoded.source, encoded) for encoded in encoded_sources]


def _finished_index(output: Path, digest: str) -> ShardIndex | None:
    """Return the index of a set that is complete and has this digest, else None."""
    report = read_report(output)
    if report is None or report.digest != digest:
        return None
    try:
        return read_index(output)
    except ValueError:
        return None
