import os
from pathlib import Path

import pytest

from vdm.data.disk_cache import DiskCache

MIB = 1 / 1024


def stored_bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def test_values_come_back_in_any_process(tmp_path: Path) -> None:
    DiskCache(tmp_path, MIB).put("a", b"value")
    other = DiskCache(tmp_path, MIB)
    assert other.get("a") == b"value"
    assert other.get("b") is None


def test_the_size_is_bounded_and_what_was_used_longest_ago_leaves_first(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, MIB)
    for number in range(40):
        cache.put(str(number), bytes(100_000))
        assert cache.get("0") is not None  # in use all the time
        for file in tmp_path.rglob("*"):
            os.utime(file, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns - 10**9))  # a second goes by
        assert stored_bytes(tmp_path) <= 1.05 * 2**20
    assert cache.get("1") is None
    assert cache.get("39") is not None


def test_a_damaged_value_counts_as_absent(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, MIB)
    cache.put("a", b"value")
    (file,) = (file for file in tmp_path.rglob("*") if file.is_file())
    file.write_bytes(file.read_bytes()[:-1] + b"X")
    assert cache.get("a") is None


def test_a_value_that_is_dropped_is_absent(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, MIB)
    cache.put("a", b"value")
    cache.drop("a")
    assert cache.get("a") is None
    cache.drop("a")


def test_a_folder_that_can_not_be_written_is_no_reason_to_stop(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    cache = DiskCache(tmp_path / "file", MIB)
    cache.put("a", b"value")
    assert cache.get("a") is None


def test_impossible_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^cache_gib=0: must be above 0$"):
        DiskCache(tmp_path, 0)


def fill(path: Path) -> None:
    """Write what looks like values of a cache, and is older than any."""
    (path / "ab").mkdir(parents=True, exist_ok=True)
    for name in ("ab" + "0" * 30, "holiday.jpg"):
        (path / "ab" / name).write_bytes(bytes(1000))
        os.utime(path / "ab" / name, (0, 0))


def names(path: Path) -> list[str]:
    return sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())


def test_a_folder_that_holds_other_things_is_refused(tmp_path: Path) -> None:
    fill(tmp_path / "mine")
    with pytest.raises(ValueError, match=r"^cache_path=.*mine: is not empty and no cache; name a folder .*$"):
        DiskCache(tmp_path / "mine", MIB)
    assert len(names(tmp_path / "mine")) == 2


def test_a_folder_that_others_fill_before_the_cache_does_is_left_alone(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path / "mine", MIB / 1024)
    fill(tmp_path / "mine")
    before = names(tmp_path / "mine")
    cache.put("a", bytes(5000))
    assert names(tmp_path / "mine") == before


def test_nothing_is_deleted_but_what_a_cache_writes(tmp_path: Path) -> None:
    path, elsewhere = tmp_path / "cache", tmp_path / "elsewhere"
    cache = DiskCache(path, MIB / 1024)
    cache.put("first", bytes(100))
    fill(elsewhere)
    (path / "cd").symlink_to(elsewhere / "ab")
    (path / "notes.txt").write_bytes(bytes(5000))
    (path / "ab").mkdir(exist_ok=True)
    (path / "ab" / "holiday.jpg").write_bytes(bytes(5000))
    (path / "ab" / ("ab" + "1" * 30)).symlink_to(elsewhere / "ab" / "holiday.jpg")
    for number in range(10):
        cache.put(str(number), bytes(1000))
    kept = names(path)
    assert {"notes.txt", "ab/holiday.jpg", f"ab/{'ab' + '1' * 30}"} <= set(kept)
    assert len(names(elsewhere)) == 2
    assert cache.get("first") is None
    assert cache.get("9") is not None


def test_a_pipe_in_the_place_of_a_value_counts_as_absent(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, MIB)
    cache.put("a", b"value")
    (file,) = (file for file in tmp_path.rglob("*") if file.is_file())
    file.unlink()
    os.mkfifo(file)
    assert cache.get("a") is None
