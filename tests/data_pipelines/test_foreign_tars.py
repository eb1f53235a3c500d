"""Sets from elsewhere that are not as they should be: what can be read is read, the rest named with what to do."""

import io
import tarfile
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_pipelines.index import IndexSettings, index_folder
from data_pipelines.verify import VerifySettings, verify
from tests.data.shard_sets import color_of, encode_clip
from tests.data.test_frames import X264, trained_on
from tests.data.test_hdr import write_hdr
from tests.data_pipelines.tars import members, video_sample, write_tar
from tests.data_pipelines.videos import gray_frames, gray_of, write_video
from vdm.config import ConfigError
from vdm.data.clips import ClipSampling
from vdm.data.datamodule import ClipDataModule
from vdm.data.index import read_index
from vdm.data.sidecars import read_samples


def faults_of(folder: Path, capsys: pytest.CaptureFixture[str], **changes: Any) -> tuple[int, str, list[str]]:
    """Index a folder; return the exit code, and what was printed on both streams, progress apart."""
    code = index_folder(IndexSettings(input=folder, num_workers=0, **changes))
    out, err = capsys.readouterr()
    return code, out, [line for line in err.splitlines() if line and "indexing" not in line]


@pytest.mark.parametrize(
    ("suffix", "options"), [("webm", {"codec": "libvpx-vp9", "pix_fmt": "yuv444p"}), ("mov", X264)]
)
def test_a_clip_is_read_by_what_it_is_and_not_by_its_name(tmp_path: Path, suffix: str, options: dict[str, Any]) -> None:
    film = write_video(tmp_path / f"film.{suffix}", gray_frames(8), **options)
    film = film.rename(tmp_path / "a.mp4")

    assert gray_of(trained_on(film)) == list(range(8))

    (shard,) = read_index(tmp_path / "tars").splits["train"]
    assert read_samples(tmp_path / "tars", shard)[0].fps == pytest.approx(8, rel=0.01)


def test_rate_of_a_webm_that_declares_none_is_that_of_its_frames(tmp_path: Path) -> None:
    film = write_video(
        tmp_path / "film.webm", gray_frames(8), [125 * n for n in range(8)], 1000, "libvpx-vp9", "yuv444p"
    )
    write_tar(tmp_path / "a.tar", [("a.mp4", film.read_bytes())])

    assert index_folder(IndexSettings(input=tmp_path, num_workers=0)) == 0

    assert read_index(tmp_path).fps == pytest.approx(8, rel=0.01)


def test_a_video_in_another_container_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    film = write_video(tmp_path / "film.avi", gray_frames(8), **X264)
    write_tar(tmp_path / "a.tar", [("a.mp4", film.read_bytes()), ("b.mp4", encode_clip(1))])

    code, _, faults = faults_of(tmp_path, capsys)

    what = "AVI (Audio Video Interleaved), where mp4, MOV and WebM are read; make it one of these"
    assert (code, faults) == (1, [f"a.tar: a: its video is {what}"])


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("folder", ["", "a_folder_with_a_long_name/" * 8])
def test_a_hard_link_is_the_file_that_it_leads_to(tmp_path: Path, format: int, folder: str) -> None:
    with tarfile.open(tmp_path / "a.tar", "w", format=format) as tar:
        for name, data in (("a.mp4", encode_clip(1)), ("b.mp4", encode_clip(2))):
            info = tarfile.TarInfo(folder + name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for name, target in (("c.mp4", "b.mp4"), ("d.mp4", "c.mp4")):
            info = tarfile.TarInfo(folder + name)
            info.type, info.linkname = tarfile.LNKTYPE, folder + target
            tar.addfile(info)

    assert index_folder(IndexSettings(input=tmp_path, num_workers=0)) == 0
    assert verify(VerifySettings(input=tmp_path, num_workers=0)) == 0

    (shard,) = read_index(tmp_path).splits["train"]
    samples = {sample.key.removeprefix(folder): sample.members["mp4"] for sample in read_samples(tmp_path, shard)}
    assert list(samples) == ["a", "b", "c", "d"]
    assert samples["b"] == samples["c"] == samples["d"] != samples["a"]


@pytest.mark.parametrize("suffix", ["webp", "png"])
def test_an_animated_picture_is_named_and_a_still_one_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str
) -> None:
    first, *rest = (Image.fromarray(np.full((16, 16, 3), 40 * n, np.uint8)) for n in range(4))
    still, animated = io.BytesIO(), io.BytesIO()
    first.save(still, suffix)
    first.save(animated, suffix, save_all=True, append_images=rest)
    write_tar(tmp_path / "a.tar", [(f"a.{suffix}", animated.getvalue()), (f"b.{suffix}", still.getvalue())])

    code, _, faults = faults_of(tmp_path, capsys)

    reason = "its picture is animated, of which one frame would be seen; make it an mp4"
    assert (code, faults) == (1, [f"a.tar: a: {reason}"])


def test_numbered_pictures_without_captions_may_be_frames_of_videos(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "PNG")
    picture = buffer.getvalue()
    frames = [(f"{clip}/{number:04d}.png", picture) for clip in ("v1", "v2") for number in range(4)]
    alone = [("v3/0001.png", picture), ("v3/0007.png", picture), ("v3/0009.png", picture)]
    captioned = [one for n in range(4) for one in ((f"v4/{n}.png", picture), (f"v4/{n}.txt", b"a"))]
    write_tar(tmp_path / "a.tar", [*frames, *alone, *captioned])

    code, out, faults = faults_of(tmp_path, capsys)

    assert (code, faults) == (0, [])
    assert out.splitlines()[1:-2] == [
        f"{tmp_path}: 2 rows of numbered pictures without captions, such as v1/..., of which each picture is a clip of "
        "one frame; if they are frames of videos, make each an mp4"
    ]


def test_compressed_tars_and_those_in_sub_folders_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("0.tar.gz", "sub/1.tgz"):
        (tmp_path / name).write_bytes(b"\x1f\x8b")
    write_tar(tmp_path / "sub/2.tar", members(video_sample(2)))
    packed = "0.tar.gz, sub/1.tgz: compressed tars can't be read in parts; unpack them first, such as with gunzip"
    deeper = "sub/2.tar: tars in sub-folders are indexed together with output=FOLDER"
    with pytest.raises(ValueError, match=r"has no file \*\.tar; .*gunzip.*output=FOLDER"):
        index_folder(IndexSettings(input=tmp_path, num_workers=0))
    write_tar(tmp_path / "3.tar", members(video_sample(3)))

    code, _, faults = faults_of(tmp_path, capsys)

    assert (code, faults) == (1, [packed, deeper])


def test_with_an_output_the_tars_stay_as_they_are_and_training_finds_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, output = tmp_path / "tars", tmp_path / "new/set"
    for number, name in enumerate(("0.tar", "a/0.tar", "a/b/0.tar")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_tar(folder / name, members(video_sample(number)))
    before = sorted(folder.rglob("*"))

    code, out, faults = faults_of(folder, capsys, output=output, validation_fraction=0)

    assert (code, faults) == (0, [])
    assert out.splitlines()[0] == f"{output}: clips: train 3, validation 0"
    assert sorted(folder.rglob("*")) == before
    assert read_index(output).splits["train"].names == ["0.tar", "a-0.tar", "a-b-0.tar"]
    assert verify(VerifySettings(input=output, num_workers=0)) == 0
    clips = ClipSampling([(4, 16, 16)], start="first")
    data = ClipDataModule(output, 3, 3, clips=clips, num_workers=0, max_validation_clips=0)
    data.check()
    (batch,) = islice(data.train_dataloader(), 1)
    assert batch.weights.tolist() == [1] * 3
    for key, video in zip(batch.keys, batch.video, strict=True):
        assert abs(float(video[0, 0].float().mean()) - color_of(int(key), 0)[0]) <= 2


def test_an_output_that_can_not_be_used_is_one_line_and_leaves_no_links(tmp_path: Path) -> None:
    folder = tmp_path / "tars"
    (folder / "a").mkdir(parents=True)
    write_tar(folder / "a-0.tar", [("a.txt", b"a")])
    with pytest.raises(ValueError, match="none of its 1 tars can be used"):
        index_folder(IndexSettings(input=folder, output=tmp_path / "set", num_workers=0))
    assert not any((tmp_path / "set").iterdir())
    (tmp_path / "set/other").touch()
    with pytest.raises(ValueError, match=r"set: is not empty; give a new folder"):
        index_folder(IndexSettings(input=folder, output=tmp_path / "set", num_workers=0))
    with pytest.raises(ValueError, match=r"has no file .*tar, nor have its sub-folders"):
        index_folder(IndexSettings(input=folder / "a", output=tmp_path / "set2", num_workers=0))
    with pytest.raises(ConfigError, match=r"input=/proc/self: can't be written to: .*; output=FOLDER writes the index"):
        IndexSettings(input=Path("/proc/self")).check_paths()


def test_two_tars_that_would_have_one_name_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a").mkdir()
    write_tar(tmp_path / "a-0.tar", members(video_sample(0)))
    write_tar(tmp_path / "a/0.tar", members(video_sample(1)))

    code, _, faults = faults_of(tmp_path, capsys, output=tmp_path / "set")

    assert (code, faults) == (1, ["a/0.tar: another tar would have the name a-0.tar; rename it"])
    assert read_index(tmp_path / "set").num_samples("train") == 1


def test_hdr_videos_are_mapped_or_left_out_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    film = write_hdr(tmp_path / "film.mp4", transfer=16)
    for folder in ("mapped", "left_out"):
        (tmp_path / folder).mkdir()
        write_tar(
            tmp_path / folder / "a.tar", [("a.mp4", film.read_bytes()), ("a.txt", b"a"), *members(video_sample(0))]
        )

    code, out, faults = faults_of(tmp_path / "mapped", capsys)
    assert (code, faults) == (0, [])
    note = "1 HDR videos, which training maps to SDR; hdr=leave_out leaves them out"
    assert out.splitlines()[1] == f"{tmp_path / 'mapped'}: {note}"
    assert read_index(tmp_path / "mapped").num_samples("train") == 2

    code, out, faults = faults_of(tmp_path / "left_out", capsys, hdr="leave_out")
    assert (code, faults) == (0, [])
    assert out.splitlines()[1] == f"{tmp_path / 'left_out'}: 1 HDR videos left out, as hdr=leave_out says"
    assert read_index(tmp_path / "left_out").num_samples("train") == 1


def test_hdr_colours_that_are_not_read_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    film = write_hdr(tmp_path / "film.mp4", transfer=16, matrix=14)
    write_tar(tmp_path / "a.tar", [("a.mp4", film.read_bytes()), *members(video_sample(0))])

    code, _, faults = faults_of(tmp_path, capsys)

    what = "its colours are coded as ICtCp, which is not read; encode it with BT.2020's matrix"
    assert (code, faults) == (1, [f"a.tar: a: its video can't be used: {what}"])
