"""``vdm-data build`` into a set that is there: changed inputs, interruptions and damage."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_pipelines import assemble, encoded_sources, shard_set
from data_pipelines.assemble import plan_shards
from data_pipelines.encode.h264 import encode_h264
from data_pipelines.executors.slurm import SlurmExecutor
from tests.data_pipelines.built_sets import content_of, metadata_of
from tests.data_pipelines.conftest import Build
from tests.data_pipelines.videos import gray_frames, write_h264
from vdm.data.index import ShardIndex, read_index
from vdm.data.shards import EMPTY_TEXT_NAME, StoredText


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Grows by one with every clip that is encoded."""
    calls: list[float] = []

    def counted(video: Any, fps: float) -> bytes:
        calls.append(fps)
        return encode_h264(video, fps)

    monkeypatch.setattr(encoded_sources, "encode_h264", counted)
    return calls


def test_second_build_encodes_and_writes_nothing(run_build: Build, shards: Path, encoded: list[float]) -> None:
    first = run_build()
    content, count = content_of(shards), len(encoded)
    times = {path: path.stat().st_mtime_ns for path in shards.iterdir()}

    second = run_build()

    assert second.out == first.out
    assert (len(encoded), content_of(shards)) == (count, content)
    assert {path: path.stat().st_mtime_ns for path in shards.iterdir()} == times


def test_new_file_is_added_without_encoding_the_others(
    run_build: Build, videos: Path, shards: Path, encoded: list[float]
) -> None:
    run_build()
    encoded.clear()
    write_h264(videos / "d.mp4", gray_frames(8))

    run_build()

    assert len(encoded) == 2
    assert read_index(shards).num_samples("train") == 10


def test_changed_file_is_cut_again(run_build: Build, videos: Path, shards: Path, encoded: list[float]) -> None:
    run_build()
    encoded.clear()
    write_h264(videos / "b.mp4", gray_frames(8))

    run_build()

    assert len(encoded) == 2


def test_removed_file_leaves_the_set(run_build: Build, videos: Path, shards: Path, encoded: list[float]) -> None:
    run_build()
    encoded.clear()
    (videos / "a.mp4").unlink()

    run_build()

    sources = {m["source"] for split in ("train", "validation") for m in metadata_of(shards, split)}
    assert (sources, encoded) == ({"b.mp4", "sub/c.mp4"}, [])


def test_changed_caption_is_written_without_encoding(
    run_build: Build, videos: Path, shards: Path, encoded: list[float]
) -> None:
    (videos / "a.txt").write_text("before")
    run_build()
    encoded.clear()
    (videos / "a.txt").write_text("after")

    run_build()

    captions = {m["caption"] for split in ("train", "validation") for m in metadata_of(shards, split)}
    assert (captions, encoded) == ({"after", ""}, [])


def test_lost_shard_is_made_again_as_it_was(run_build: Build, shards: Path) -> None:
    run_build()
    content = content_of(shards)
    (shards / "validation-000000.tar").unlink()

    run_build()

    assert content_of(shards) == content


@pytest.mark.parametrize("fatal_call", [3, 7])
def test_interrupted_build_goes_on_where_it_stopped(
    run_build: Build, shards: Path, encoded: list[float], monkeypatch: pytest.MonkeyPatch, fatal_call: int
) -> None:
    counted = encoded_sources.encode_h264

    def interrupted(video: Any, fps: float) -> bytes:
        if len(encoded) == fatal_call:
            raise KeyboardInterrupt
        return counted(video, fps)

    with monkeypatch.context() as patch:
        patch.setattr(encoded_sources, "encode_h264", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_build()
    encoded.clear()
    run_build()

    finished_clips = fatal_call // 4 * 4  # whole files only
    assert len(encoded) == 12 - finished_clips
    assert sum(read_index(shards).num_samples(split) for split in ("train", "validation")) == 12
    assert not (shards / ".parts").exists()


def test_build_interrupted_while_writing_shards_is_completed(
    run_build: Build, shards: Path, encoded: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(output: object, index: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(assemble, "write_index", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_build()
    with pytest.raises(ValueError, match=r"has no index.json"):
        read_index(shards)
    encoded.clear()
    run_build()

    assert (encoded, read_index(shards).num_samples("train")) == ([], 8)


def _flip_in_clip(part: Path) -> None:
    data = bytearray(part.read_bytes())
    data[600] ^= 1
    part.write_bytes(data)


@pytest.mark.parametrize(
    ("pattern", "damage", "num_files"),
    [
        ("[bc]-*.tar", _flip_in_clip, 2),
        ("a-*.tar", lambda path: path.write_bytes(b""), 1),
        ("a-*.index.json", lambda path: path.write_bytes(b""), 1),
        ("a-*.index.json", lambda path: path.write_bytes(b'{"samples": []}'), 1),
    ],
)
def test_parts_damaged_by_a_power_failure_are_made_anew(
    run_build: Build,
    shards: Path,
    encoded: list[float],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    pattern: str,
    damage: Callable[[Path], object],
    num_files: int,
) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    run_build(output=tmp_path / "undamaged")
    with monkeypatch.context() as patch:
        patch.setattr(shard_set, "plan_shards", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_build()
    damaged = list((shards / ".parts").glob(pattern))
    for path in damaged:
        damage(path)
    encoded.clear()

    assert run_build().code == 0

    assert len(damaged) == num_files
    assert len(encoded) == 4 * num_files
    assert content_of(shards) == content_of(tmp_path / "undamaged")


@pytest.mark.parametrize("damage", [_flip_in_clip, Path.unlink])
def test_parts_damaged_after_an_array_made_them_are_made_anew_by_the_same_array(
    run_build: Build, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Path], object]
) -> None:
    def executor(num_workers: int | None) -> SlurmExecutor:
        return SlurmExecutor(num_tasks=1, cpus_per_task=1, alive_seconds=0.1, dead_seconds=1)

    def damaging(*arguments: Any) -> Any:
        if not damaged:
            damaged.extend((shards / ".parts").glob("[bc]-*.tar"))
            for path in damaged:
                damage(path)
        return plan_shards(*arguments)

    damaged: list[Path] = []
    run_build(output=tmp_path / "undamaged")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "3")
    monkeypatch.setattr("data_pipelines.build.LocalExecutor", executor)
    monkeypatch.setattr(shard_set, "plan_shards", damaging)

    outcome = run_build()

    assert (outcome.code, len(damaged)) == (0, 2), outcome.err
    assert content_of(shards) == content_of(tmp_path / "undamaged")


def test_embedding_of_the_empty_caption_is_there_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    index = ShardIndex({}, text=StoredText({}, 4, ""))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full_disk)
        with pytest.raises(OSError, match="No space left"):
            assemble.publish(index, b"empty", tmp_path / "fresh", tmp_path)
    assert not (tmp_path / EMPTY_TEXT_NAME).exists()

    assemble.publish(index, b"empty", tmp_path / "fresh", tmp_path)
    assert (tmp_path / EMPTY_TEXT_NAME).read_bytes() == b"empty"
