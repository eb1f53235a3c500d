"""From parts, one a source, to the shards of both splits and their index."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from data_pipelines.executors.base import Executor
from data_pipelines.parts import Part, read_part
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
"""Names of the files that are replaced when a set is written anew; others that lie there stay."""


@dataclass(frozen=True)
class Stored:
    """What encoders have made of clips and captions, to be stored beside them."""

    latents: StoredLatents | None = None
    text: StoredText | None = None
    texts: Mapping[str, Path] = field(default_factory=dict)
    """By name of the source: a safetensors file with the embeddings of its clips, ``KEY/tokens`` and ``KEY/pooled``."""
    empty_text: bytes = b""
    """Content of ``EMPTY_TEXT_NAME``."""


def choose_splits(
    names: Sequence[str], validation_fraction: float, seed: int, recordings: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Give each source a split by a random number that depends on its name and the seed alone.

    Sources of one recording get the same split, by the name of the recording; see ``Inputs``. Where chance would leave
    a split without a recording, the one nearest to it goes there, so that two suffice for training and validation. With
    ``validation_fraction`` 0 all are for training.
    """
    whole = {name: (recordings or {}).get(name, name) for name in names}
    wholes = list(dict.fromkeys(whole.values()))
    numbers = dict(zip(wholes, uniform(seed, "split", wholes).tolist(), strict=True)) if names else {}
    validation = {name for name, number in numbers.items() if number < validation_fraction}
    if len(numbers) > 1 and validation_fraction > 0:
        validation |= {min(numbers, key=numbers.__getitem__)}
    if len(validation) == len(numbers) > 0:
        validation -= {max(numbers, key=numbers.__getitem__)}
    return {name: "validation" if whole[name] in validation else "train" for name in names}


def plan_shards(
    parts: Sequence[Part],
    splits: Mapping[str, str],
    inputs: Inputs[Source],
    settings: SetSettings,
    stored: Stored,
    folder: Path,
) -> dict[str, list[ShardPlan]]:
    """Say what each shard of each split is to hold.

    The clips of a split are shuffled over its shards, so that neighbours in a shard are not of one video.

    Args:
        parts: In the order of the sources.
        splits: By name of the source.
        inputs: Captions and labels.
        settings: Of the set.
        stored: What is to lie beside the clips.
        folder: Holds the parts.
    """
    plans: dict[str, list[ShardPlan]] = {}
    for split in SPLITS:
        chosen = [part for part in parts if splits.get(part.source) == split]
        clips = [clip for part in chosen for clip in _planned_clips(part, inputs, stored, folder)]
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


def _planned_clips(part: Part, inputs: Inputs[Source], stored: Stored, folder: Path) -> Iterator[PlannedClip]:
    for sample in read_part(part, folder):
        annotation = inputs.annotations.get(sample.key) or inputs.annotations.get(part.source)
        label = inputs.labels.index(annotation.label) if annotation and annotation.label else None
        yield PlannedClip(part.source, sample, annotation, label, stored.texts.get(part.source))


def write_shards(
    plans: Mapping[str, Sequence[ShardPlan]], folder: Path, fresh: Path, executor: Executor, claims: Path
) -> dict[str, tuple[tuple[ShardEntry, int], ...]]:
    """Write all shards into ``fresh``, those apart that are there already; of the others as many as can be written.

    Args:
        plans: By split.
        folder: Holds the parts.
        fresh: Holds the new shards of this plan, and of no other.
        executor: Where this is done.
        claims: See ``Executor.run``.

    Returns:
        By split, what the index is to say of each shard, and how many of its clips have no caption.

    Raises:
        ValueError: If a shard can't be written.
    """
    fresh.mkdir(exist_ok=True)
    missing = {plan.name: plan for split in plans.values() for plan in split if not is_written(plan, fresh)}
    work = partial(write_shard, folder=folder, fresh=fresh)
    faults: dict[str, str] = {}
    with progress_bar(sum(len(plan.clips) for plan in missing.values()), "writing shards", "clip") as bar:
        for name, fault in executor.run(work, missing, claims):
            if fault is not None:
                faults[name] = fault
            bar.update(len(missing[name].clips))
    for name, fault in sorted(faults.items()):
        raise ValueError(f"{name}: could not be written: {fault}; run the same command again")
    return {split: tuple(read_entry(plan, fresh) for plan in planned) for split, planned in plans.items()}


def publish(index: ShardIndex, empty_text: bytes, fresh: Path, output: Path) -> None:
    """Replace the shards of the set, which has no index meanwhile; the parts are there to begin again from.

    May be cut off and done again: what has been moved by then stays.
    """
    (output / INDEX_NAME).unlink(missing_ok=True)
    names = {name for shard in index.shards() for name in (shard.name, sidecar_name(shard.name))}
    for split in SPLITS:
        for old in output.glob(f"{split}-*"):
            if not _OWN.fullmatch(old.name):
                continue
            if old.name not in names or (fresh / old.name).exists():
                old.unlink()
    for name in names:
        if (fresh / name).exists():
            (fresh / name).rename(output / name)
    if index.text is None:
        (output / EMPTY_TEXT_NAME).unlink(missing_ok=True)
    else:
        with replacing(output / EMPTY_TEXT_NAME) as file:
            file.write(empty_text)
    write_index(output, index)
