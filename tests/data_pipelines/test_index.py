"""``vdm-data index``: which samples it takes, which it leaves out, and what it says of them."""

import io
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np
import pytest
import webdataset
from PIL import ExifTags, Image

from data_pipelines.index import index_folder
from tests.data.shard_sets import encode_clip
from tests.data_pipelines.tars import index_settings, members, video_sample, write_tar
from tests.data_pipelines.videos import set_display_matrix
from vdm.data.datamodule import ClipDataModule
from vdm.data.index import read_index
from vdm.data.sidecars import read_samples


def next_commands(folder: Path) -> tuple[str, str]:
    """Return the last lines that indexing prints."""
    return f"Next: vdm-data verify {folder}", f"  or: vdm train data.path={folder}"


def test_a_list_of_tars_is_indexed_alone(foreign: Path) -> None:
    listed = Path(f"{foreign}/{{00001..00001}}.tar")
    index_settings(listed).check_paths()
    index_folder(index_settings(listed, validation_fraction=0))
    assert read_index(foreign).splits["train"].names == ["00001.tar"]
    with pytest.raises(ValueError, match=r"has an index.json already"):
        index_folder(index_settings(listed))


def test_tars_of_several_folders_are_indexed_elsewhere(foreign: Path, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    write_tar(tmp_path / "more" / "0.tar", members(video_sample(9)))
    listed = Path(f"{foreign}/0000{{0,1}}.tar::{tmp_path}/more")
    with pytest.raises(ValueError, match="output=NEW_FOLDER is needed"):
        index_folder(index_settings(listed))
    output = tmp_path / "set"
    index_folder(index_settings(listed, output=output, validation_fraction=0))
    assert read_index(output).splits["train"].names == ["foreign-00000.tar", "foreign-00001.tar", "more-0.tar"]


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        ("{00000..00002}.tar", "00002.tar: no such file"),
        ("pipe:touch hacked", "pipe: is a command, which is not run"),
        ("{0,1", "its braces do not match"),
        ("none::other", "none: no such folder"),
    ],
)
def test_a_list_that_can_not_be_read_is_refused(
    foreign: Path, monkeypatch: pytest.MonkeyPatch, listed: str, message: str
) -> None:
    monkeypatch.chdir(foreign)
    with pytest.raises(ValueError, match=f"^input=.*{message}"):
        index_settings(Path(listed)).check_paths()


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset leaves its files to the garbage collector
def test_keys_and_members_are_those_of_webdataset(tmp_path: Path) -> None:
    sample = {f"some.folder/clip.{extension}": data for extension, data in (("mp4", encode_clip(1)), ("txt", b"a"))}
    write_tar(tmp_path / "a.tar", members(sample, {"plain.mp4": encode_clip(2), "plain.cls": b"3"}))
    index_folder(index_settings(tmp_path))
    (shard,) = read_index(tmp_path).splits["train"]
    entries = read_samples(tmp_path, shard)
    peer = list(webdataset.WebDataset(str(tmp_path / "a.tar"), shardshuffle=False, empty_check=False))
    assert [entry.key for entry in entries] == [one["__key__"] for one in peer]
    content = (tmp_path / "a.tar").read_bytes()
    for entry, one in zip(entries, peer, strict=True):
        for extension, member in entry.members.items():
            assert content[member.offset : member.offset + member.length] == one[extension]


def test_every_member_of_a_tar_is_used_or_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = encode_clip(1)
    odd = {"v_0.v1.mp4": clip, "v_0.v1.txt": b"a", "take 1.5s.mp4": clip, "film.avi": b"a", "lone.txt": b"a"}
    beside = {"good.cls": b"3", "good.seg.png": b"a mask", "README": b"a", ".hidden.mp4": clip}
    write_tar(tmp_path / "a.tar", members({"good.mp4": clip, "good.txt": b"a"}, odd, beside))

    assert index_folder(index_settings(tmp_path)) == 1

    out, err = capsys.readouterr()
    lacks = "has neither .mp4 nor .jpg, .jpeg, .png, .webp but"
    dots = "as names are split at their first dot; rename its members"
    assert [line for line in err.splitlines() if line.startswith("a.tar")] == [
        f"a.tar: v_0: {lacks} .v1.mp4, .v1.txt, {dots}",
        f"a.tar: take 1: {lacks} .5s.mp4, {dots}",
        f"a.tar: film: {lacks} .avi",
        f"a.tar: lone: {lacks} .txt",
    ]
    assert out.splitlines() == [
        f"{tmp_path}: clips: train 1, validation 0; faults: 4",
        f"{tmp_path}: members not read: 1 without an extension, 1 hidden, 1 .cls, 1 .seg.png",
        *next_commands(tmp_path),
    ]


def test_clips_without_a_caption_and_texts_in_other_encodings_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = {"a": b"caf\xe9", "b": "\u732b".encode("utf-16"), "c": b" \n", "d": b"\xef\xbb\xbfa dog"}
    write_tar(
        tmp_path / "a.tar",
        [(f"{key}.mp4", encode_clip(i)) for i, key in enumerate((*texts, "e", "f"))]
        + [(f"{key}.txt", text) for key, text in texts.items()]
        + [
            ("d.json", b'\xef\xbb\xbf{"caption": ""}'),
            ("e.json", b'{"caption": NaN}'),
            ("f.json", b'{"caption": ["x", "x"]}'),
        ],
    )

    assert index_folder(index_settings(tmp_path, validation_fraction=0)) == 0

    assert capsys.readouterr().out.splitlines() == [
        f"{tmp_path}: clips: train 6, validation 0; without a caption: 2",
        f"{tmp_path}: texts not in UTF-8: 1 cp1252, 1 UTF-16",
        *next_commands(tmp_path),
    ]
    assert read_index(tmp_path).num_uncaptioned == {"train": 2, "validation": 0}
    data = ClipDataModule(tmp_path, global_batch_size=6, micro_batch_size=6, num_workers=0, max_validation_clips=0)
    (batch,) = islice(data.train_dataloader(), 1)
    expected = {"a": "caf\u00e9", "b": "\u732b", "c": "", "d": "a dog", "e": "", "f": "x"}
    assert dict(zip(batch.keys, batch.captions, strict=True)) == expected


def write_uneven(path: Path) -> bytes:
    """Write a video of ten frames, the later ones at a quarter of the rate of the first."""
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt, stream.time_base = 32, 16, "yuv420p", Fraction(1, 120)
        for number in range(10):
            frame = av.VideoFrame.from_ndarray(np.full((16, 32, 3), 20 * number, np.uint8), format="rgb24")
            frame.pts, frame.time_base = 4 * number + 12 * max(0, number - 5), stream.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path.read_bytes()


def test_videos_of_variable_rate_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    uneven = {"a.mp4": write_uneven(tmp_path / "a.mp4")}
    write_tar(tmp_path / "a.tar", members(uneven, video_sample(0), video_sample(1)))
    assert index_folder(index_settings(tmp_path)) == 0
    assert capsys.readouterr().out.splitlines()[1:-2] == [
        f"{tmp_path}: 1 videos have a variable frame rate, and count by its mean; `vdm-data build` brings videos to "
        "one rate"
    ]
    assert read_index(tmp_path).fps is None


def test_pictures_are_clips_of_one_frame(tmp_path: Path) -> None:
    buffers = {name: io.BytesIO() for name in ("png", "jpg", "webp")}
    for name, buffer in buffers.items():
        Image.new("RGB", (24, 16), (200, 100, 50)).save(buffer, {"jpg": "jpeg"}.get(name, name))
    write_tar(
        tmp_path / "a.tar",
        [(f"{n}.{n}", b.getvalue()) for n, b in buffers.items()]
        + [("png.txt", b"a wall"), ("jpg.json", b'{"fps": null}')],
    )
    index_folder(index_settings(tmp_path))
    data = ClipDataModule(tmp_path, global_batch_size=3, micro_batch_size=3, num_workers=0, max_validation_clips=0)
    (batch,) = islice(data.train_dataloader(), 1)
    assert batch.video.shape == (3, 3, 1, 16, 24)
    assert sorted(batch.captions) == ["", "", "a wall"]
    assert batch.weights.tolist() == [1, 1, 1]
    for channel, value in enumerate((200, 100, 50)):
        assert (batch.video[:, channel].float() - value).abs().max() <= 4


@pytest.mark.parametrize("matrix", [(0, 1, -1, 0), (-1, 0, 0, -1), (-1, 0, 0, 1)])
def test_videos_and_pictures_that_are_stored_turned_or_mirrored_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], matrix: tuple[int, int, int, int]
) -> None:
    (tmp_path / "turned.mp4").write_bytes(encode_clip(1))
    set_display_matrix(tmp_path / "turned.mp4", *matrix)
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[ExifTags.Base.Orientation] = 6
    Image.new("RGB", (24, 16)).save(buffer, "jpeg", exif=exif)
    turned = {"a.mp4": (tmp_path / "turned.mp4").read_bytes(), "b.jpg": buffer.getvalue()}
    write_tar(tmp_path / "a.tar", members(turned, video_sample(0)))
    assert index_folder(index_settings(tmp_path)) == 1
    assert [line for line in capsys.readouterr().err.splitlines() if line.startswith("a.tar")] == [
        "a.tar: a: its video is stored turned or mirrored, for players to undo; encode it upright",
        "a.tar: b: its picture is stored turned or mirrored, for viewers to undo; encode it upright",
    ]
    assert read_index(tmp_path).num_samples("train") == 1


def test_a_picture_that_is_refused_for_its_size_or_form_costs_itself_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture, profile = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (24, 16)).save(picture, "png")
    Image.new("RGB", (24, 16)).save(profile, "png", icc_profile=bytes(2 << 20))  # unpacks to more than Pillow allows
    write_tar(tmp_path / "a.tar", [("0.png", picture.getvalue()), ("1.png", profile.getvalue())])
    assert index_folder(index_settings(tmp_path)) == 1
    assert "\na.tar: 1: its picture can't be read: " in capsys.readouterr().err
    assert read_index(tmp_path).splits["train"][0].num_samples == 1


def test_some_tars_are_held_out(tmp_path: Path) -> None:
    for number in range(3):
        write_tar(tmp_path / f"{number}.tar", members(video_sample(number)))
    index_folder(index_settings(tmp_path, num_workers=2))
    index = read_index(tmp_path)
    assert (index.num_samples("train"), index.num_samples("validation")) == (2, 1)


def test_damage_and_strange_samples_are_named_and_the_rest_is_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = members(*(video_sample(number) for number in range(3)))
    odd = [("a.txt", b"no video"), ("b.mp4", b"nonsense"), ("00000.mp4", b"again")]
    write_tar(tmp_path / "odd.tar", [*whole, *odd])
    write_tar(tmp_path / "cut.tar", whole)
    content = (tmp_path / "cut.tar").read_bytes()
    (tmp_path / "cut.tar").write_bytes(content[: content.index(b"00002.mp4") + 1000])
    write_tar(tmp_path / "header.tar", whole)
    content = bytearray((tmp_path / "header.tar").read_bytes())
    content[content.index(b"00001.mp4")] ^= 1
    (tmp_path / "header.tar").write_bytes(content)
    (tmp_path / "zip.tar").write_bytes(b"PK" + bytes(range(256)) * 8)

    assert index_folder(index_settings(tmp_path, validation_fraction=0)) == 1

    faults = capsys.readouterr().err.splitlines()
    for expected in (
        "odd.tar: a: has neither .mp4 nor",
        "odd.tar: b: its video can't be read",
        "odd.tar: 00000.mp4: is there twice",
        "cut.tar: is cut short in 00002.mp4",
        "header.tar: a header at byte",
        "zip.tar: is not a plain tar",
    ):
        assert any(fault.startswith(expected) for fault in faults), expected
    counts = {shard.name: shard.num_samples for shard in read_index(tmp_path).splits["train"]}
    assert counts == {"odd.tar": 3, "cut.tar": 2, "header.tar": 1}


def test_mistakes_are_one_line(tmp_path: Path, foreign: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere: no such folder; give a folder of tars, or a list of tars$"):
        index_folder(index_settings(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"has no file \*.tar$"):
        index_folder(index_settings(tmp_path / "empty"))
    index_folder(index_settings(foreign))
    with pytest.raises(ValueError, match=r"has an index.json already; delete it"):
        index_folder(index_settings(foreign))
