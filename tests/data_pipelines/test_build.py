"""``vdm-data build``: what a set holds, and what is refused."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from data_pipelines.build import WORK_NAME
from data_pipelines.output_folder import output_lock
from tests.data_pipelines.built_sets import content_of, metadata_of
from tests.data_pipelines.conftest import Build
from tests.data_pipelines.videos import gray_frames, write_sound, write_video
from vdm.data.decoding import decode_clip
from vdm.data.index import read_index
from vdm.data.member_checks import read_member
from vdm.data.sidecars import read_samples

_HOLD = """
import sys, time
from pathlib import Path
from data_pipelines.output_folder import output_lock
with output_lock(*map(Path, sys.argv[1:])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_set_holds_every_clip_once_each_file_in_one_split(run_build: Build, shards: Path) -> None:
    outcome = run_build()

    train, validation = metadata_of(shards, "train"), metadata_of(shards, "validation")
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

    assert set(metadata_of(shards, "train")[0]) == {
        *("caption", "label", "fps", "num_frames", "height", "width"),
        *("source", "source_start_seconds", "source_height", "source_width", "source_fps"),
    }


def test_captions_and_labels_come_from_manifest_and_sidecars(run_build: Build, videos: Path, shards: Path) -> None:
    (videos / "manifest.csv").write_text("file,caption,label\na.mp4,a dog,dog\nsub/c.mp4,,cat\n")
    (videos / "sub" / "c.json").write_text('{"caption": "a cat"}')
    run_build()

    index = read_index(shards)
    found = {m["source"]: (m["caption"], m["label"]) for split in index.splits for m in metadata_of(shards, split)}
    assert index.labels == ("cat", "dog")
    assert found == {"a.mp4": ("a dog", 1), "b.mp4": ("", None), "sub/c.mp4": ("a cat", 0)}


def test_shards_hold_so_many_samples_at_most(run_build: Build, shards: Path) -> None:
    run_build(samples_per_shard=3)

    assert [shard.num_samples for shard in read_index(shards).splits["train"]] == [3, 3, 2]


def test_build_gives_the_same_bytes_again(run_build: Build, shards: Path, tmp_path: Path) -> None:
    run_build()
    run_build(output=tmp_path / "again", num_workers=2)

    assert content_of(shards) == content_of(tmp_path / "again")


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
    content = content_of(shards)

    with pytest.raises(ValueError, match=named):
        run_build(**changes)

    assert content_of(shards) == content


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
    before = content_of(shards)
    with output_lock(shards, shards / WORK_NAME):
        with pytest.raises(ValueError, match=r"output=.*: another command is building in this folder \(process "):
            run_build()
        ours = {path.name for path in (shards / WORK_NAME).iterdir()}
    assert ours == {"building.0"}
    assert run_build().code == 0
    assert content_of(shards) == before


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
