"""Every kind of damage: named, one line at the start where it shows there, and all that is whole is used."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.damage import DAMAGED, DAMAGES, make_set, read_by_loader, read_by_webdataset, whole_samples
from vdm.data.index import read_index
from vdm.data.sidecars import read_samples

SEEN_AT_THE_START = {
    "cut at a member's edge": "bytes where the index records",
    "cut inside a member": "bytes where the index records",
    "empty shard": "bytes where the index records",
    "missing shard": "this shard of the index is missing",
    "two shards swapped": "does not hold the samples that the index records",
    "all shards re-numbered": "does not hold the samples that the index records",
    "index of another set": "does not hold the samples that the index records",
    "sidecar of another shard": "does not hold the samples that the index records",
}
LISTS_OF_OTHERS = {"index of another set": 0, "sidecar of another shard": 30}
"""Damages to what says where samples lie, and how many samples it still says that of."""


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_set(tmp_path_factory.mktemp("damage") / "original")


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset leaves its files to the garbage collector
@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_is_named_and_what_is_whole_is_used(damage: str, original: Path, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    shutil.copytree(original, folder)
    inflict: Callable[[Path], None] = DAMAGES[damage]
    inflict(folder)
    outcome, faults = read_by_loader(folder, tmp_path / "quarantine.jsonl")

    assert SEEN_AT_THE_START.get(damage, "") in outcome.said
    assert bool(outcome.said) == (damage in SEEN_AT_THE_START)
    assert "\n" not in outcome.said
    if damage in LISTS_OF_OTHERS:
        assert len(outcome.right) == LISTS_OF_OTHERS[damage]
        assert len(faults) == 40 - len(outcome.right)
        return
    whole = whole_samples(folder, original)
    assert outcome.right == whole
    lost = {
        (shard.name, sample.key, sample.members["mp4"].offset)
        for shard in read_index(original).splits["train"]
        for sample in read_samples(original, shard)
        if sample.key not in whole
    }
    assert {(fault["shard"], fault["key"], fault["offset"]) for fault in faults} == lost
    assert all(fault["reason"].startswith(fault["shard"]) or fault["shard"] in fault["reason"] for fault in faults)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_plain_webdataset_loses_samples_of_a_shard_cut_at_an_edge_without_a_word(
    original: Path, tmp_path: Path
) -> None:
    """The comparison in the documentation holds only as long as this does."""
    folder = tmp_path / "set"
    shutil.copytree(original, folder)
    DAMAGES["cut at a member's edge"](folder)
    plain = read_by_webdataset(folder, original)
    assert (len(plain.right), plain.said) == (34, "")


def test_a_shard_with_one_bad_sample_is_not_refused(original: Path, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    shutil.copytree(original, folder)
    shard = next(one for one in read_index(folder).splits["train"] if one.name == DAMAGED)
    first = read_samples(folder, shard)[0].members["mp4"]
    with (folder / DAMAGED).open("r+b") as file:
        file.seek(first.offset)
        file.write(bytes(first.length))
    outcome, faults = read_by_loader(folder, tmp_path / "quarantine.jsonl")
    assert outcome.said == ""
    assert len(outcome.right) == 39
    assert len(faults) == 1
