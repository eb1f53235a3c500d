import json
import unicodedata
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_pipelines import caption_tables
from data_pipelines.annotations import Annotation, label_names, merge
from data_pipelines.caption_sidecars import SidecarContent, Sidecars
from data_pipelines.caption_sidecars import read_sidecars as read_files
from data_pipelines.caption_tables import find_manifest, read_manifest


def read_sidecars(video: Path) -> SidecarContent:
    return read_files(Sidecars(sorted(video.parent.iterdir())).of(video))


@pytest.mark.parametrize(
    "text",
    [
        "file\tlabel\tcaption\textra\na/b.mp4\tdog\ta dog, running\t1\nc.mp4\t\t\t2\n",
        'file,caption,label\na/b.mp4,"a dog, running",dog\nc.mp4,,\n',
        "Caption;File;Label\r\na dog, running;./a/b.mp4;dog\r\n;c.mp4;\r\n",
        '\ufefffile,caption,label\na/b.mp4,"a dog, running",dog\nc.mp4\n',
    ],
)
def test_manifest_is_read_whatever_its_separator(tmp_path: Path, text: str) -> None:
    (tmp_path / "list").write_text(text, encoding="utf-8", newline="")

    rows = read_manifest(tmp_path / "list", tmp_path).rows

    assert rows == {"a/b.mp4": Annotation("a dog, running", "dog"), "c.mp4": Annotation()}


def test_manifest_may_name_files_absolutely(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text(f"file,caption\n{tmp_path.resolve()}/a.mp4,x\n")

    assert read_manifest(tmp_path / "m.csv", tmp_path).rows == {"a.mp4": Annotation("x")}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"name,caption\na,b\n", "has no column 'file', 'file_name', 'video', 'path'; its columns are name, caption"),
        (b"", "has no column 'file', .*; its columns are none"),
        (b"file,caption\na.mp4,caf\x81\n", "is no text in UTF-8, UTF-16 with a byte-order mark, or cp1252"),
        ("file,caption\na.mp4,x\n".encode("utf-16-le"), "is no text in UTF-8"),
        (b"file,caption\na.mp4,A dog, running, fast\n", "line 2 has 4 cells, more than the 2 columns; quote texts"),
        (b"sep=;\nfile;caption\na.mp4;x\nb.mp4;y;z\n", "line 4 has 3 cells, more than the 2 columns"),
        (b'file\tcaption\na.mp4\tx\nb.mp4\t"y\nc.mp4\tz\n', "is not a table: line 3: unexpected end of data"),
        (b'file\tcaption\na.mp4\t"Hello," she said\n', "is not a table: line 2: .* expected after"),
        (b'file,caption\na.mp4,"x\nb.mp4,A 5"\nc.mp4,z\n', "line 2 has quotes that end only after the row of b.mp4"),
        (b"file,text,prompt\na.mp4,x,y\n", "has 'text' and 'prompt', which all mean caption; name one caption"),
        (b"file,caption,Caption\na.mp4,x,y\n", "has 'caption' and 'Caption', which all mean caption"),
        (b"file,caption\n,x\n", "line 2 names no file"),
        (b"file,caption\na.mp4,x\na.mp4,y\n", "line 3 names a.mp4 again"),
        (b"file,caption\na.mp4," + b"x" * 200_000, "is not a table"),
    ],
)
def test_unusable_manifest_is_reported(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "m.csv").write_bytes(content)

    with pytest.raises(ValueError, match=message) as caught:
        read_manifest(tmp_path / "m.csv", tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"file_name": "a.mp4", "text": {"en": "x"}}', "line 2: its caption is a dict, where a text"),
        ('{"file_name": "a.mp4", "label": [1]}', "line 2: its label is a list, where a text"),
        ('{"file_name": 3, "text": "x"}', "line 2 names no file, but 3"),
        ('{"name": "a.mp4", "text": "x"}', "has no column 'file'"),
        ("{", "line 2 is no JSON object"),
        ("[" * 10**5, "line 2 is no JSON object"),
    ],
)
def test_unusable_line_of_a_json_manifest_is_reported(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "0.mp4"}\n' + line + "\n")

    with pytest.raises(ValueError, match=message):
        read_manifest(tmp_path / "metadata.jsonl", tmp_path)


ROWS = {"a.mp4": Annotation("a dog", "3", ("a puppy",)), "b.mp4": Annotation("", "")}


@pytest.mark.parametrize("names", [("file_name", "text"), ("video", "prompt"), ("Path", "Caption")])
def test_manifests_of_other_forms_say_the_same(tmp_path: Path, names: tuple[str, str]) -> None:
    file, caption = names
    records = [
        {file: "a.mp4", caption: ["a dog ", "a puppy"], "label": 3.0, "other": {"x": 1}},
        {file: "./b.mp4", caption: None, "label": None, "other": None},
    ]
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "metadata.parquet")
    (tmp_path / "list.JSONL").write_text("\n".join(map(json.dumps, records)).replace("null", "NaN"), "utf-8-sig")

    for name in ("metadata.parquet", "list.JSONL"):
        assert read_manifest(tmp_path / name, tmp_path).rows == ROWS


def test_parquet_that_is_damaged_or_unpacks_to_too_much_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "metadata.parquet"
    table = pa.table({"file": [f"{number}.mp4" for number in range(1000)], "caption": ["a dog " * 1000] * 1000})
    pq.write_table(table, path, write_page_checksum=True)
    assert len(read_manifest(path, tmp_path).rows) == 1000
    sound = path.read_bytes()
    monkeypatch.setattr(caption_tables, "MAX_MANIFEST_BYTES", len(sound))
    with pytest.raises(ValueError, match=rf"metadata.parquet: unpacks to more than {len(sound)} bytes$"):
        read_manifest(path, tmp_path)
    for damaged in (sound[:-1], sound[:99] + bytes([sound[99] ^ 1]) + sound[100:], b"", sound + b"x"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"metadata.parquet: ") as caught:
            read_manifest(path, tmp_path)
        assert "\n" not in str(caught.value)


def test_prompts_and_videos_go_line_by_line(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_bytes(b"a dog, running\r\n\r\na cat\r\n")
    assert find_manifest(tmp_path, None) is None
    (tmp_path / "Videos.txt").write_text("sub/a.mp4\nb.mp4\nc.mp4\n\n")

    path = tmp_path / "prompts.txt"
    assert find_manifest(tmp_path, None) == path
    manifest = read_manifest(path, tmp_path)
    assert manifest.rows == {
        "sub/a.mp4": Annotation("a dog, running"),
        "b.mp4": Annotation(),
        "c.mp4": Annotation("a cat"),
    }
    assert manifest.files == (tmp_path / "prompts.txt", tmp_path / "Videos.txt")
    (tmp_path / "Videos.txt").write_text("sub/a.mp4\nb.mp4\n")
    with pytest.raises(ValueError, match=r"prompts.txt: has 3 lines, where videos.txt has 2; they go line by line"):
        read_manifest(path, tmp_path)


def test_several_manifests_are_one_line(tmp_path: Path) -> None:
    for name in ("manifest.csv", "metadata.jsonl"):
        (tmp_path / name).touch()

    with pytest.raises(ValueError, match=r"has several manifests: manifest.csv, metadata.jsonl; choose one with man"):
        find_manifest(tmp_path, None)
    assert find_manifest(tmp_path, Path("manifest.csv")) == tmp_path / "manifest.csv"


@pytest.mark.parametrize(
    ("encoding", "note"),
    [("utf-16", ("m.csv: read as UTF-16",)), ("cp1252", ("m.csv: read as cp1252",)), ("utf-8", ())],
)
def test_manifest_of_another_encoding_is_read_and_said(tmp_path: Path, encoding: str, note: tuple[str, ...]) -> None:
    (tmp_path / "m.csv").write_text("sep=;\nfile;caption\na.mp4;caf\u00e9, open\n", encoding)

    manifest = read_manifest(tmp_path / "m.csv", tmp_path)

    assert (manifest.rows, manifest.notes) == ({"a.mp4": Annotation("caf\u00e9, open")}, note)


def test_quoted_texts_may_have_lines_quotes_and_separators(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text('file,caption\na.mp4,"one, ""two""\nthree"\n\n,\nb.mp4,5" long,\n')

    rows = read_manifest(tmp_path / "m.csv", tmp_path).rows

    assert rows == {"a.mp4": Annotation('one, "two"\nthree'), "b.mp4": Annotation('5" long')}


def test_manifest_in_the_folder_is_found_by_its_name(tmp_path: Path) -> None:
    assert find_manifest(tmp_path, None) is None
    (tmp_path / "MANIFEST.tsv").touch()
    (tmp_path / "other.csv").touch()

    assert find_manifest(tmp_path, None) == tmp_path / "MANIFEST.tsv"
    assert find_manifest(tmp_path, Path("other.csv")) == tmp_path / "other.csv"
    with pytest.raises(ValueError, match=r"manifest=lost.csv: no such file"):
        find_manifest(tmp_path, Path("lost.csv"))


def test_text_beside_a_video_is_its_caption(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("  a dog\n runs \n")

    assert read_sidecars(tmp_path / "a.mp4").annotation == Annotation("a dog runs")


@pytest.mark.parametrize("name", ["a.mp4.txt", "a.TXT", "a.MP4.Txt", "a.mp4.json"])
def test_names_of_sidecars_may_have_the_suffix_of_the_video_and_capitals(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text('{"text": "a dog"}' if name.endswith("json") else "a dog")
    video = tmp_path / ("a.MP4" if "MP4" in name else "a.mp4")

    assert read_sidecars(video) == SidecarContent(Annotation("a dog"), (tmp_path / name,))


def test_sidecars_are_found_in_either_unicode_form(tmp_path: Path) -> None:
    (tmp_path / unicodedata.normalize("NFD", "caf\u00e9.txt")).write_text("a dog")

    assert read_sidecars(tmp_path / "caf\u00e9.mp4").annotation == Annotation("a dog")


def test_sidecars_that_differ_are_named_and_not_used(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a dog")
    (tmp_path / "a.mp4.txt").write_text("a dog\n")
    assert read_sidecars(tmp_path / "a.mp4").annotation == Annotation("a dog")
    (tmp_path / "a.mp4.txt").write_text("a cat")

    beside = read_sidecars(tmp_path / "a.mp4")

    assert beside.annotation == Annotation()
    assert beside.faults == ("a.txt and a.mp4.txt beside it differ, and none is used; keep one",)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"caption": "a cat", "label": "cat"}', Annotation("a cat", "cat")),
        ('{"label": 3, "other": [1]}', Annotation("a dog", "3")),
        ('{"caption": "", "label": null}', Annotation("a dog")),
        ('{"caption": ["a cat", "a kitten"]}', Annotation("a cat", "", ("a kitten",))),
        ('{"camera": "x"}', Annotation("a dog")),
    ],
)
def test_json_beside_a_video_goes_before_text(tmp_path: Path, text: str, expected: Annotation) -> None:
    (tmp_path / "a.txt").write_text("a dog")
    (tmp_path / "a.json").write_text(text)

    beside = read_sidecars(tmp_path / "a.mp4")
    assert (beside.annotation, beside.faults) == (expected, ())
    assert (tmp_path / "a.json" in beside.used) == ("camera" not in text)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b"{", "a.json beside it is not JSON"),
        ("a.json", b'{"caption": {"en": "x"}}', "a.json beside it can't be used: its caption is a dict"),
        ("a.json", b"[1, 2]", "a.json beside it can't be used: a list is no object"),
        ("a.json", b'{"text": "x", "prompt": "y"}', "a.json beside it can't be used: has 'text' and 'prompt'"),
        ("a.mp4.json", b'{"label": [1]}', "a.mp4.json beside it can't be used: its label is a list"),
        ("a.txt", b"\x81", "a.txt beside it is no text in UTF-8"),
    ],
)
def test_unusable_sidecar_is_reported(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    (tmp_path / "a.txt" if name != "a.txt" else tmp_path / "a.json").write_text('{"caption": "a dog"}')

    beside = read_sidecars(tmp_path / "a.mp4")

    (fault,) = beside.faults
    assert fault.startswith(message)
    assert "a dog" in beside.annotation.caption  # what the other says is used all the same


def test_manifest_goes_before_sidecars_field_by_field() -> None:
    assert merge(Annotation("", "dog"), Annotation("a cat", "cat")) == Annotation("a cat", "dog")


@pytest.mark.parametrize(
    ("labels", "expected"), [(["10", "9", "", "9"], ("9", "10")), (["b", "a", "10"], ("10", "a", "b")), ([""], ())]
)
def test_classes_are_in_order(labels: list[str], expected: tuple[str, ...]) -> None:
    assert label_names(Annotation("", label) for label in labels) == expected
