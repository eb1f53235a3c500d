"""From parts, one a source, to the shards of both splits and their index."""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from data_pipelines.encode.shard_writer import ShardWriter
from data_pipelines.parts import Part, read_part
from data_pipelines.progress import progress_bar
from data_pipelines.settings import BuildSettings
from data_pipelines.sources import Inputs, source_key
from vdm.data.shards import INDEX_NAME, SampleEntry, ShardEntry, ShardIndex, read_member, sidecar_name, write_index
from vdm.randomness import permutation, uniform

SPLITS = ("train", "validation")


def choose_splits(names: Sequence[str], validation_fraction: float, seed: int) -> dict[str, str]:
    """Give each source a split by a random number that depends on its name and the seed alone.

    Where chance would leave a split without a source, the source nearest to it goes there, so that two sources suffice
    for training and validation. With ``validation_fraction`` 0 all are for training.
    """
    numbers = dict(zip(names, uniform(seed, "split", names).tolist(), strict=True)) if names else {}
    validation = {name for name, number in numbers.items() if number < validation_fraction}
    if len(numbers) > 1 and validation_fraction > 0:
        validation |= {min(numbers, key=numbers.__getitem__)}
    if len(validation) == len(numbers) > 0:
        validation -= {max(numbers, key=numbers.__getitem__)}
    return {name: "validation" if name in validation else "train" for name in names}


def assemble(
    parts: Sequence[Part], splits: Mapping[str, str], inputs: Inputs, settings: BuildSettings, folder: Path
) -> ShardIndex:
    """Write all shards beside the finished ones, then put them in their place, and the index last.

    The clips of a split are shuffled over its shards, so that neighbours in a shard are not of one video.

    Args:
        parts: In the order of the sources.
        splits: By name of the source.
        inputs: Captions and labels.
        settings: Of this build.
        folder: Holds the parts; new shards are made in it.
    """
    fresh = folder / "shards"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    shards: dict[str, tuple[ShardEntry, ...]] = {}
    with progress_bar(sum(part.num_clips for part in parts), "writing shards", "clip") as bar:
        for split in SPLITS:
            chosen = [part for part in parts if splits.get(part.source) == split]
            shards[split] = tuple(_write_split(split, chosen, inputs, settings, folder, fresh, bar))
    index = ShardIndex(shards, inputs.labels, settings.resolved_clip().fps)
    _publish(index, fresh, settings.output)
    return index


def _write_split(
    split: str, parts: Sequence[Part], inputs: Inputs, settings: BuildSettings, folder: Path, fresh: Path, bar: tqdm
) -> Iterator[ShardEntry]:
    clips = [(part, sample) for part in parts for sample in read_part(part, folder)]
    order = permutation(settings.seed, "order in shards", split, len(clips))
    for number, start in enumerate(range(0, len(order), settings.samples_per_shard)):
        with ShardWriter(fresh / f"{split}-{number:06d}.tar") as writer:
            for place in order[start : start + settings.samples_per_shard]:
                part, sample = clips[place]
                writer.add(sample.key, sample.shape, _members(part, sample, inputs, folder))
                bar.update()
        assert writer.entry is not None
        yield writer.entry


def _members(part: Part, sample: SampleEntry, inputs: Inputs, folder: Path) -> dict[str, bytes]:
    """Read a clip from its part and complete its metadata."""
    tar = folder / f"{source_key(part.source)}.tar"
    with tar.open("rb") as file:
        video = read_member(file, str(tar), sample, "mp4")
        metadata = json.loads(read_member(file, str(tar), sample, "json"))
    if annotation := inputs.annotations.get(part.source):
        label = inputs.labels.index(annotation.label) if annotation.label else None
        metadata |= {"caption": annotation.caption, "label": label}
    return {"mp4": video, "json": json.dumps(metadata, ensure_ascii=False).encode()}


def _publish(index: ShardIndex, fresh: Path, output: Path) -> None:
    """Replace the shards of the set, which has no index meanwhile; the parts are there to begin again from."""
    (output / INDEX_NAME).unlink(missing_ok=True)
    for split in SPLITS:
        for old in [*output.glob(f"{split}-*.tar"), *output.glob(f"{split}-*.index.json")]:
            old.unlink()
    for shard in index.shards():
        for name in (shard.name, sidecar_name(shard.name)):
            (fresh / name).rename(output / name)
    write_index(output, index)
