"""Every row of a manifest and every file beside a video is used or named."""

import json
import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from data_pipelines.annotations import Annotation
from data_pipelines.clips import VideoFile
from data_pipelines.report import print_faults
from data_pipelines.set_settings import VerifySettings
from data_pipelines.show import ShowSettings, show
from data_pipelines.sources import Inputs
from data_pipelines.verify import verify
from data_pipelines.video_folder import read_video_folder
from tests.data_pipelines.conftest import Build, Curate
from tests.data_pipelines.videos import CLIP
from vdm.data.index import read_index
from vdm.data.sidecars import read_samples


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five files named as videos, which nothing here reads."""
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    for name in ("a.mp4", "b.MP4", "caf\u00e9.mp4", "sub/c.mp4", "notes.docx"):
        (folder / name).touch()
    return folder


def read(folder: Path, manifest: str | None = None) -> Inputs[VideoFile]:
    if manifest is not None:
        (folder / "manifest.csv").write_text(f"file,caption\n{manifest}")
    return read_video_folder(str(folder), None, [], CLIP)


def captions(inputs: Inputs[VideoFile]) -> dict[str, str]:
    return {name: annotation.caption for name, annotation in inputs.annotations.items() if annotation.caption}


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("a.mp4", "a.mp4"),
        ("./a.mp4", "a.mp4"),
        ("sub/../a.mp4", "a.mp4"),
        ("sub\\c.mp4", "sub/c.mp4"),
        (".\\sub\\c.mp4", "sub/c.mp4"),
        ("link.mp4", "a.mp4"),
        ("linked/c.mp4", "sub/c.mp4"),
        (unicodedata.normalize("NFD", "caf\u00e9.mp4"), "caf\u00e9.mp4"),
        ("{folder}/b.MP4", "b.MP4"),
        ("{other}/c.mp4", "sub/c.mp4"),
    ],
)
def test_row_of_a_manifest_finds_its_video_by_any_path(folder: Path, written: str, name: str) -> None:
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "link.mp4").symlink_to(folder / "a.mp4")
    (folder.parent / "other").symlink_to(folder / "sub")
    written = written.format(folder=folder, other=folder.parent / "other")
    written = {"link.mp4": ".hidden/link.mp4", "linked/c.mp4": "../other/c.mp4"}.get(written, written)

    inputs = read(folder, f"{written},a dog\n")

    assert (captions(inputs), inputs.faults) == ({name: "a dog"}, {})


def test_row_of_no_video_is_named_with_the_reason(folder: Path) -> None:
    (folder.parent / "outside.mp4").touch()
    (folder / ".hidden.mp4").touch()
    rows = ["lost.mp4", "../outside.mp4", "notes.docx", ".hidden.mp4", "A.mp4", "x" * 300, "\\", "sub"]

    inputs = read(folder, "".join(f"{row},a dog\n" for row in rows))

    reasons = {
        name: fault.removeprefix(f"is in {folder / 'manifest.csv'} but ") for name, fault in inputs.faults.items()
    }
    assert captions(inputs) == {}
    assert reasons == {
        **dict.fromkeys(("lost.mp4", "A.mp4", "x" * 300, "\\", "sub"), "not in the folder"),
        "../outside.mp4": f"lies outside of {folder}",
        **dict.fromkeys(("notes.docx", ".hidden.mp4"), "is no video, or hidden"),
    }


def test_a_file_with_links_to_it_is_taken_once(folder: Path) -> None:
    (folder / "0.mp4").symlink_to(folder / "a.mp4")
    (folder / "1.mp4").symlink_to(folder / "0.mp4")
    (folder / "elsewhere.mp4").symlink_to(folder.parent / "b.mp4")

    inputs = read(folder, "0.mp4,a dog\n")

    assert [source.name for source in inputs.sources] == [
        *("a.mp4", "b.MP4", "caf\u00e9.mp4", "elsewhere.mp4", "sub/c.mp4"),
    ]
    assert captions(inputs) == {"a.mp4": "a dog"}
    assert inputs.notes == tuple(f"{link}.mp4: is the same file as a.mp4, which is taken once" for link in (0, 1))
    with pytest.raises(ValueError, match=r"a\.mp4 and 0\.mp4 are one file, with different captions or labels$"):
        read(folder, "a.mp4,a dog\n0.mp4,a cat\n")


def test_animated_pictures_are_videos_or_named(folder: Path) -> None:
    first, *rest = (Image.new("RGB", (16, 16), (40 * number,) * 3) for number in range(4))
    for name in ("film.png", "film.webp", "film.avif"):
        first.save(folder / name, save_all=True, append_images=rest)
    for name in ("still.png", "still.webp", "still.avif"):
        first.save(folder / name)

    inputs = read(folder)

    assert "film.png" in [source.name for source in inputs.sources]
    assert inputs.faults == {
        f"film.{kind.lower()}": f"is an animated {kind}, which is not read; make it a video"
        for kind in ("WebP", "AVIF")
    }
    assert set(inputs.ignored) == {"notes.docx", "still.png", "still.webp", "still.avif"}


def test_two_rows_of_one_video_must_agree(folder: Path) -> None:
    assert read(folder, "a.mp4,a dog\nsub/../a.mp4,a dog\n").faults == {}
    with pytest.raises(
        ValueError, match=r"a\.mp4 and sub/\.\./a\.mp4 are one file, with different captions or labels$"
    ):
        read(folder, "a.mp4,a dog\nsub/../a.mp4,a cat\n")


def test_files_passed_over_are_those_that_nothing_used(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.txt", "b.txt", "b.MP4.txt", "caf\u00e9.txt"):
        (folder / name).write_bytes(b"caf\xe9")
    for name in ("lost.txt", "more.txt", "notes.txt", "zebra.txt"):
        (folder / name).write_text("a dog")
    (folder / "sub" / "c.json").write_text('{"caption": {"en": "a dog"}}')
    (folder / "a.json").write_text('{"camera": "x"}')

    inputs = read(folder, "a.mp4,\nb.MP4,a cat\n")

    assert captions(inputs) == {"a.mp4": "caf\u00e9", "b.MP4": "a cat", "caf\u00e9.mp4": "caf\u00e9"}
    assert print_faults([], inputs)
    assert capsys.readouterr().err.splitlines() == [
        "sub/c.mp4: c.json beside it can't be used: its caption is a dict, where a text, a number or a list of texts "
        "is allowed",
        "a.txt and 3 others: read as cp1252",
        "Not videos, passed over: 1 .docx, 1 .json (a.json), 4 .txt (lost.txt, more.txt, notes.txt, \u2026)",
    ]
    assert set(inputs.ignored) == {"notes.docx", "a.json", "lost.txt", "more.txt", "notes.txt", "zebra.txt"}


def _metadata(shards: Path) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for shard in read_index(shards).shards():
        for sample in read_samples(shards, shard):
            member = sample.members["json"]
            found.append(json.loads((shards / shard.name).read_bytes()[member.offset :][: member.length]))
    return found


@pytest.mark.parametrize("command", ["build", "curate"])
def test_several_captions_of_a_video_are_kept_and_clips_without_any_counted(
    command: str, videos: Path, tmp_path: Path, run_build: Build, run_curate: Curate
) -> None:
    rows = [{"file_name": "a.mp4", "text": ["a dog", "a puppy"]}, {"file_name": "b.mp4", "text": "a cat"}]
    (videos / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    plain = ("shots=none", "filter=none", "drop_exact_duplicates=false")

    done = run_build() if command == "build" else run_curate(f"input={videos}", *plain)

    assert (done.code, "passed over" in done.err) == (0, False)
    said = {str(one["source"]): one["caption"] for one in _metadata(tmp_path / "shards")}
    assert said == {"a.mp4": ["a dog", "a puppy"], "b.mp4": "a cat", "sub/c.mp4": ""}
    without = sum(not one["caption"] for one in _metadata(tmp_path / "shards"))
    assert f"; without a caption: {without}\n" in done.out
    index = read_index(tmp_path / "shards")
    assert sum((index.num_uncaptioned or {}).values()) == without
    assert verify(VerifySettings(tmp_path / "shards", num_workers=0)) == 0
    show(ShowSettings(tmp_path / "shards"))
    assert "<p>a dog | a puppy</p>" in (tmp_path / "shards" / "contact_sheet.html").read_text(encoding="utf-8")


def test_inputs_of_one_caption_are_digested_as_before() -> None:
    from data_pipelines.report import _digested

    assert _digested(Annotation("a dog", "dog")) == {"caption": "a dog", "label": "dog"}
