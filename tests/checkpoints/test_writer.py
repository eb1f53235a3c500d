import errno
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from vdm.checkpoints import snapshot as snapshots
from vdm.checkpoints import writer as writers
from vdm.checkpoints.folder import verify_folder
from vdm.checkpoints.pieces import Piece
from vdm.checkpoints.snapshot import SavedCheckpoint
from vdm.checkpoints.writer import CheckpointWriter


def pieces(value: float = 1.0) -> dict[str, dict[str, Piece]]:
    return {"model": {"w": Piece.whole(torch.full((3,), value))}, "ema": {"w": Piece.whole(torch.zeros(3))}}


def test_finished_checkpoint_is_whole_and_reads_as_it_was_given(tmp_path: Path) -> None:
    writer = CheckpointWriter()
    writer.start(tmp_path / "one", pieces(), {"step": 3, "nested": {"tensor": torch.ones(2), "best": float("inf")}})
    assert writer.finish() == tmp_path / "one"
    verify_folder(tmp_path / "one")
    checkpoint = SavedCheckpoint(tmp_path / "one")
    assert checkpoint.weights.whole("w").tolist() == [1, 1, 1]
    assert checkpoint.ema.whole("w").tolist() == [0, 0, 0]
    state = checkpoint.state()
    assert state["nested"].pop("tensor").tolist() == [1, 1]
    assert state == {"step": 3, "nested": {"best": float("inf")}}
    assert writer.finish() is None


def test_checkpoint_appears_only_once_it_is_written_and_nobody_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    write = snapshots.write_pieces

    def slow(*args: Any) -> None:
        assert go_on.wait(30)
        write(*args)

    monkeypatch.setattr(snapshots, "write_pieces", slow)
    writer, given = CheckpointWriter(), pieces()
    writer.start(tmp_path / "one", given, {})
    given["model"]["w"].values.zero_()  # the next step of training
    assert writer.poll() is None
    assert not (tmp_path / "one").exists()
    go_on.set()
    deadline = time.monotonic() + 30
    while writer.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert SavedCheckpoint(tmp_path / "one").weights.whole("w").tolist() == [1, 1, 1]


@pytest.mark.parametrize("way", ["poll", "finish"])
def test_folder_that_was_begun_before_is_complete_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    go_on = threading.Event()
    write, finish = snapshots.write_pieces, writers.finish_folder
    named: list[str] = []

    def slow(path: Path, *args: Any) -> None:
        assert "first" not in str(path) or go_on.wait(30)
        write(path, *args)

    def noted(folder: Path, *args: Any) -> None:
        finish(folder, *args)
        named.append(folder.name)

    monkeypatch.setattr(snapshots, "write_pieces", slow)
    monkeypatch.setattr(writers, "finish_folder", noted)
    before = CheckpointWriter()
    writer = CheckpointWriter(after=before)
    before.start(tmp_path / "first", pieces(), None)
    writer.start(tmp_path / "second", pieces(), {})
    writer._written.result(30)
    assert writer.poll() is None
    go_on.set()
    deadline = time.monotonic() + 30
    while (writer.finish() if way == "finish" else writer.poll()) is None:
        assert time.monotonic() < deadline
    assert named == ["first", "second"]
    assert before.finish() is None


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_storage_that_fails_while_writing_is_told_at_the_next_step_and_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    writer = CheckpointWriter()
    writer.start(tmp_path / "step=00000001", pieces(), {})
    writer.finish()

    def fail(*args: Any) -> None:
        raise OSError(code, "No space left on device")

    monkeypatch.setattr(snapshots, "write_pieces", fail)
    writer.start(tmp_path / "step=00000002", pieces(), {})
    with pytest.raises(ValueError, match=r"^\S*step=00000002: can't be saved: No space left on device; "):
        writer.finish()
    assert [path.name for path in tmp_path.iterdir()] == ["step=00000001"]
    verify_folder(tmp_path / "step=00000001")
    monkeypatch.undo()
    writer.start(tmp_path / "step=00000003", pieces(), {})
    assert writer.finish() == tmp_path / "step=00000003"
    verify_folder(tmp_path / "step=00000003")


def test_folder_that_cannot_be_made_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file in the way")
    with pytest.raises(ValueError, match=r"can't be saved: "):
        CheckpointWriter().start(tmp_path / "checkpoints" / "step=00000001", pieces(), {})


def test_what_cannot_be_saved_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^checkpoint\.callbacks\.hook: a builtins\.function can't be saved"):
        CheckpointWriter().start(tmp_path / "one", pieces(), {"callbacks": {"hook": pieces}})
    assert not list(tmp_path.iterdir())


def test_files_hold_tensors_alone_and_no_pickle(tmp_path: Path) -> None:
    writer = CheckpointWriter()
    writer.start(tmp_path / "one", pieces(), {"step": 1})
    writer.finish()
    assert {path.suffix for path in (tmp_path / "one").iterdir()} == {".safetensors", ".json"}
