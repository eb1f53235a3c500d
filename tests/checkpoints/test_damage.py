"""Files of a checkpoint that are whole, but not what they should be: one line that names file and key."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from vdm.checkpoints.folder import CHECKSUMS_NAME, verify_folder, write_folder
from vdm.checkpoints.pieces import PieceFiles
from vdm.checkpoints.run_record import record_run, versions_of
from vdm.checkpoints.snapshot import SavedCheckpoint, save_weights


def change(path: Path, action: Callable[[Any], Any]) -> None:
    path.write_text(json.dumps(action(json.loads(path.read_text()))))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    save_weights(tmp_path / "step=00000001", {"a": torch.ones(3)})
    return tmp_path / "step=00000001"


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda listed: [], r"checksums.json is missing or damaged: \[\]: Input should be a valid dictionary"),
        (lambda listed: {"files": listed["files"]}, "missing or damaged: format is missing"),
        (lambda listed: {**listed, "format": 2}, "missing or damaged: format 2: Input should be a valid string"),
        (lambda listed: {**listed, "format": "other"}, "checksums.json: format 'other': must be 'vdm-checkpoint-1'"),
        (lambda listed: {**listed, "files": {}}, "checksums.json: files {}: must not be empty"),
        (lambda listed: {**listed, "files": {"state.json": 3}}, r"files\.state\.json 3: Input should be a valid dict"),
        (
            lambda listed: {**listed, "files": {"../../secret": {"bytes": 1, "blake2b": ""}}},
            "files.../../secret: not the name of a file beside it",
        ),
    ],
)
def test_list_of_checksums_of_another_form_is_one_line(
    checkpoint: Path, damage: Callable[[Any], Any], complaint: str
) -> None:
    change(checkpoint / CHECKSUMS_NAME, damage)
    with pytest.raises(ValueError, match=complaint):
        verify_folder(checkpoint)


def test_link_in_the_place_of_a_checkpoints_file_is_refused(checkpoint: Path) -> None:
    state = checkpoint / "state.json"
    state.rename(checkpoint.parent / "elsewhere.json")
    state.symlink_to(checkpoint.parent / "elsewhere.json")
    with pytest.raises(ValueError, match=r"state\.json: a link, where a checkpoint has files"):
        verify_folder(checkpoint)


@pytest.mark.parametrize(
    ("pieces", "complaint"),
    [
        ("[1", "its list of pieces: can't be read as JSON"),
        ("[]", r"its list of pieces: \[\]: Input should be a valid dictionary"),
        ('{"a": {"shape": [3]}}', "its list of pieces: a.start is missing"),
        ('{"a": {"shape": ["3"], "start": 0}}', "its list of pieces: a.shape.0 '3': Input should be a valid integer"),
        ('{"a": {"shape": [3], "start": -1}}', "its list of pieces: a.start -1: Input should be greater than or equal"),
        ('{"a": {"shape": [9], "start": 0}}', "a part of a is missing"),
        ('{"a": {"shape": [3], "start": 7}}', "a part of a is missing"),
    ],
)
def test_pieces_that_say_the_impossible_are_one_line(tmp_path: Path, pieces: str, complaint: str) -> None:
    save_file({"a": torch.ones(3)}, tmp_path / "model.safetensors", {"pieces": pieces})
    with pytest.raises(ValueError, match=complaint):
        PieceFiles(tmp_path, "model")


def test_pieces_of_different_tensors_do_not_make_one(tmp_path: Path) -> None:
    for number, (shape, start) in enumerate([([2, 3], 0), ([6], 3)]):
        pieces = json.dumps({"a": {"shape": shape, "start": start}})
        save_file({"a": torch.ones(3)}, tmp_path / f"model-{number:05d}.safetensors", {"pieces": pieces})
    with pytest.raises(
        ValueError, match=r"model-00001\.safetensors: a: a piece of a tensor of shape \(6,\), and not of \(2, 3"
    ):
        PieceFiles(tmp_path, "model")


def test_file_of_weights_that_is_none_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(ValueError, match=r"model\.safetensors: not a whole safetensors file"):
        PieceFiles(tmp_path, "model")


@pytest.mark.parametrize(
    ("state", "complaint"),
    [
        ("[]", r"state\.json: \[\]: Input should be a valid dictionary"),
        ('{"a": {"$tensor": "absent"}}', r"state\.json: damaged: KeyError: 'absent'"),
        ('{"a": {"$float": "much"}}', r"state\.json: damaged: ValueError: could not convert"),
        ('{"a": {"$tuple": 3}}', r"state\.json: damaged: TypeError"),
        ('{"a": {"$dict": [1]}}', r"state\.json: damaged: TypeError"),
    ],
)
def test_state_of_another_form_is_one_line(tmp_path: Path, state: str, complaint: str) -> None:
    def write(folder: Path) -> None:
        (folder / "state.json").write_text(state)
        save_file({}, folder / "state.safetensors")

    write_folder(tmp_path / "c", write)
    verify_folder(tmp_path / "c")
    with pytest.raises(ValueError, match=complaint):
        SavedCheckpoint(tmp_path / "c").state()


def test_names_of_averages_that_are_none_are_one_line(tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        (folder / "state.json").write_text('{"ema_names": [1]}')

    write_folder(tmp_path / "c", write)
    with pytest.raises(ValueError, match=r"state\.json: ema_names\.0 1: Input should be a valid string"):
        SavedCheckpoint(tmp_path / "c").named_ema("half_life")


@pytest.mark.parametrize("content", ["", "{}", '[{"packages": {"torch": 2}}]', "[1]"])
def test_damaged_log_of_versions_is_set_aside_with_a_warning_when_a_run_goes_on(
    tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "versions.json"
    path.write_text(content)
    record_run(tmp_path, {})
    (aside,) = tmp_path.glob("versions.json.damaged-*")
    assert aside.read_text() == content
    (line,) = caplog.messages
    assert line.startswith(f"{path}: ")
    assert line.endswith(f"; it is only a log: set aside as {aside.name}, and begun anew")
    assert len(versions_of(tmp_path)) == 1
