"""SHA-256 of files that are read once, and again whenever they may have changed."""

import hashlib
import json
import os
import time
from pathlib import Path

import pytest

from vdm.evaluation.sources import file_digests
from vdm.evaluation.sources.file_digests import FileDigests

LONG_AGO = 10**18
"""A time, in nanoseconds, that lies years back."""


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Two files whose last change is a minute ago, to the clock that these digests go by."""
    folder = tmp_path / "videos"
    folder.mkdir()
    paths = [folder / name for name in ("a.mp4", os.fsdecode(b"b\xff.mp4"))]
    for path in paths:
        path.write_bytes(path.name.encode(errors="surrogateescape"))
    now = time.time_ns
    monkeypatch.setattr(file_digests.time, "time_ns", lambda: now() + 60 * 10**9)
    return paths


def hashed(digests: FileDigests, files: list[Path], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the files whose content is read for their digests, which must be the true ones."""
    read: list[str] = []
    true = hashlib.file_digest

    def counted(file: object, name: str) -> object:
        read.append(Path(file.name).name)  # type: ignore[attr-defined]
        return true(file, name)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(hashlib, "file_digest", counted)
        found = digests.of(files[0].parent, files)
    assert found == [hashlib.sha256(path.read_bytes()).digest() for path in files]
    return read


def names(files: list[Path]) -> list[str]:
    return [path.name for path in files]


def test_unchanged_files_are_read_once(files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digests = FileDigests(tmp_path / "kept")
    assert hashed(digests, files, monkeypatch) == names(files)
    assert hashed(digests, files, monkeypatch) == []
    assert hashed(FileDigests(None), files, monkeypatch) == names(files)


def test_change_is_seen_though_size_and_time_of_the_file_stay(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = FileDigests(tmp_path / "kept")
    os.utime(files[0], ns=(LONG_AGO, LONG_AGO))
    hashed(digests, files, monkeypatch)
    size = files[0].stat().st_size
    time.sleep(0.02)  # a step of the kernel's clock
    files[0].write_bytes(b"x" * size)
    os.utime(files[0], ns=(LONG_AGO, LONG_AGO))
    assert hashed(digests, files, monkeypatch) == [files[0].name]
    replacement = tmp_path / "new"
    replacement.write_bytes(b"y" * size)
    replacement.replace(files[0])
    assert hashed(digests, files, monkeypatch) == [files[0].name]


def test_file_that_changed_a_moment_ago_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path := tmp_path / "a.mp4").write_bytes(b"new")
    os.utime(path, ns=(LONG_AGO, LONG_AGO))
    digests = FileDigests(tmp_path / "kept")
    for _ in range(2):
        assert hashed(digests, [path], monkeypatch) == ["a.mp4"]


def test_unreadable_files_and_damaged_records_are_no_error(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = FileDigests(tmp_path / "kept")
    os.mkfifo(pipe := files[0].parent / "pipe.mp4")
    assert digests.of(files[0].parent, [files[0], pipe])[1].startswith(b"unreadable")
    (record,) = (tmp_path / "kept").iterdir()
    entry = {"status": [1], "sha256": "no number"}
    for damaged in ("{", "[]", json.dumps({"a.mp4": entry}), json.dumps({"a.mp4": 1})):
        record.write_text(damaged)
        assert hashed(digests, files, monkeypatch) == names(files)
    (tmp_path / "file").write_text("")
    assert hashed(FileDigests(tmp_path / "file"), files, monkeypatch) == names(files)
