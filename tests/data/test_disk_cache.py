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
