import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_pipelines import assemble, encoded_sources, shard_set
from data_pipelines.assemble import choose_splits, plan_shards
from data_pipelines.build import WORK_NAME
from data_pipelines.encode.h264 import encode_h264
from data_pipelines.executors.slurm import SlurmExecutor
from data_pipelines.output_folder import output_lock
from tests.data_pipelines.conftest import Build
from tests.data_pipelines.videos import gray_frames, write_h264, write_sound, write_video
from vdm.data.decoding import decode_clip
from vdm.data.index import ShardIndex, read_index
from vdm.data.shards import EMPTY_TEXT_NAME, StoredText, read_member
from vdm.data.sidecars import read_samples


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    return tmp_path / "shards"


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Grows by one with every clip that is encoded."""
    calls: list[float] = []

    def counted(video: Any, fps: float) -> bytes:
        calls.append(fps)
        return encode_h264(video, fps)

    monkeypatch.setattr(encoded_sources, "encode_h264", counted)
    return calls


def _metadata(shards: Path, split: str) -> list[dict[str, Any]]:
    """KEY.json of every clip of a split."""
    found = []
    for shard in read_index(shards).splits[split]:
        with (shards / shard.name).open("rb") as file:
            found += [json.loads(read_member(file, "", sample, "json")) for sample in read_samples(shards, shard)]
    return found


def _content(shards: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in shards.iterdir()}


def test_set_holds_every_clip_once_each_file_in_one_split(run_build: Build, shards: Path) -> None:
    outcome = run_build()

    train, validation = _metadata(shards, "train"), _metadata(shards, "validation")
    assert outcome.code == 0
    found, *following = outcome.out.splitlines()
    assert found == f"{shards}: clips: train 8, validation 4; without a caption: 12"
    assert following == [f"Next: vdm-data show {shards}", f"  or: vdm train data.path={shards}"]
    assert len({(m["source"], m["source_start_seconds"]) for m in train + validation}) == 12
    assert {m["source"] for m in train} | {m["source"] for m in validation} == {"a.mp4", "b.mp4", "sub/c.mp4"}
    assert not {m["source"] for m in train} & {m["source"] for m in validation}


def test_clips_decode_to_the_shape_in_the_index(run_build: Build, shards: Path) -> None:
    run_build()

    index = read_index(shards)
    assert index.fps == 8
    for shard in index.shards():
        with (shards / shard.name).open("rb") as file:
            for sample in read_samples(shards, shard):
                assert sample.shape == (4, 16, 16)
                assert decode_clip(read_member(file, "", sample, "mp4"), sample.shape).shape == (3, 4, 16, 16)


def test_metadata_has_every_field(run_build: Build, shards: Path) -> None:
    run_build()

    assert set(_metadata(shards, "train")[0]) == {
        *("caption", "label", "fps", "num_frames", "height", "width"),
        *("source", "source_start_seconds", "source_height", "source_width", "source_fps"),
    }


def test_captions_and_labels_come_from_manifest_and_sidecars(run_build: Build, videos: Path, shards: Path) -> None:
    (videos / "manifest.csv").write_text("file,caption,label\na.mp4,a dog,dog\nsub/c.mp4,,cat\n")
    (videos / "sub" / "c.json").write_text('{"caption": "a cat"}')
    run_build()

    index = read_index(shards)
    found = {m["source"]: (m["caption"], m["label"]) for split in index.splits for m in _metadata(shards, split)}
    assert index.labels == ("cat", "dog")
    assert found == {"a.mp4": ("a dog", 1), "b.mp4": ("", None), "sub/c.mp4": ("a cat", 0)}


def test_shards_hold_so_many_samples_at_most(run_build: Build, shards: Path) -> None:
    run_build(samples_per_shard=3)

    assert [shard.num_samples for shard in read_index(shards).splits["train"]] == [3, 3, 2]


def test_build_gives_the_same_bytes_again(run_build: Build, shards: Path, tmp_path: Path) -> None:
    run_build()
    run_build(output=tmp_path / "again", num_workers=2)

    assert _content(shards) == _content(tmp_path / "again")


def test_bad_files_are_listed_and_the_rest_goes_on(run_build: Build, videos: Path, shards: Path) -> None:
    (videos / "empty.mp4").touch()
    write_sound(videos / "sound.mp4")
    write_video(videos / "one.mkv", gray_frames(1))
    (videos / "manifest.csv").write_text("file,caption\nlost.mp4,gone\n")
    (videos / "a.json").write_text("{")
    (videos / "notes.docx").write_text("")

    outcome = run_build()

    assert outcome.code == 1
    lines = [
        line for line in outcome.err.splitlines() if ": " in line and "clip/s" not in line and "file/s" not in line
    ]
    expected = {
        "a.mp4": "a.json beside it is not JSON (Expecting property name enclosed in double quotes: line 1 column 2 "
        "(char 1))",
        "empty.mp4": "is empty (0 bytes)",
        "lost.mp4": f"is in {videos / 'manifest.csv'} but not in the folder",
        "one.mkv": "has a single frame",
        "sound.mp4": "has no video stream, sound only",
    }
    assert lines == [
        *(f"{file}: {reason}" for file, reason in expected.items()),
        "Not videos, passed over: 1 .docx",
    ]
    report = json.loads((shards / "report.json").read_text())
    assert {row["file"]: row["reason"] for row in report["faults"]} == expected
    assert read_index(shards).num_samples("train") == 8


def test_second_build_encodes_and_writes_nothing(run_build: Build, shards: Path, encoded: list[float]) -> None:
    first = run_build()
    content, count = _content(shards), len(encoded)
    times = {path: path.stat().st_mtime_ns for path in shards.iterdir()}

    second = run_build()

    assert second.out == first.out
    assert (len(encoded), _content(shards)) == (count, content)
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

    sources = {m["source"] for split in ("train", "validation") for m in _metadata(shards, split)}
    assert (sources, encoded) == ({"b.mp4", "sub/c.mp4"}, [])


def test_changed_caption_is_written_without_encoding(
    run_build: Build, videos: Path, shards: Path, encoded: list[float]
) -> None:
    (videos / "a.txt").write_text("before")
    run_build()
    encoded.clear()
    (videos / "a.txt").write_text("after")

    run_build()

    captions = {m["caption"] for split in ("train", "validation") for m in _metadata(shards, split)}
    assert (captions, encoded) == ({"after", ""}, [])


def test_lost_shard_is_made_again_as_it_was(run_build: Build, shards: Path) -> None:
    run_build()
    content = _content(shards)
    (shards / "validation-000000.tar").unlink()

    run_build()

    assert _content(shards) == content


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
    assert _content(shards) == _content(tmp_path / "undamaged")


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
    assert _content(shards) == _content(tmp_path / "undamaged")


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


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"clip": {"fps": 4}}, r"was built with clip.fps=8.0, not 4.0; choose another output, or delete this one"),
        ({"seed": 1}, r"was built with seed=0, not 1"),
        ({"input": "moving_digits"}, r"was built with input=.*videos, not moving_digits"),
    ],
)
def test_other_settings_for_the_same_output_are_refused(
    run_build: Build, shards: Path, changes: dict[str, Any], named: str
) -> None:
    run_build()
    content = _content(shards)

    with pytest.raises(ValueError, match=named):
        run_build(**changes)

    assert _content(shards) == content


def test_folder_of_something_else_is_refused(run_build: Build, shards: Path) -> None:
    shards.mkdir()
    (shards / "precious.txt").touch()

    with pytest.raises(ValueError, match="is not empty and not from vdm-data build; choose another folder"):
        run_build()


def test_output_inside_input_is_not_taken_for_input(run_build: Build, videos: Path) -> None:
    first = run_build(output=videos / "shards")
    second = run_build(output=videos / "shards")

    assert (second.code, second.out) == (0, first.out)
    assert "passed over" not in second.err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere", "no such folder; give a folder of videos, or moving_digits"),
        ("videos/a.mp4", "is a file, not a folder of videos"),
        ("empty", "no video among its 0 files"),
    ],
)
def test_unusable_input_is_refused(run_build: Build, tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "empty").mkdir()

    with pytest.raises(ValueError, match=message) as error:
        run_build(input=str(tmp_path / name))

    assert str(error.value).startswith(f"input={tmp_path / name}: ")
    assert not (tmp_path / "shards").exists()


def test_input_that_gives_nothing_is_an_error_and_leaves_nothing(run_build: Build, shards: Path) -> None:
    with pytest.raises(ValueError, match="none of its 3 files gave a clip"):
        run_build(clip={"num_frames": 1000})

    assert not shards.exists()


def test_second_build_into_a_folder_that_is_being_built_is_refused_in_one_line(run_build: Build, shards: Path) -> None:
    run_build()
    before = _content(shards)
    with output_lock(shards, shards / WORK_NAME):
        with pytest.raises(ValueError, match=r"output=.*: another command is building in this folder \(process "):
            run_build()
        ours = {path.name for path in (shards / WORK_NAME).iterdir()}
    assert ours == {"building.0"}
    assert run_build().code == 0
    assert _content(shards) == before


def test_build_whose_process_died_is_taken_over(run_build: Build, shards: Path) -> None:
    run_build()
    child = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(shards), str(shards / WORK_NAME)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert child.stdout is not None
    child.stdout.readline()
    with pytest.raises(ValueError, match=rf"building in this folder \(process {child.pid} on "):
        run_build()
    child.kill()
    child.wait()
    child.stdout.close()
    assert run_build().code == 0


_HOLD = """
import sys, time
from pathlib import Path
from data_pipelines.output_folder import output_lock
with output_lock(*map(Path, sys.argv[1:])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_two_sources_suffice_for_both_splits() -> None:
    for seed in range(20):
        assert sorted(choose_splits(["a", "b"], 0.01, seed).values()) == ["train", "validation"]
        assert sorted(choose_splits(["a", "b"], 0.99, seed).values()) == ["train", "validation"]


def test_split_of_a_source_does_not_depend_on_the_others() -> None:
    names = [f"{n}.mp4" for n in range(1000)]
    splits = choose_splits(names, 0.2, seed=0)

    fewer = choose_splits(names[::2], 0.2, seed=0)

    assert all(splits[name] == fewer[name] for name in names[::2])
    assert sum(split == "validation" for split in splits.values()) == pytest.approx(200, abs=4 * (1000 * 0.16) ** 0.5)


def test_without_validation_all_is_for_training() -> None:
    assert set(choose_splits(["a", "b", "c"], 0, seed=0).values()) == {"train"}
    assert choose_splits(["a"], 0.5, seed=0) == {"a": "train"}
