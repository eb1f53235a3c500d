"""What becomes of a shard set's samples when it is damaged: this loader beside plain webdataset.

Each kind of damage is done to a copy of one set of 40 clips in 4 shards, of which one epoch is then read. Run with
``python benchmarks/damage.py``; it prints the table of ``docs/data.md``.
"""

import json
import shutil
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import webdataset

from data_pipelines.encode.h264 import encode_h264
from data_pipelines.encode.shard_writer import ShardWriter
from vdm.data.datamodule import ClipDataModule
from vdm.data.index import INDEX_NAME, SHARDS_NAME, ShardIndex, read_index, write_index
from vdm.data.sidecars import read_samples

NUM_SHARDS, SHARD_SIZE, SHAPE = 4, 10, (4, 32, 32)
DAMAGED = "train-000001.tar"
"""The shard that most damages are done to."""


def make_set(folder: Path, seed: int = 0) -> Path:
    """Write 40 clips of noise; the bytes of two are never the same."""
    folder.mkdir()
    generator = np.random.default_rng(seed)
    shards = []
    for number in range(NUM_SHARDS):
        with ShardWriter(folder / f"train-{number:06d}.tar", durable=False) as writer:
            for clip in range(SHARD_SIZE):
                video = generator.integers(0, 256, (*SHAPE, 3), dtype=np.uint8)
                metadata = {"caption": f"clip {clip} of shard {number}", "label": None, "fps": 8.0}
                members = {"mp4": encode_h264(video, 8.0), "json": json.dumps(metadata).encode()}
                writer.add(f"{seed}-{number}-{clip}", SHAPE, members)
        assert writer.entry is not None
        shards.append(writer.entry)
    write_index(folder, ShardIndex.of({"train": shards}, fps=8.0))
    return folder


def _place(folder: Path, sample: int) -> tuple[int, int]:
    """Return the first byte of a sample's video in the damaged shard, and the one after the last."""
    shard = next(one for one in read_index(folder, check_sizes=False).splits["train"] if one.name == DAMAGED)
    member = read_samples(folder, shard)[sample].members["mp4"]
    return member.offset, member.offset + member.length


def _cut(folder: Path, num_bytes: int) -> None:
    with (folder / DAMAGED).open("r+b") as file:
        file.truncate(num_bytes)


def _flip(folder: Path, place: int) -> None:
    with (folder / DAMAGED).open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1]))


def cut_at_edge(folder: Path) -> None:
    """Cut a shard just before the header of its fifth sample, as a copy that stops at a block would."""
    _cut(folder, _place(folder, 4)[0] - 512)


def cut_inside(folder: Path) -> None:
    """Cut a shard in the middle of its fifth video."""
    _cut(folder, sum(_place(folder, 4)) // 2)


def flip_in_header(folder: Path) -> None:
    """Flip a bit in the header before the fifth video."""
    _flip(folder, _place(folder, 4)[0] - 512 + 124)


def flip_in_payload(folder: Path) -> None:
    """Flip a bit in the fifth video."""
    _flip(folder, _place(folder, 4)[1] - 200)


def zero_blocks(folder: Path) -> None:
    """Zero 4 KiB that begin with the header of the fifth video."""
    with (folder / DAMAGED).open("r+b") as file:
        file.seek(_place(folder, 4)[0] - 512)
        file.write(bytes(4096))


def empty(folder: Path) -> None:
    """Leave a shard without a byte."""
    _cut(folder, 0)


def missing(folder: Path) -> None:
    """Delete a shard."""
    (folder / DAMAGED).unlink()


def swap(folder: Path) -> None:
    """Exchange two shards, but not their sidecars."""
    _rename(folder, {0: 1, 1: 0})


def reorder(folder: Path) -> None:
    """Number all shards anew, but not their sidecars."""
    _rename(folder, {number: (number + 1) % NUM_SHARDS for number in range(NUM_SHARDS)})


def _rename(folder: Path, new: dict[int, int]) -> None:
    for old in new:
        (folder / f"train-{old:06d}.tar").rename(folder / f"{old}.moved")
    for old, number in new.items():
        (folder / f"{old}.moved").rename(folder / f"train-{number:06d}.tar")


def index_of_another_set(folder: Path) -> None:
    """Put the index of another set, with shards of the same names, in the place of the set's own."""
    other = make_set(folder.with_name(f"{folder.name}-other"), seed=1)
    for name in (INDEX_NAME, SHARDS_NAME):
        shutil.copy(other / name, folder)
    for sidecar in other.glob("*.index.json"):
        shutil.copy(sidecar, folder)


def sidecar_of_another_shard(folder: Path) -> None:
    """Put the sidecar of one shard in the place of another's."""
    shutil.copy(folder / "train-000000.index.json", folder / DAMAGED.replace(".tar", ".index.json"))


DAMAGES: dict[str, Callable[[Path], None]] = {
    "none": lambda folder: None,
    "cut at a member's edge": cut_at_edge,
    "cut inside a member": cut_inside,
    "bit flipped in a header": flip_in_header,
    "bit flipped in a video": flip_in_payload,
    "4 KiB zeroed": zero_blocks,
    "empty shard": empty,
    "missing shard": missing,
    "two shards swapped": swap,
    "all shards re-numbered": reorder,
    "index of another set": index_of_another_set,
    "sidecar of another shard": sidecar_of_another_shard,
}


def whole_samples(damaged: Path, original: Path) -> set[str]:
    """Return the keys of samples whose files still lie, byte for byte, where the set's own index says."""
    whole: set[str] = set()
    for shard in read_index(original).splits["train"]:
        before = (original / shard.name).read_bytes()
        after = (damaged / shard.name).read_bytes() if (damaged / shard.name).exists() else b""
        whole |= {
            sample.key
            for sample in read_samples(original, shard)
            if all(
                before[m.offset : m.offset + m.length] == after[m.offset : m.offset + m.length]
                for m in sample.members.values()
            )
        }
    return whole


@dataclass(frozen=True)
class Outcome:
    """What one epoch of a damaged set gave."""

    right: frozenset[str]
    """Keys of samples that came as they were written."""
    wrong: int
    """Samples that came with other bytes than were written, without a word."""
    said: str
    """What a user would see."""


def read_by_loader(folder: Path, report: Path) -> tuple[Outcome, list[dict[str, str]]]:
    """Read an epoch through this project's loader; return what came, and the report of what did not."""
    try:
        ClipDataModule(folder, 10, 10, num_workers=0, max_validation_clips=0).check()
        said = ""
    except ValueError as error:
        said = str(error)
    data = ClipDataModule(
        folder,
        global_batch_size=10,
        micro_batch_size=10,
        num_workers=0,
        max_validation_clips=0,
        check_shards=False,
        max_bad_fraction=1.0,
        quarantine_path=report,
    )
    data.check()
    batches = islice(data.train_dataloader(), data.num_train_samples // 10)
    used = [
        key for batch in batches for key, weight in zip(batch.keys, batch.weights.tolist(), strict=True) if weight > 0
    ]
    assert len(used) == len(set(used))
    faults = [json.loads(line) for line in report.read_text().splitlines()] if report.exists() else []
    return Outcome(frozenset(used), 0, said), faults


def read_by_webdataset(folder: Path, original: Path) -> Outcome:
    """Read an epoch through plain webdataset, told to warn of what it can't read and to go on."""
    videos = {
        sample["__key__"]: sample["mp4"]
        for shard in sorted(original.glob("*.tar"))
        for sample in webdataset.WebDataset(str(shard), shardshuffle=False, empty_check=False)
    }
    urls = [str(folder / shard.name) for shard in read_index(original).splits["train"]]
    right: set[str] = set()
    wrong = 0
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for sample in webdataset.WebDataset(
            urls, shardshuffle=False, empty_check=False, handler=webdataset.warn_and_continue
        ):
            if sample.get("mp4") == videos.get(sample["__key__"], b""):
                right.add(sample["__key__"])
            else:
                wrong += 1
    said = [str(one.message) for one in caught if not issubclass(one.category, ResourceWarning)]
    return Outcome(frozenset(right), wrong, said[0] if said else "")


def main() -> None:
    """Print the table."""
    num_samples = NUM_SHARDS * SHARD_SIZE
    print(
        "| damage | whole | used here | named in the report | refused at the start | webdataset: right | wrong | says |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        original = make_set(root / "original")
        for number, (damage, inflict) in enumerate(DAMAGES.items()):
            folder = root / str(number)
            shutil.copytree(original, folder)
            inflict(folder)
            whole = whole_samples(folder, original)
            outcome, _ = read_by_loader(folder, root / f"{number}.jsonl")
            plain = read_by_webdataset(folder, original)
            print(
                f"| {damage} | {len(whole)} | {len(outcome.right)} | {num_samples - len(outcome.right)} | "
                f"{'yes' if outcome.said else 'no'} | {len(plain.right)} | {plain.wrong} | "
                f"{'a warning' if plain.said else 'nothing'} |"
            )


if __name__ == "__main__":
    main()
