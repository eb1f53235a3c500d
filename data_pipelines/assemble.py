"""From encoded sources to the shards of both splits and their index."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from data_pipelines.encoded_sources import EncodedSource, read_encoded
from data_pipelines.executors.base import Executor
from data_pipelines.progress import progress_bar
from data_pipelines.settings import SetSettings
from data_pipelines.sources import Inputs, Source
from data_pipelines.write_shard import PlannedClip, ShardPlan, is_written, read_entry, write_shard
from vdm.data.index import INDEX_NAME, ShardIndex, write_index
from vdm.data.shards import EMPTY_TEXT_NAME, ShardEntry, StoredLatents, StoredText
from vdm.data.sidecars import sidecar_name
from vdm.files import replacing
from vdm.randomness import permutation, uniform

SPLITS = ("train", "validation")
_OWN = re.compile(rf"({'|'.join(SPLITS)})-\d{{6,}}\.(tar|index\.json)")
"""Names of the files that are replaced when a set is written again; all other files stay."""


@dataclass(frozen=True)
class StoredEncodings:
    """Latents and text embeddings that are stored beside the clips."""

    latents: StoredLatents | None = None
    text: StoredText | None = None
    texts: Mapping[str, Path] = field(default_factory=dict)
    """By name of the source: a safetensors file with its clips' text embeddings, ``KEY/tokens`` and ``KEY/pooled``."""
    empty_text: bytes = b""
    """Content of ``EMPTY_TEXT_NAME``."""


def choose_splits(
    names: Sequence[str], validation_fraction: float, seed: int, recordings: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Assign each source to a split, by a random number that depends on its name and the seed alone.

    Sources of one recording go to the same split, by the name of the recording; see ``Inputs``. If chance leaves a
    split empty, the recording whose number is nearest to it goes there, so that two recordings suffice for two splits.
    With ``validation_fraction`` 0 all sources are for training.
    """
    recording_of = {name: (recordings or {}).get(name, name) for name in names}
    distinct = list(dict.fromkeys(recording_of.values()))
    numbers = dict(zip(distinct, uniform(seed, "split", distinct).tolist(), strict=True)) if names else {}
    validation = {name for name, number in numbers.items() if number < validation_fraction}
    if len(numbers) > 1 and validation_fraction > 0:
        validation |= {min(numbers, key=numbers.__getitem__)}
    if len(validation) == len(numbers) > 0:
        validation -= {max(numbers, key=numbers.__getitem__)}
    return {name: "validation" if recording_of[name] in validation else "train" for name in names}


def plan_shards(
    encoded_sources: Sequence[EncodedSource],
    splits: Mapping[str, str],
    inputs: Inputs[Source],
    settings: SetSettings,
    stored: StoredEncodings,
    folder: Path,
) -> dict[str, list[ShardPlan]]:
    """Distribute the clips of each split over shards.

    The clips of a split are shuffled first, so that a shard mixes clips of many videos.

    Args:
        encoded_sources: In the order of the sources.
        splits: Split by name of the source.
        inputs: Captions and labels.
        settings: Settings of the set.
        stored: Latents and text embeddings that are stored beside the clips.
        folder: Folder of the encoded sources.

    Returns:
        The planned shards, by split.
    """
    plans: dict[str, list[ShardPlan]] = {}
    for split in SPLITS:
        chosen = [encoded for encoded in encoded_sources if splits.get(encoded.source) == split]
        clips = [clip for encoded in chosen for clip in _planned_clips(encoded, inputs, stored, folder)]
        order = permutation(settings.seed, "order in shards", split, len(clips))
        starts = range(0, len(order), settings.samples_per_shard)
        plans[split] = [
            ShardPlan(
                f"{split}-{number:06d}.tar",
                tuple(clips[place] for place in order[start : start + settings.samples_per_shard]),
            )
            for number, start in enumerate(starts)
        ]
    return plans


def _planned_clips(
    encoded: EncodedSource, inputs: Inputs[Source], stored: StoredEncodings, folder: Path
) -> Iterator[PlannedClip]:
    for sample in read_encoded(encoded, folder):
        annotation = inputs.annotations.get(sample.key) or inputs.annotations.get(encoded.source)
        label = inputs.labels.index(annotation.label) if annotation and annotation.label else None
        yield PlannedClip(encoded.source, sample, annotation, label, stored.texts.get(encoded.source))


def write_shards(
    plans: Mapping[str, Sequence[ShardPlan]], folder: Path, staging: Path, executor: Executor, locks: Path
) -> dict[str, tuple[tuple[ShardEntry, int], ...]]:
    """Write all shards into ``staging``, except those that already exist. A failed shard does not stop the others.

    Args:
        plans: The planned shards, by split.
        folder: Folder of the encoded sources.
        staging: Folder for the shards of this plan, and of no other.
        executor: Does the work.
        locks: See ``Executor.run``.

    Returns:
        By split, the index entry of each shard and its number of clips without a caption.

    Raises:
        ValueError: If a shard could not be written.
    """
    staging.mkdir(exist_ok=True)
    missing = {plan.name: plan for split in plans.values() for plan in split if not is_written(plan, staging)}
    work = partial(write_shard, folder=folder, staging=staging)
    faults: dict[str, str] = {}
    with progress_bar(sum(len(plan.clips) for plan in missing.values()), "writing shards", "clip") as bar:
        for name, fault in executor.run(work, missing, locks):
            if fault is not None:
                faults[name] = fault
            bar.update(len(missing[name].clips))
    for name, fault in sorted(faults.items()):
        raise ValueError(f"{name}: could not be written: {fault}; run the same command again")
    return {split: tuple(read_entry(plan, staging) for plan in planned) for split, planned in plans.items()}


def publish(index: ShardIndex, empty_text: bytes, staging: Path, output: Path) -> None:
    """Move the shards from ``staging`` into the set, in the place of its old ones, and write the index last.

    Meanwhile the set has no index. An interrupted call can be repeated: shards that were moved stay.
    """
    (output / INDEX_NAME).unlink(missing_ok=True)
    names = {name for shard in index.shards() for name in (shard.name, sidecar_name(shard.name))}
    for split in SPLITS:
        for old in output.glob(f"{split}-*"):
            if not _OWN.fullmatch(old.name):
                continue
            if old.name not in names or (staging / old.name).exists():
                old.unlink()
    for name in names:
        if (staging / name).exists():
            (staging / name).rename(output / name)
    if index.text is None:
        (output / EMPTY_TEXT_NAME).unlink(missing_ok=True)
    else:
        with replacing(output / EMPTY_TEXT_NAME) as file:
            file.write(empty_text)
    write_index(output, index)
