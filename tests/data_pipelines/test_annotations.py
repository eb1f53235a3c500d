from pathlib import Path

import pytest

from data_pipelines.annotations import Annotation, find_manifest, label_names, merge, read_manifest, read_sidecars


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

    rows = read_manifest(tmp_path / "list", tmp_path)

    assert rows == {"a/b.mp4": Annotation("a dog, running", "dog"), "c.mp4": Annotation()}


def test_manifest_may_name_files_absolutely(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text(f"file,caption\n{tmp_path.resolve()}/a.mp4,x\n")

    assert read_manifest(tmp_path / "m.csv", tmp_path) == {"a.mp4": Annotation("x")}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"name,caption\na,b\n", "has no column 'file'; its columns are name, caption"),
        (b"", "has no column 'file'; its columns are none"),
        (b"file,caption\na.mp4,caf\xe9\n", "is not UTF-8 text"),
        (b"file,caption\na.mp4,x\na.mp4,y\n", "line 3 names a.mp4 again"),
        (b"file,caption\na.mp4," + b"x" * 200_000, "is not a table"),
    ],
)
def test_unusable_manifest_is_reported(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "m.csv").write_bytes(content)

    with pytest.raises(ValueError, match=message):
        read_manifest(tmp_path / "m.csv", tmp_path)


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

    assert read_sidecars(tmp_path / "a.mp4") == Annotation("a dog runs")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"caption": "a cat", "label": "cat"}', Annotation("a cat", "cat")),
        ('{"label": 3, "other": [1]}', Annotation("a dog", "3")),
        ("[1, 2]", Annotation("a dog")),
    ],
)
def test_json_beside_a_video_goes_before_text(tmp_path: Path, text: str, expected: Annotation) -> None:
    (tmp_path / "a.txt").write_text("a dog")
    (tmp_path / "a.json").write_text(text)

    assert read_sidecars(tmp_path / "a.mp4") == expected


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b"{", "a.json beside it is not JSON"),
        ("a.json", b'{"caption": ["x"]}', "a.json beside it has"),
        ("a.txt", b"caf\xe9", "a.txt beside it is not UTF-8"),
    ],
)
def test_unusable_sidecar_is_reported(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises(ValueError, match=message):
        read_sidecars(tmp_path / "a.mp4")


def test_manifest_goes_before_sidecars_field_by_field() -> None:
    assert merge(Annotation("", "dog"), Annotation("a cat", "cat")) == Annotation("a cat", "dog")


@pytest.mark.parametrize(
    ("labels", "expected"), [(["10", "9", "", "9"], ("9", "10")), (["b", "a", "10"], ("10", "a", "b")), ([""], ())]
)
def test_classes_are_in_order(labels: list[str], expected: tuple[str, ...]) -> None:
    assert label_names(Annotation("", label) for label in labels) == expected
