"""What is of one recording goes to one side of the split."""

from pathlib import Path

import av
import pytest

from data_pipelines.assemble import choose_splits
from data_pipelines.recordings import recording_note
from data_pipelines.video_folder import read_video_folder
from tests.data_pipelines.conftest import Build
from tests.data_pipelines.videos import CLIP, gray_frames, write_h264, write_video
from vdm.data.index import read_index
from vdm.data.sidecars import read_samples


def recordings_of(folder: Path) -> dict[str, str]:
    return dict(read_video_folder(str(folder), None, [], CLIP).recordings)


def write_record(path: Path, start: int = 0, num_frames: int = 8) -> Path:
    """Write a file whose clock begins at a frame, of 8 a second."""
    path.parent.mkdir(exist_ok=True)
    times = [125 * (start + number) for number in range(num_frames)]
    return write_video(path, gray_frames(num_frames), times, codec="libx264", pix_fmt="yuv420p", options={"bf": "0"})


def test_files_of_a_playlist_are_one_recording_in_all_qualities(tmp_path: Path) -> None:
    for name in ("low/x.ts", "low/one two.ts", "high/x.ts", "high/y.ts", "alone.ts"):
        write_record(tmp_path / name)
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes() + name.encode())  # no two the same
    header = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n"
    (tmp_path / "low/low.m3u8").write_text(f"{header}#EXTINF:1,\nx.ts?token=1\n#EXTINF:1,\none%20two.ts\n")
    (tmp_path / "high/high.m3u8").write_text(f'{header}#EXT-X-MAP:URI="x.ts"\n#EXTINF:1,\ny.ts\nhttps://x/alone.ts\n')
    streams = "#EXT-X-STREAM-INF:BANDWIDTH=1\nlow/low.m3u8\n#EXT-X-STREAM-INF:BANDWIDTH=2\n./high/high.m3u8\n"
    (tmp_path / "all.m3u8").write_text(f"#EXTM3U\n{streams}")

    assert recordings_of(tmp_path) == dict.fromkeys(
        ("high/x.ts", "high/y.ts", "low/one two.ts", "low/x.ts"), "high/x.ts"
    )

    (tmp_path / "all.m3u8").unlink()
    found = recordings_of(tmp_path)
    assert found["high/x.ts"] == found["high/y.ts"] == "high/x.ts"
    assert found["low/x.ts"] == found["low/one two.ts"] == "low/one two.ts"


@pytest.mark.parametrize(
    "content",
    [b"#EXTM3U\na.mp4\nb.mp4\n", b"a.mp4\nb.mp4\n#EXT-X-ENDLIST", b"", b"\xff\xfe", b"#EXTM3U\n#EXT-X-\n/etc/passwd\n"],
)
def test_a_list_of_songs_says_nothing_of_what_belongs_together(tmp_path: Path, content: bytes) -> None:
    for start, name in enumerate(("a.mp4", "b.mp4")):
        write_record(tmp_path / name, start)
    (tmp_path / "list.m3u8").write_bytes(content)

    assert recordings_of(tmp_path) == {}


@pytest.mark.parametrize("suffix", ["ts", "mp4", "mkv"])
def test_numbered_files_that_follow_each_other_in_time_are_one_recording(tmp_path: Path, suffix: str) -> None:
    for number in range(3):
        write_record(tmp_path / f"a.{number:03d}.{suffix}", 8 * number + 80)
        write_record(tmp_path / f"b{number + 9}.{suffix}", num_frames=8 + number)  # each with a clock of its own
    write_record(tmp_path / f"a.007.{suffix}", 104)  # others lie between

    assert recordings_of(tmp_path) == {f"a.{number:03d}.{suffix}": f"a.000.{suffix}" for number in range(3)}


def test_a_camera_splits_some_of_its_recordings(tmp_path: Path) -> None:
    for number, start in enumerate((0, 0, 8, 0)):
        write_record(tmp_path / f"{number:05d}.MTS".lower(), start, 8 + (number == 3))

    found = recordings_of(tmp_path)

    assert found["00001.mts"] == found["00002.mts"]
    assert "00003.mts" not in found


def test_files_of_the_same_bytes_are_one_recording(tmp_path: Path) -> None:
    for name, number in (("a.mp4", 0), ("b.mp4", 1), ("c.mp4", 0)):
        write_h264(tmp_path / name, gray_frames(8 + number))
    (tmp_path / "d.mp4").hardlink_to(tmp_path / "b.mp4")

    assert recordings_of(tmp_path) == {"a.mp4": "a.mp4", "c.mp4": "a.mp4", "b.mp4": "b.mp4", "d.mp4": "b.mp4"}


def test_a_manifest_says_what_is_one_recording(tmp_path: Path) -> None:
    for number, name in enumerate("abcd"):
        write_h264(tmp_path / f"{name}.mp4", gray_frames(8 + number))
    (tmp_path / "manifest.csv").write_text("file,recording,caption\na.mp4,1,x\nb.mp4,,y\nc.mp4,1,z\nd.mp4,b.mp4,\n")

    assert recordings_of(tmp_path) == {"a.mp4": "a.mp4", "c.mp4": "a.mp4"}


def test_parts_of_a_recording_get_the_split_of_the_recording() -> None:
    names = [f"{number}.ts" for number in range(100)]
    recordings = {name: names[10 * (place // 10)] for place, name in enumerate(names) if place < 50}

    splits = choose_splits(names, 0.2, 0, recordings)

    assert all(splits[name] == splits[recording] for name, recording in recordings.items())
    alone = choose_splits([*names[:50:10], *names[50:]], 0.2, 0)
    assert splits == {name: alone[recordings.get(name, name)] for name in names}
    assert set(choose_splits(names[:10], 0.5, 0, dict.fromkeys(names[:10], "0.ts")).values()) == {"train"}


def test_a_build_says_so_and_follows_a_playlist_that_was_added(run_build: Build, videos: Path, tmp_path: Path) -> None:
    """Captions of the clips of the two files, in each split."""
    run_build(validation_fraction=0.4)
    playlist = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\na.mp4\n#EXTINF:2,\nsub/c.mp4\n"
    (videos / "show.m3u8").write_text(playlist)

    outcome = run_build(validation_fraction=0.4)

    note = "1 recording of several files, which go to one side of the split, such as a.mp4 and sub/c.mp4"
    assert note in outcome.err.splitlines()
    splits = [
        {sample.key[0] for shard in table for sample in read_samples(tmp_path / "shards", shard)}
        for table in read_index(tmp_path / "shards").splits.values()
    ]
    assert sorted(map(sorted, splits)) == [["a", "c"], ["b"]]


def test_the_note_names_the_first_of_many() -> None:
    assert recording_note({}) == []
    several = {"a": "a", "b": "a", "c": "a", "d": "d", "e": "d"}
    text = "2 recordings of several files, each of which goes to one side of the split, such as a and b and 1 more"
    assert recording_note(several) == [text]


def test_a_file_that_can_not_be_read_is_no_part_of_a_recording(tmp_path: Path) -> None:
    for number in range(3):
        write_record(tmp_path / f"a{number}.ts", 8 * number)
    (tmp_path / "a1.ts").write_bytes(b"no video")
    (tmp_path / "a2.mp4").symlink_to("nowhere")
    with av.open(tmp_path / "a0.ts") as container:
        assert container.duration

    assert recordings_of(tmp_path) == {}
