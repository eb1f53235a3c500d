import os
from pathlib import Path

import pytest

from tests.odd_files import ODD_FILES
from vdm.regular_files import FilePart, UnfitFileError, open_descriptor, open_regular, read_limited


@pytest.mark.parametrize("kind", ODD_FILES)
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    ODD_FILES[kind](tmp_path / "odd")
    for read in (open_regular, lambda path: read_limited(path, 10)):
        with pytest.raises(UnfitFileError, match=rf"is {kind}, not a file"):
            read(tmp_path / "odd")


def test_a_file_is_read_up_to_its_greatest_size(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_limited(path, 5) == b"12345"
    with pytest.raises(UnfitFileError, match="has more than the 4 bytes"):
        read_limited(path, 4)
    os.truncate(path, 1 << 40)  # all but the first bytes are a hole
    with pytest.raises(UnfitFileError, match="has more than the 1000 bytes"):
        read_limited(path, 1000)


def test_links_are_followed_unless_told_otherwise(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"a")
    (tmp_path / "link").symlink_to("file")
    assert read_limited(tmp_path / "link", 1) == b"a"
    with pytest.raises(UnfitFileError, match="is a symbolic link, not a file"):
        open_descriptor(tmp_path / "link", follow_links=False)
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "nowhere")


def test_a_part_of_a_file_reads_like_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(range(100)))
    with open_regular(tmp_path / "file") as file:
        part = FilePart.open(file, 10, 20)
        assert part.read() == bytes(range(10, 30))
        assert (part.seek(-5, os.SEEK_END), part.read()) == (15, bytes(range(25, 30)))
        assert (part.seek(4), part.read(3), part.tell()) == (4, bytes(range(14, 17)), 7)
        assert FilePart.open(file, 90, 1 << 60).read(1 << 20) == bytes(range(90, 100))
