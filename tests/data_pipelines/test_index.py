import io
import json
import tarfile
from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np
import pytest
import webdataset
from PIL import ExifTags, Image

from data_pipelines import index_tar
from data_pipelines.index import IndexSettings, index_folder
from data_pipelines.verify import VerifySettings, verify
from tests.data.shard_sets import color_of, encode_clip, write_set
from tests.data_pipelines.videos import set_display_matrix
from vdm.data.clips import ClipSampling
from vdm.data.datamodule import ClipDataModule
from vdm.data.index import read_index
from vdm.data.shards import Kind
from vdm.data.sidecars import read_samples


def write_tar(path: Path, members: Sequence[tuple[str, bytes]]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def video_sample(number: int, shape: tuple[int, int, int] = (4, 16, 32)) -> dict[str, bytes]:
    """A sample as video2dataset writes it."""
    metadata = {"caption": f"clip {number}", "key": str(number), "status": "success"}
    return {
        f"{number:05d}.mp4": encode_clip(number, shape),
        f"{number:05d}.txt": f"clip {number}".encode(),
        f"{number:05d}.json": json.dumps(metadata).encode(),
    }


def members(*samples: Mapping[str, bytes]) -> list[tuple[str, bytes]]:
    return [pair for sample in samples for pair in sample.items()]


def settings(path: Path, **changes: object) -> IndexSettings:
    return IndexSettings(**{"input": path, "num_workers": 0, **changes})  # type: ignore[arg-type]


def next_commands(folder: Path) -> tuple[str, str]:
    """Return the last lines that indexing prints."""
    return f"Next: vdm-data verify {folder}", f"  or: vdm train data.path={folder}"


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """Two tars; in the second the members of samples lie apart, and videos differ in size."""
    folder = tmp_path / "foreign"
    folder.mkdir()
    write_tar(folder / "00000.tar", members(*(video_sample(number) for number in range(4))))
    apart = [video_sample(4), video_sample(5, (7, 32, 32)), video_sample(6, (8, 48, 32))]
    write_tar(folder / "00001.tar", sorted(members(*apart), key=lambda pair: pair[0].split(".")[1]))
    return folder


def test_an_indexed_webdataset_trains_as_it_is(foreign: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert index_folder(settings(foreign, validation_fraction=0)) == 0
    assert capsys.readouterr().out.startswith(f"{foreign}: clips: train 7, validation 0\nNext: vdm-data verify ")
    index = read_index(foreign)
    assert index.fps == 8
    assert [dict(shard.kinds) for shard in index.splits["train"]] == [
        {Kind((4, 16, 32), 8.0): 4},
        {Kind((4, 16, 32), 8.0): 1, Kind((7, 32, 32), 8.0): 1, Kind((8, 48, 32), 8.0): 1},
    ]
    data = ClipDataModule(
        foreign,
        global_batch_size=7,
        micro_batch_size=7,
        clips=ClipSampling([(4, 16, 16)], start="first"),
        num_workers=0,
        max_validation_clips=0,
    )
    data.check()
    (batch,) = islice(data.train_dataloader(), 1)
    assert sorted(batch.captions) == [f"clip {number}" for number in range(7)]
    assert batch.weights.tolist() == [1] * 7
    assert batch.fps.tolist() == [8] * 7
    for key, video in zip(batch.keys, batch.video, strict=True):
        assert abs(float(video[0, 0].float().mean()) - color_of(int(key), 0)[0]) <= 2


def test_a_list_of_tars_is_indexed_alone(foreign: Path) -> None:
    listed = Path(f"{foreign}/{{00001..00001}}.tar")
    settings(listed).check_paths()
    index_folder(settings(listed, validation_fraction=0))
    assert read_index(foreign).splits["train"].names == ["00001.tar"]
    with pytest.raises(ValueError, match=r"has an index.json already"):
        index_folder(settings(listed))


def test_tars_of_several_folders_are_indexed_elsewhere(foreign: Path, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    write_tar(tmp_path / "more" / "0.tar", members(video_sample(9)))
    listed = Path(f"{foreign}/0000{{0,1}}.tar::{tmp_path}/more")
    with pytest.raises(ValueError, match="output=NEW_FOLDER is needed"):
        index_folder(settings(listed))
    output = tmp_path / "set"
    index_folder(settings(listed, output=output, validation_fraction=0))
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
        settings(Path(listed)).check_paths()


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset leaves its files to the garbage collector
def test_keys_and_members_are_those_of_webdataset(tmp_path: Path) -> None:
    sample = {f"some.folder/clip.{extension}": data for extension, data in (("mp4", encode_clip(1)), ("txt", b"a"))}
    write_tar(tmp_path / "a.tar", members(sample, {"plain.mp4": encode_clip(2), "plain.cls": b"3"}))
    index_folder(settings(tmp_path))
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

    assert index_folder(settings(tmp_path)) == 1

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

    assert index_folder(settings(tmp_path, validation_fraction=0)) == 0

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


def test_one_of_several_captions_is_drawn_by_seed_and_position(tmp_path: Path) -> None:
    texts = [f"caption {number}" for number in range(4)]
    write_tar(tmp_path / "a.tar", [("a.mp4", encode_clip(1)), ("a.json", json.dumps({"caption": texts}).encode())])
    index_folder(settings(tmp_path))

    def drawn(seed: int, micro_batch_size: int) -> list[str]:
        data = ClipDataModule(tmp_path, 8, micro_batch_size, seed=seed, num_workers=0, max_validation_clips=0)
        batches = islice(data.train_dataloader(), 64 // micro_batch_size)
        return [caption for batch in batches for caption in batch.captions]

    counts = Counter(drawn(0, 8))
    assert set(counts) == set(texts)
    assert sum((count - 16) ** 2 / 16 for count in counts.values()) < 16.3  # chi-square, 3 degrees: p = 0.001
    assert drawn(0, 8) == drawn(0, 2) != drawn(1, 8)


def test_sets_of_the_same_running_numbers_are_told_apart_by_their_clips(tmp_path: Path) -> None:
    digests = []
    for name, numbers, caption in (("a", (0, 1), b"x"), ("recaptioned", (0, 1), b"y"), ("other", (0, 2), b"x")):
        (tmp_path / name).mkdir()
        samples = ({f"{i:09d}.mp4": encode_clip(n), f"{i:09d}.txt": caption} for i, n in enumerate(numbers))
        write_tar(tmp_path / name / "00000.tar", members(*samples))
        index_folder(settings(tmp_path / name))
        digests.append(read_index(tmp_path / name).splits["train"].keys)
    assert digests[0] == digests[1] != digests[2]


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
    assert index_folder(settings(tmp_path)) == 0
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
    index_folder(settings(tmp_path))
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
    assert index_folder(settings(tmp_path)) == 1
    assert [line for line in capsys.readouterr().err.splitlines() if line.startswith("a.tar")] == [
        "a.tar: a: its video is stored turned or mirrored, for players to undo; encode it upright",
        "a.tar: b: its picture is stored turned or mirrored, for viewers to undo; encode it upright",
    ]
    assert read_index(tmp_path).num_samples("train") == 1


def _verified(folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, list[str]]:
    capsys.readouterr()
    code = verify(VerifySettings(folder, num_workers=0))
    out, err = capsys.readouterr()
    lines = err.replace("\r", "\n").splitlines()
    return code, out, [line for line in lines if line and not line.startswith("verifying")]


def test_sound_sets_from_elsewhere_have_no_faults(
    tmp_path: Path, foreign: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = io.BytesIO()
    Image.new("RGB", (24, 16)).save(picture, "png")
    long_name = "a/" + "long" * 40
    strange = [
        *(("./0.mp4", encode_clip(0)), ("./0.txt", b"a caption")),
        ("1.PNG", picture.getvalue()),
        *(("2.mp4", encode_clip(2)), ("2.jpg", b"a thumbnail that nobody reads")),
        *((f"{long_name}.mp4", encode_clip(3)), ("caf\u00e9.mp4", encode_clip(4))),
    ]
    write_tar(foreign / "strange.tar", strange)
    write_tar(foreign / "same_keys.tar", strange[:2])
    index_folder(settings(foreign))

    code, out, faults = _verified(foreign, capsys)

    assert (code, faults) == (0, [])
    assert out.startswith(f"{foreign}: clips: 13, shards: 4, faults: 0\nNext: vdm-data show ")


def test_faults_of_a_set_from_elsewhere_are_what_training_leaves_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_tar, "_captions", lambda *_: ())  # an earlier version looked into none
    names = [("0.mp4", encode_clip(0)), ("0.json", b"[1]"), ("1.mp4", encode_clip(1)), ("2.mp4", encode_clip(2))]
    write_tar(tmp_path / "a.tar", [*names, ("2.txt", b"\x81")])
    index_folder(settings(tmp_path))

    code, out, faults = _verified(tmp_path, capsys)

    assert code == 1
    assert [fault.partition(" (")[0] for fault in faults] == [
        "a.tar: 0: its metadata is malformed",
        "a.tar: 2: its metadata is malformed",
    ]
    assert out.endswith("faults: 2; the samples named are left out in training\n")


def test_what_others_put_into_their_metadata_is_no_fault(tmp_path: Path) -> None:
    """Labels of classes that the set does not name, and scores of another kind."""
    ours = write_set(tmp_path / "ours", {"train": (4,), "validation": (1,)})
    odd = ({"label": 1}, {"label": 500}, {"label": 10**30}, {"label": "a"}, {"scores": 0.7}, {"scores": [1]})
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    samples = [(f"{i}.mp4", encode_clip(i)) for i in range(len(odd))]
    write_tar(theirs / "a.tar", samples + [(f"{i}.json", json.dumps(one).encode()) for i, one in enumerate(odd)])
    index_folder(settings(theirs))
    mixture = {str(ours): 4.0, str(theirs): 6.0}
    data = ClipDataModule(mixture, global_batch_size=10, micro_batch_size=10, num_workers=0, max_validation_clips=0)
    data.check()
    (batch,) = islice(data.train_dataloader(), 1)
    assert batch.weights.tolist() == [1] * 10
    labels = dict(zip(batch.keys, batch.labels.tolist(), strict=True))
    assert [label for key, label in labels.items() if key.isdigit()] == [-1] * 6
    assert sorted(label for key, label in labels.items() if not key.isdigit()) == [-1, 0, 1, 2]


@pytest.mark.parametrize("odd", [f'{{"fps": 1{"0" * 400}}}', '{"fps": -1}', '{"fps": NaN}', "[" * 10**5])
def test_metadata_that_can_not_be_read_is_a_bad_sample(
    tmp_path: Path, odd: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_tar, "_captions", lambda *_: ())  # an earlier version looked into none
    picture = io.BytesIO()
    Image.new("RGB", (24, 16)).save(picture, "png")
    write_tar(
        tmp_path / "a.tar", [("0.png", picture.getvalue()), ("0.json", odd.encode()), ("1.png", picture.getvalue())]
    )
    index_folder(settings(tmp_path))
    data = ClipDataModule(
        tmp_path, global_batch_size=2, micro_batch_size=2, num_workers=0, max_validation_clips=0, max_bad_fraction=1.0
    )
    (batch,) = islice(data.train_dataloader(), 1)
    assert dict(zip(batch.keys, batch.weights.tolist(), strict=True)) == {"": 0, "1": 1}


def test_a_picture_that_is_refused_for_its_size_or_form_costs_itself_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture, profile = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (24, 16)).save(picture, "png")
    Image.new("RGB", (24, 16)).save(profile, "png", icc_profile=bytes(2 << 20))  # unpacks to more than Pillow allows
    write_tar(tmp_path / "a.tar", [("0.png", picture.getvalue()), ("1.png", profile.getvalue())])
    assert index_folder(settings(tmp_path)) == 1
    assert "\na.tar: 1: its picture can't be read: " in capsys.readouterr().err
    assert read_index(tmp_path).splits["train"][0].num_samples == 1


def test_some_tars_are_held_out(tmp_path: Path) -> None:
    for number in range(3):
        write_tar(tmp_path / f"{number}.tar", members(video_sample(number)))
    index_folder(settings(tmp_path, num_workers=2))
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

    assert index_folder(settings(tmp_path, validation_fraction=0)) == 1

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
        index_folder(settings(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"has no file \*.tar$"):
        index_folder(settings(tmp_path / "empty"))
    index_folder(settings(foreign))
    with pytest.raises(ValueError, match=r"has an index.json already; delete it"):
        index_folder(settings(foreign))
