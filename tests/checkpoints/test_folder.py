import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vdm.checkpoints.folder import CHECKSUMS_NAME, remove_folder, verify_folder, write_folder

NAMES = ("first.bin", "second.bin")


def _write(folder: Path, content: bytes) -> None:
    def write(into: Path) -> None:
        for name in NAMES:
            (into / name).write_bytes(content)

    write_folder(folder, write)


def test_written_folder_is_whole_and_alone(tmp_path: Path) -> None:
    _write(tmp_path / "deep" / "one", b"abc")

    verify_folder(tmp_path / "deep" / "one")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["one"]


@pytest.mark.parametrize("name", [*NAMES, CHECKSUMS_NAME])
@pytest.mark.parametrize("damage", ["cut", "emptied", "flipped", "removed"])
def test_damage_to_any_file_is_found(tmp_path: Path, name: str, damage: str) -> None:
    _write(tmp_path / "one", b"abc" * 1000)
    path = tmp_path / "one" / name
    content = path.read_bytes()
    if damage == "removed":
        path.unlink()
    else:
        flipped = content[:9] + bytes([content[9] ^ 64]) + content[10:]
        path.write_bytes({"cut": content[:-1], "emptied": b"", "flipped": flipped}[damage])

    with pytest.raises(ValueError, match=rf"{name}") as caught:
        verify_folder(tmp_path / "one")
    assert "\n" not in str(caught.value)


def test_failure_while_writing_leaves_the_former_version(tmp_path: Path) -> None:
    _write(tmp_path / "one", b"old")

    def fail(into: Path) -> None:
        (into / "first.bin").write_bytes(b"new")
        raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError, match="the disk is full"):
        write_folder(tmp_path / "one", fail)

    verify_folder(tmp_path / "one")
    assert (tmp_path / "one" / "first.bin").read_bytes() == b"old"


def test_folder_is_replaced_by_its_new_version(tmp_path: Path) -> None:
    _write(tmp_path / "one", b"old")
    (tmp_path / ".one.partial").mkdir()
    (tmp_path / ".one.partial" / "stale.bin").touch()

    _write(tmp_path / "one", b"new")

    assert (tmp_path / "one" / "first.bin").read_bytes() == b"new"
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == [CHECKSUMS_NAME, *NAMES]
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_removed_folder_is_gone(tmp_path: Path) -> None:
    _write(tmp_path / "one", b"abc")

    remove_folder(tmp_path / "one")

    assert not list(tmp_path.iterdir())


WRITER = """
import sys
from pathlib import Path
from vdm.checkpoints.folder import write_folder

def write(into):
    for name in ("first.bin", "second.bin"):
        (into / name).write_bytes(bytes([number % 256]) * 2_000_000)
        print(flush=True)

for number in range(10_000):
    write_folder(Path(sys.argv[1]), write)
"""


@pytest.mark.parametrize("delay", [0.0, 0.002, 0.005, 0.01, 0.02])
def test_killed_writer_leaves_a_whole_version(tmp_path: Path, delay: float) -> None:
    folder = tmp_path / "step=00000001"
    with subprocess.Popen([sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        for _ in range(7):  # while the fourth version is being written
            writer.stdout.readline()
        time.sleep(delay)
        os.kill(writer.pid, signal.SIGKILL)

    whole = folder if folder.exists() else folder.with_name(folder.name + "~")
    verify_folder(whole)
    first, second = ((whole / name).read_bytes() for name in NAMES)
    assert first == second
    assert first[0] >= 2
