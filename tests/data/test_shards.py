"""The index of a set, and its table of shards."""

import dataclasses
import json
import os
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash

from tests.data.small_set import CONTENT, SAMPLE, write_small_set
from vdm.data import shard_table, shards, sidecars
from vdm.data.index import ShardIndex, read_index, write_index
from vdm.data.shard_table import ShardTable, is_plain_name
from vdm.data.shards import Kind, SampleEntry, ShardEntry, StoredLatents, StoredText

KINDS = {Kind((1, 2, 3)): 4, Kind((5, 6, 7), 24000 / 1001): 8}


def _entry(number: int, kinds: dict[Kind, int]) -> ShardEntry:
    digests = (shards.checksum(f"{what} {number}".encode()) for what in ("bytes", "keys"))
    return ShardEntry(f"{number:06d}.tar", 10 * number, next(digests), kinds, next(digests))


def test_index_and_sidecar_survive_writing_and_reading(tmp_path: Path) -> None:
    index = write_small_set(tmp_path)

    assert read_index(tmp_path) == index
    assert sidecars.read_samples(tmp_path, index.splits["train"][0]) == (SAMPLE,)


def test_index_without_frame_rate_survives(tmp_path: Path) -> None:
    index = dataclasses.replace(write_small_set(tmp_path), fps=None, labels=())
    write_index(tmp_path, index)

    assert read_index(tmp_path) == index


def test_index_of_stored_latents_and_text_survives(tmp_path: Path) -> None:
    latents = StoredLatents({"weights": "ab", "scaling_factor": 0.18215, "name": "vae"}, {(4, 16, 32): (4, 4, 2, 4)})
    text = StoredText({"weights": "cd", "max_tokens": 77}, channels=768, empty_checksum="ef")
    index = dataclasses.replace(write_small_set(tmp_path), latents=latents, text=text)
    write_index(tmp_path, index)

    assert read_index(tmp_path) == index


def test_a_table_gives_the_entries_and_counts_that_it_was_made_of() -> None:
    entries = [_entry(0, KINDS), _entry(1, {}), _entry(2, {Kind((5, 6, 7)): 1, Kind((1, 2, 3)): 2})]
    both = ShardTable.from_parquet(ShardTable.of(entries).to_parquet())
    for part in (slice(None), slice(1, None), slice(1), slice(1, 2)):
        table, expected = both[part], entries[part]
        assert list(table) == expected
        assert table[-1] == expected[-1]
        assert table.names == [entry.name for entry in expected]
        assert table.num_bytes.tolist() == [entry.num_bytes for entry in expected]
        assert table.num_samples.tolist() == [entry.num_samples for entry in expected]
        assert sum(table.kinds.values()) == sum(entry.num_samples for entry in expected)
        for kinds in ([Kind((1, 2, 3))], [Kind((5, 6, 7)), Kind((1, 2, 3))], [Kind((5, 6, 7), 24000 / 1001)], []):
            assert table.count(kinds).tolist() == [sum(e.kinds.get(kind, 0) for kind in kinds) for e in expected]
    assert ShardTable.joined([both[:1], both[1:]]) == both
    assert both[:1].keys != both[:2].keys != ShardTable.of(entries[1::-1]).keys


def test_samples_are_counted_by_split_and_kind() -> None:
    entry = _entry(0, KINDS)
    index = ShardIndex.of({"train": (entry, entry), "validation": ()})

    assert (entry.num_samples, index.num_samples("train"), index.num_samples("validation")) == (12, 24, 0)
    assert index.splits["train"].kinds == {kind: 2 * count for kind, count in KINDS.items()}
    for kind in KINDS:
        assert Kind.parse(kind.name) == kind


def test_a_shard_is_told_by_its_keys_and_their_order_but_not_their_bytes() -> None:
    def keys(*samples: SampleEntry) -> str:
        return shards.shard_of("a.tar", 0, "", samples).keys

    other, changed = dataclasses.replace(SAMPLE, key="b"), dataclasses.replace(SAMPLE, members={})
    assert keys(SAMPLE, other) == keys(changed, other)
    assert len({keys(SAMPLE, other), keys(other, SAMPLE), keys(SAMPLE), keys(other), keys()}) == 5


def test_checksum_is_xxh3_of_128_bits(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(CONTENT)

    expected = xxhash.xxh3_128(CONTENT).hexdigest()
    assert shards.checksum(CONTENT) == shards.file_checksum(tmp_path / "file") == expected


def _break_size(folder: Path) -> None:
    (folder / "train-000000.tar").write_bytes(CONTENT[:-1])


def _break_version(folder: Path) -> None:
    _edit_index(folder, version=99)


def _edit_index(folder: Path, **changes: object) -> None:
    content = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps(content | changes))


def _replace_shards(folder: Path, content: bytes) -> None:
    (folder / "shards.parquet").write_bytes(content)
    _edit_index(folder, shards=shards.checksum(content))


def _parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return sink.getvalue().to_pybytes()


def _table_of(name: str) -> ShardTable:
    return ShardTable.of([dataclasses.replace(_entry(0, KINDS), name=name)])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "index.json").unlink(), "has no index.json; it is a folder of tars without an index"),
        (lambda folder: (folder / "train-000000.tar").unlink(), "train-000000.tar: this shard of the index is missing"),
        (_break_size, "train-000000.tar: has 11 bytes where the index records 12"),
        (_break_version, "has version 99, this program reads 3"),
        (lambda folder: (folder / "index.json").write_text("{"), "is not JSON of a shard set"),
        (lambda folder: (folder / "index.json").write_text("[]"), "is not an index of vdm shards"),
        (lambda folder: (folder / "index.json").write_text("{}"), "is not an index of vdm shards"),
        (lambda folder: _edit_index(folder, splits=3), "is malformed"),
        (lambda folder: _edit_index(folder, splits={"train": 2}), "splits of {'train': 2} shards where shards.parquet"),
        (lambda folder: _edit_index(folder, splits={"train": 2, "validation": -1}), "is malformed"),
        (lambda folder: (folder / "shards.parquet").unlink(), "shards.parquet: no such file; build the set again"),
        (
            lambda folder: _edit_index(folder, shards="0"),
            "its checksum is not the one in index.json: it is damaged",
        ),
        (lambda folder: _replace_shards(folder, b"PAR1"), "shards.parquet: "),
        (lambda folder: _replace_shards(folder, _parquet(pa.table({"name": ["a.tar"]}))), "has the columns name where"),
        (lambda folder: _replace_shards(folder, _table_of("../a").to_parquet()), "'../a' is not a plain file name"),
        (lambda folder: _replace_shards(folder, _table_of("..").to_parquet()), "'..' is not a plain file name"),
    ],
)
def test_unusable_index_is_reported_in_one_line(tmp_path: Path, damage: object, message: str) -> None:
    write_small_set(tmp_path)
    assert callable(damage)
    damage(tmp_path)

    with pytest.raises(ValueError, match=re.escape(message)) as error:
        read_index(tmp_path)

    assert str(error.value).startswith(str(tmp_path))
    assert "\n" not in str(error.value)


def test_missing_folder_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such folder of shards; `vdm-data build"):
        read_index(tmp_path / "nowhere")


def test_index_can_be_read_without_looking_at_its_shards(tmp_path: Path) -> None:
    index = write_small_set(tmp_path)
    (tmp_path / "train-000000.tar").unlink()

    assert read_index(tmp_path, check_sizes=False) == index


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 4}, "index.json: the index has version 4, this program reads 3; it was written by a newer one"),
        ({"version": True}, "index.json: True is no whole number"),
        ({"fps": -8}, "-8 is no number above 0"),
        ({"fps": 1e999}, "inf is no number above 0"),
        ({"fps": "8"}, "'8' is no number above 0"),
        ({"labels": [1]}, "1 is no text"),
        ({"labels": {"a": 1}}, "a dict is no list"),
        ({"splits": {"train": 1.0}}, "1.0 is no whole number"),
        ({"splits": {"train": 10**400}}, "a int is no whole number"),
        ({"splits": {"x" * 10**6: 1}}, "is no text of at most"),
        ({"latents": {"version": 2}}, "what it says of latents has version 2, this program reads 1"),
        ({"latents": {"encoder": {}, "shapes": {"1x1x1": [1 << 20, 1 << 20, 1, 1]}}}, "is no whole number"),
        ({"latents": {"encoder": {}, "shapes": {"-1x1x1": [1, 1, 1, 1]}}}, "is no frames x rows x columns"),
        ({"latents": {"encoder": [], "shapes": {}}}, "a list is no object"),
        ({"text": {"version": 7}}, "what it says of text embeddings has version 7, this program reads 1"),
        ({"text": {"encoder": {}, "channels": -1, "empty_checksum": ""}}, "-1 is no whole number"),
    ],
)
def test_an_index_is_read_as_typed_values(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    write_small_set(tmp_path)
    _edit_index(tmp_path, **changes)
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        read_index(tmp_path)
    assert len(str(error.value)) < 600


@pytest.mark.parametrize("content", [b"[" * 10**6, b'{"a":' * 10**6, b"\xff" * 99])
def test_an_index_of_any_depth_is_one_line(tmp_path: Path, content: bytes) -> None:
    write_small_set(tmp_path)
    (tmp_path / "index.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"index.json: is not JSON of a shard set \("):
        read_index(tmp_path)


def test_what_is_larger_than_it_may_be_is_not_read(tmp_path: Path) -> None:
    shard = write_small_set(tmp_path).splits["train"][0]
    for name, read in (
        ("train-000000.index.json", lambda: sidecars.read_samples(tmp_path, shard)),
        ("index.json", lambda: read_index(tmp_path)),
    ):
        os.truncate(tmp_path / name, 1 << 40)
        with pytest.raises((OSError, ValueError), match="has more than the "):
            read()


@pytest.mark.parametrize("name", ["pipe:cat a", "http://a/b.tar", "a\\b.tar", "", "a\nb.tar", "x" * 300, "/etc/passwd"])
def test_a_shard_has_the_plain_name_of_a_file_in_its_folder(tmp_path: Path, name: str) -> None:
    write_small_set(tmp_path)
    _replace_shards(tmp_path, _table_of(name).to_parquet())
    with pytest.raises(ValueError, match="is not a plain file name"):
        read_index(tmp_path)
    assert not is_plain_name(name)


@pytest.mark.parametrize(
    "entry", [{"num_bytes": -1}, {"kinds": {Kind((1, 1, 1)): -1}}, {"kinds": {Kind((1, 1, 1)): 1 << 62}}]
)
def test_a_table_counts_from_zero_to_a_bound(tmp_path: Path, entry: dict[str, Any]) -> None:
    write_small_set(tmp_path)
    table = ShardTable.of([dataclasses.replace(_entry(0, KINDS), **entry)])
    _replace_shards(tmp_path, table.to_parquet())
    with pytest.raises(ValueError, match=r"below 0|more than 1000000000 samples"):
        read_index(tmp_path)


@pytest.mark.parametrize(
    "name", ["0x1x1", "-1x2x3", "1x2", "1x2x3x4", "1x2x99999999", "1x2x3@inf", "1x2x3@-1", "1e3x1x1"]
)
def test_a_kind_that_no_clip_is_of_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r" is no (frames x rows x columns|kind of clips)$"):
        Kind.parse(name)


def test_a_table_that_unpacks_to_very_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_table, "MAX_UNPACKED_BYTES", 1 << 16)
    data = ShardTable.of([dataclasses.replace(_entry(0, KINDS), name="x" * 200)] * 1000).to_parquet()
    with pytest.raises(ValueError, match="unpacks to more than 65536 bytes"):
        ShardTable.from_parquet(data)
    monkeypatch.setattr(shard_table, "MAX_SHARDS", 999)
    with pytest.raises(ValueError, match="lists 1000 shards, more than 999"):
        ShardTable.from_parquet(data)
