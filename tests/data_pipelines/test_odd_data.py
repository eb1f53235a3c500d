"""Sets of shards with one odd sample, file or claim: it is named, costs itself alone, and takes no memory.

Longer than other files for its tables of odd content, which index, verify, show and training all have to stand.
"""

import base64
import hashlib
import json
import os
import re
import resource
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest

from data_pipelines import index_tar
from data_pipelines.index import IndexSettings, index_folder
from data_pipelines.show import ShowSettings, show
from data_pipelines.verify import VerifySettings, verify
from tests.data.shard_sets import encode_clip
from tests.odd_files import ODD_FILES
from vdm.data.datamodule import ClipDataModule
from vdm.data.index import read_index, write_index
from vdm.data.shard_table import ShardTable
from vdm.data.shards import Kind
from vdm.data.sidecars import read_samples

CLIP = encode_clip(1)
GIB = 1 << 30


def header(name: str | bytes, size: int = 0, kind: bytes = tarfile.REGTYPE, **fields: object) -> bytes:
    """Return a header that may say what no tar program writes."""
    info = tarfile.TarInfo(os.fsdecode(name))
    info.size, info.type = size, kind
    for field, value in fields.items():
        setattr(info, field, value)
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def member(name: str | bytes, data: bytes) -> bytes:
    return header(name, len(data)) + padded(data)


def pax(records: bytes, claimed: int | None = None) -> bytes:
    return header("PaxHeader", len(records) if claimed is None else claimed, tarfile.XHDTYPE) + padded(records)


GOOD = (member("first.mp4", CLIP), member("last.mp4", CLIP))

ODD: dict[str, tuple[bytes, str]] = {
    "a Latin-1 name": (member(b"caf\xe9.mp4", CLIP), "caf\ufffd.mp4: its name is not UTF-8 text"),
    "a negative size": (header("neg.mp4", -512), "neg.mp4: claims to have -512 bytes"),
    "a very negative size": (header("neg.mp4", -(1 << 60)), "neg.mp4: claims to have -1152921504606846976 bytes"),
    "60 GB": (header("big.mp4", 60 * GIB), "big.mp4: claims to have 64424509440 bytes"),
    "a huge size": (header("big.mp4", 1 << 80), "big.mp4: claims to have 1208925819614629174706176 bytes"),
    "60 GB in an extended header": (pax(b"20 size=64424509440\n") + member("big.mp4", CLIP), "big.mp4: claims to have"),
    "a size that is no number": (
        pax(b"12 size=1e9\n") + member("x.mp4", CLIP),
        "x.mp4: its extended header is damaged",
    ),
    "an extended header of 60 GB": (pax(b"", 60 * GIB), "PaxHeader: claims to have"),
    "a damaged extended header": (
        pax(b"9999 path=a\n") + member("x.mp4", CLIP),
        "x.mp4: its extended header is damaged",
    ),
    "a sparse file": (
        header("holes.mp4", 512, tarfile.GNUTYPE_SPARSE) + bytes(512),
        "holes.mp4: is stored without its",
    ),
    "a sparse file of another kind": (
        pax(b"22 GNU.sparse.major=1\n") + member("holes.mp4", CLIP),
        "holes.mp4: is stored without its",
    ),
    "a symbolic link": (header("link.mp4", 0, tarfile.SYMTYPE, linkname="/etc/passwd"), "link.mp4: is a link"),
    "a hard link to nothing": (header("link.mp4", 0, tarfile.LNKTYPE, linkname="last.mp4"), "link.mp4: is a hard link"),
    "a hard link out of the tar": (
        header("link.mp4", 0, tarfile.LNKTYPE, linkname="/etc/passwd"),
        "link.mp4: is a hard link to a file that is not in the tar before it",
    ),
    "a device": (header("device.mp4", 0, tarfile.CHRTYPE), "device.mp4: is a device"),
    "a pipe": (header("pipe.mp4", 0, tarfile.FIFOTYPE), "pipe.mp4: is a device or a pipe"),
    "an unknown kind": (header("odd.mp4", 0, b"Q"), "odd.mp4: is of a kind that is not known"),
    "an absolute name": (member("/etc/clip.mp4", CLIP), "/etc/clip.mp4: its name leads out of the tar"),
    "a name that climbs": (member("a/../../clip.mp4", CLIP), "a/../../clip.mp4: its name leads out of the tar"),
    "a line end in a name": (member("a\nb.mp4", CLIP), r"a\nb.mp4: its name has characters"),
    "an escape in a name": (member("a\x1b[2Jb.mp4", CLIP), r"a\x1b[2Jb.mp4: its name has characters"),
    "a turn in a name": (member("a\u202eb.mp4", CLIP), r"a\u202eb.mp4: its name has characters"),
    "a very long name": (
        header("././@LongLink", 10**5 + 1, tarfile.GNUTYPE_LONGNAME) + padded(b"x" * 10**5 + b"\0") + member("x", CLIP),
        "its name has 100000 characters",
    ),
    "a caption of 17 MB": (
        member("long.mp4", CLIP) + member("long.txt", b"x" * (17 << 20)),
        "long: its .txt has 17825792 bytes, more than the",
    ),
    "a picture bomb": (
        member(
            "bomb.png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (10**5).to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0\0\0\0\0"
        ),
        "bomb: its picture can't be",
    ),
    "a list in the place of a video": (
        member("list.mp4", b"ffconcat version 1.0\nfile a.mp4\n"),
        "list: its video can't",
    ),
}


@pytest.fixture
def little_memory() -> Iterator[None]:
    """Refuse this process more than 8 GiB beside what it has: claims of 60 GB come to light as errors."""
    before = resource.getrlimit(resource.RLIMIT_DATA)
    data = int(re.findall(r"VmData:\s+(\d+)", Path("/proc/self/status").read_text())[0]) << 10
    resource.setrlimit(resource.RLIMIT_DATA, (data + 8 * GIB, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_DATA, before)


def _lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    err = capsys.readouterr().err
    return [line for line in re.split(r"[\r\n]", err) if line and not re.match("indexing|verifying|reading", line)]


def _is_shown(text: str) -> bool:
    return all(char.isprintable() for char in text)


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("odd", ODD)
def test_an_odd_member_is_named_and_the_rest_is_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], odd: str
) -> None:
    content, reason = ODD[odd]
    (tmp_path / "a.tar").write_bytes(GOOD[0] + content + GOOD[1] + bytes(1024))

    assert index_folder(IndexSettings(tmp_path, num_workers=0)) == 1

    lines = _lines(capsys)
    assert len(lines) == 1
    assert lines[0].startswith("a.tar: ")
    assert reason in lines[0]
    assert _is_shown(lines[0])
    (shard,) = read_index(tmp_path).splits["train"]
    assert [sample.key for sample in read_samples(tmp_path, shard)] == ["first", "last"]


@pytest.mark.usefixtures("little_memory")
def test_a_tar_that_ends_in_a_claim_or_in_nothing_is_cut_short(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "claim.tar").write_bytes(GOOD[0] + header("big.mp4", 60 * GIB))
    (tmp_path / "short.tar").write_bytes(b"abc")
    (tmp_path / "empty.tar").touch()
    assert index_folder(IndexSettings(tmp_path, validation_fraction=0, num_workers=0)) == 1
    lines = _lines(capsys)
    assert any(line.startswith("claim.tar: is cut short in big.mp4") for line in lines)
    assert "short.tar: is not a plain tar" in "\n".join(lines)
    assert "empty.tar: no sample of it can be used" in lines


def _set(folder: Path, *members: bytes) -> Path:
    """Index a set of two sound samples and others."""
    folder.mkdir(exist_ok=True)
    (folder / "a.tar").write_bytes(b"".join((GOOD[0], *members, GOOD[1], bytes(1024))))
    index_folder(IndexSettings(folder, num_workers=0))
    return folder


def _weights(folder: Path, **options: object) -> dict[str, float]:
    """Train on a set: weight of each sample by its key, bad ones having none."""
    split = read_index(folder, check_sizes=False).splits["train"]
    data = ClipDataModule(
        folder, int(split.num_samples.sum()), 8, num_workers=0, max_validation_clips=0, max_bad_fraction=1, **options
    )
    data.check()
    found: dict[str, float] = {}
    for batch in islice(data.train_dataloader(), data.accumulation(1)):
        found |= dict(zip(batch.keys, batch.weights.tolist(), strict=True))
    return found


ODD_JSON = {
    "deep": "[" * 10**5,
    "deep object": '{"caption":' * 10**5,
    "of another kind": "[1]",
    "a number": "3",
    "a caption that is a list of numbers": '{"caption": ["a", 1]}',
    "a caption that is an object": '{"caption": {"en": "a"}}',
    "not UTF-8": b"\xff\xfe\xfa",
}
HARMLESS_JSON = {
    "infinite": '{"caption": "a", "fps": null, "scores": {"x": 1e999}, "x": 1e999, "label": 1e999}',
    "many digits": '{"caption": 1%s}' % ("0" * 400),
    "half a character": '{"caption": "\\ud800 \\u202e"}',
    "types": '{"source": [1], "label": -7, "motion_pixels_per_frame": 0.5, "key": 3, "shape": "x", "split": {}}',
    "a long caption": json.dumps({"caption": "long " * 10**5}),
}


def _of(texts: dict[str, str | bytes]) -> list[bytes]:
    parts = []
    for number, text in enumerate(texts.values()):
        data = text if isinstance(text, bytes) else text.encode()
        parts += [member(f"{number}.mp4", CLIP), member(f"{number}.json", data)]
    return parts


def test_odd_metadata_is_named_and_left_out_by_index(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = _set(tmp_path / "set", *_of(ODD_JSON))

    assert [line.split(":")[1] for line in _lines(capsys)] == [f" {number}" for number in range(len(ODD_JSON))]
    assert read_index(folder).num_samples("train") == 2


def test_odd_metadata_is_named_by_verify_shown_as_damaged_and_left_out_in_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_tar, "_captions", lambda *_: ())  # an earlier version looked into none
    folder = _set(tmp_path / "set", *_of(ODD_JSON))
    _lines(capsys)

    assert verify(VerifySettings(folder, num_workers=0)) == 1
    named = _lines(capsys)
    assert [line.split(":")[1] for line in named] == [f" {number}" for number in range(len(ODD_JSON))]
    assert show(ShowSettings(folder)) == 1
    assert (folder / "contact_sheet.html").read_text().count("<article") >= 2
    assert _weights(folder) == {"first": 1, "last": 1, "": 0}


def test_odd_values_that_nobody_reads_do_no_harm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = _set(tmp_path / "set", *_of(HARMLESS_JSON))
    _lines(capsys)

    assert (verify(VerifySettings(folder, num_workers=0)), _lines(capsys)) == (0, [])
    show(ShowSettings(folder))
    page = (folder / "contact_sheet.html").read_text(encoding="utf-8")
    assert page.count("<article") == 2 + len(HARMLESS_JSON)
    assert _is_shown(re.sub(r"[\n]", "", page))
    weights = _weights(folder)
    assert all(weights[key] == 1 for key in ("first", "last", "0", "1", "2", "4"))


@pytest.mark.usefixtures("little_memory")
def test_a_clip_of_any_length_is_verified_and_shown_in_little_memory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is claimed of it is 256 GB of pixels, and decoding stops where it ends."""
    folder = _set(tmp_path / "set")
    path = folder / "a.index.json"
    content = json.loads(path.read_text())
    for sample in content["samples"]:
        sample["shape"] = [999_999_999, 16, 32]
    path.write_text(json.dumps(content))

    index = read_index(folder)
    table = ShardTable.of(replace(one, kinds={Kind((999_999_999, 16, 32), 8.0): 2}) for one in index.splits["train"])
    write_index(folder, replace(index, splits={"train": table, "validation": ShardTable.of(())}))
    _lines(capsys)

    assert verify(VerifySettings(folder, num_workers=0)) == 1
    assert sum("4 frames decode where the index records 999999999" in line for line in _lines(capsys)) == 2
    assert show(ShowSettings(folder)) == 0
    with pytest.raises(ValueError, match=r"all of its 2 are too large to be seen whole \(clips.shapes takes parts"):
        _weights(folder)


@pytest.mark.usefixtures("little_memory")
def test_a_sidecar_that_claims_a_large_file_costs_its_sample_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = _set(tmp_path / "set", member("odd.mp4", CLIP))
    os.truncate(folder / "a.tar", 60 * GIB)  # a hole, so that the claim is true
    content = json.loads((folder / "a.index.json").read_text())
    (odd,) = (sample for sample in content["samples"] if sample["key"] == "odd")
    odd["members"]["mp4"][1] = 50 * GIB
    (folder / "a.index.json").write_text(json.dumps(content))

    index = read_index(folder, check_sizes=False)
    table = ShardTable.of(replace(one, num_bytes=60 * GIB) for one in index.splits["train"])
    write_index(folder, replace(index, splits={"train": table, "validation": ShardTable.of(())}))
    assert _weights(folder) == {"first": 1, "last": 1, "": 0}


@pytest.mark.parametrize("kind", ODD_FILES)
@pytest.mark.parametrize("name", ["a.tar", "a.index.json", "index.json", "shards.parquet"])
def test_what_is_no_file_in_a_set_is_named_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, name: str
) -> None:
    folder = _set(tmp_path / "set")
    (folder / name).unlink()
    ODD_FILES[kind](folder / name)
    _lines(capsys)
    if name in ("index.json", "shards.parquet"):
        for command in (lambda: verify(VerifySettings(folder)), lambda: show(ShowSettings(folder))):
            with pytest.raises(ValueError, match=rf"{name}: can't be read: .*is {kind}, not a file"):
                command()
        return
    assert verify(VerifySettings(folder, num_workers=0)) == 1
    assert f"is {kind}, not a file" in "".join(_lines(capsys))
    assert show(ShowSettings(folder)) == 1
    assert _weights(folder, check_shards=False) == {"": 0}


@pytest.mark.parametrize("kind", ODD_FILES)
def test_a_tar_that_is_no_file_is_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    ODD_FILES[kind](tmp_path / "odd.tar")
    _set(tmp_path)
    assert _lines(capsys) == [f"odd.tar: can't be read: is {kind}, not a file"]
    assert read_index(tmp_path).num_samples("train") == 2


@pytest.mark.parametrize("name", [b"caf\xe9.tar", b"a\nb.tar", b"pipe:cat.tar", b"a\x1b[2J.tar"])
def test_a_tar_of_an_odd_name_is_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: bytes) -> None:
    (tmp_path / os.fsdecode(name)).write_bytes(GOOD[0])
    _set(tmp_path)
    (line,) = _lines(capsys)
    assert line.endswith(": is no name for a shard; give it a plain one")
    assert _is_shown(line)
    assert read_index(tmp_path).num_samples("train") == 2


def test_the_page_holds_nothing_of_the_data_that_runs(tmp_path: Path) -> None:
    evil = '</script><script>alert(1)</script><img src=http://a/ onerror=alert(1)>" onload="x\' \x1b\u202e'
    metadata = json.dumps({"caption": evil, "source": evil, evil: 1.5, "motion_pixels_per_frame": evil})
    other = json.dumps({"caption": "javascript:alert(1)", evil: 2.5})
    folder = _set(tmp_path / "set", *_of({"a": metadata, "b": other}))
    show(ShowSettings(folder))
    page = (folder / "contact_sheet.html").read_text(encoding="utf-8")
    assert page.count("<script") == page.count("</script") == 1  # the page's own
    assert "<img" not in page
    assert not re.search(r"<[^>]*\son\w+=", page.partition("<script>")[0])
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page)
    assert not set(page) & set("\x1b\u202e")
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert "http" not in policy


def test_the_policy_allows_the_pages_own_script_and_style(tmp_path: Path) -> None:

    folder = _set(tmp_path / "set")
    show(ShowSettings(folder))
    page = (folder / "contact_sheet.html").read_text(encoding="utf-8")
    for element in ("script", "style"):
        (content,) = re.findall(rf"<{element}>(.*?)</{element}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{element}-src 'sha256-{digest}'" in page
