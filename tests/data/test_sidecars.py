"""Sidecars of shards, and the members that they list."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from tests.data.small_set import CONTENT, SAMPLE, write_small_set
from vdm.data import shards, sidecars
from vdm.data.member_checks import DamagedSample, read_member
from vdm.data.shards import Member


def test_sidecar_at_odds_with_the_index_is_reported(tmp_path: Path) -> None:
    shard = write_small_set(tmp_path).splits["train"][0]
    sidecars.write_samples(tmp_path, shard.name, [SAMPLE, SAMPLE])

    with pytest.raises(ValueError, match=r"train-000000.index.json: lists 2 samples where the index counts 1"):
        sidecars.read_samples(tmp_path, shard)


def test_sidecar_of_a_sample_without_files_is_reported(tmp_path: Path) -> None:
    shard = write_small_set(tmp_path).splits["train"][0]
    sidecars.write_samples(tmp_path, shard.name, [dataclasses.replace(SAMPLE, members={})])

    with pytest.raises(ValueError, match=r"train-000000.index.json: a would have no files; "):
        sidecars.read_samples(tmp_path, shard)


@pytest.mark.parametrize("place", [(-1, 5), (2, -5), (2, 11), (13, 0), (1 << 50, 1 << 50)])
def test_sidecar_of_places_outside_of_the_shard_is_reported(tmp_path: Path, place: tuple[int, int]) -> None:
    shard = write_small_set(tmp_path).splits["train"][0]
    sample = dataclasses.replace(SAMPLE, members={"mp4": Member(*place, shards.checksum(b""))})
    sidecars.write_samples(tmp_path, shard.name, [sample])

    with pytest.raises(ValueError, match=rf"a.mp4 would have {place[1]} bytes from byte {place[0]} on, .* has 12; .*$"):
        sidecars.read_samples(tmp_path, shard)


@pytest.mark.parametrize(
    "text",
    [
        '{"samples": [{"key": 3}]}',
        '{"samples": [[1]]}',
        "{}",
        "[",
        '{"samples": [{"key": "a", "shape": [1, 1, 1], "members": {"mp4": [0, 1e999, "00"]}}]}',
        '{"samples": ' + "[" * 10**5,
        '{"samples": [{"key": "a", "shape": [1, 1, 1], "members": {"mp4": [0, 1, "00"]}}]}',
        '{"samples": [{"key": "a", "shape": [1, 1, 1], "members": {"mp4": [0, 1]}}]}',
    ],
)
def test_unusable_sidecar_is_reported(tmp_path: Path, text: str) -> None:
    shard = write_small_set(tmp_path).splits["train"][0]
    (tmp_path / "train-000000.index.json").write_text(text)

    with pytest.raises(ValueError, match=r"^\S*train-000000.index.json: is not"):
        sidecars.read_samples(tmp_path, shard)


def test_member_is_read_by_its_place(tmp_path: Path) -> None:
    write_small_set(tmp_path)

    with (tmp_path / "train-000000.tar").open("rb") as file:
        assert read_member(file, "train-000000.tar", SAMPLE, "mp4") == b"cdefg"


@pytest.mark.parametrize(
    ("content", "extension", "reason"),
    [
        (b"abXdefghijkl", "mp4", "checksum is not the one in the index"),
        (b"abcd", "mp4", "2 bytes where the index records 5"),
        (b"abcdefghiXkl", "json", "checksum is not the one in the index"),
        (CONTENT, "txt", "has no member .txt"),
    ],
)
def test_damaged_member_names_shard_key_and_reason(tmp_path: Path, content: bytes, extension: str, reason: str) -> None:
    (tmp_path / "t.tar").write_bytes(content)

    with (tmp_path / "t.tar").open("rb") as file, pytest.raises(DamagedSample, match=reason) as error:
        read_member(file, "t.tar", SAMPLE, extension)

    assert str(error.value).startswith("t.tar: ")
    assert re.search(r"\ba\b", str(error.value))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, "the sidecar has version 2, this program reads 1"),
        ({"samples": {}}, "a dict is no list"),
        ({"samples": [{"key": 3, "shape": [1, 1, 1], "members": {}}]}, "3 is no text"),
        ({"samples": [{"key": "\ud800", "shape": [1, 1, 1], "members": {}}]}, "surrogates not allowed"),
        ({"samples": [{"key": "a", "shape": [1, 1, -1], "members": {}}]}, "-1 is no whole number"),
        ({"samples": [{"key": "a", "shape": [True, 1, 1], "members": {}}]}, "True is no whole number"),
        ({"samples": [{"key": "a", "shape": [1, 1, 1], "members": {"mp4": [0.5, 1, "00" * 16]}}]}, "0.5 is no whole"),
        ({"samples": [{"key": "a", "shape": [1, 1, 1], "members": {}, "fps": 0}]}, "0 is no number above 0"),
    ],
)
def test_a_sidecar_is_read_as_typed_values(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    shard = write_small_set(tmp_path).splits["train"][0]
    path = tmp_path / "train-000000.index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ValueError, match=re.escape(message)):
        sidecars.read_samples(tmp_path, shard)
