"""Storage that fails under a run: the last checkpoint stays whole, and one line says what happened."""

import errno
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from safetensors.torch import load_file, save_file

from tests.training.runs import configuration, train
from vdm.checkpoints.folder import CHECKSUMS_NAME, verify_folder, write_folder
from vdm.checkpoints.latest import latest_checkpoint
from vdm.checkpoints.layout import checkpoints_of, step_of
from vdm.checkpoints.weights import load_weights
from vdm.cli.faults import is_mistake, one_line
from vdm.training.module import DiffusionModule

QUIET = ("save.every_steps=1", "save.keep.last=99", "callbacks.metrics=null", "trainer.max_steps=60")


class MakeReadOnly(Callback):
    """Lets a file system be written to no more after the second step."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: DiffusionModule, *args: object) -> None:
        if trainer.global_step == 2:
            pl_module.strategy.writer.finish()
            remount(Path(self.folder), "ro")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 16 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)]
    if not (shutil.which("mount") and subprocess.run(command, capture_output=True).returncode == 0):
        pytest.skip("mounting a file system takes root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def remount(folder: Path, mode: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{mode}", str(folder)], check=True)


@pytest.mark.parametrize("fault", ["full", "read-only"])
def test_disk_that_fails_ends_the_run_in_one_line_and_leaves_the_last_checkpoint_whole(
    small_disk: Path, shards: Path, fault: str
) -> None:
    run = small_disk / "run"
    config = configuration(shards, *QUIET)
    if fault == "read-only":
        config["callbacks"]["fault"] = {"_target_": f"{__name__}.MakeReadOnly", "folder": str(small_disk)}
    reason = "No space left on device" if fault == "full" else "Read-only file system"
    with pytest.raises(ValueError, match=rf"can't be saved: .*{reason}.*; checkpoints saved before are whole$") as told:
        train(run, config)
    assert "\n" not in str(told.value)
    remount(small_disk, "rw")
    saved = checkpoints_of(run)
    for folder in saved:
        verify_folder(folder)
    for folder in saved[:-1]:  # making room is all that it takes to go on
        shutil.rmtree(folder)
    last = step_of(saved[-1])
    config = configuration(shards, *QUIET)
    config["trainer"]["max_steps"] = last + 1
    assert train(run, config, resume=True).trainer.global_step == last + 1


def test_full_disk_met_by_others_than_the_checkpoint_is_one_line_too() -> None:
    error = OSError(28, "No space left on device", "runs/one/logs/metrics.csv")
    assert is_mistake(error)
    assert one_line(error) == "runs/one/logs/metrics.csv: No space left on device"
    assert not is_mistake(OSError(5, "Input/output error"))


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP])
def test_path_that_cannot_be_is_one_line_whichever_code_met_it(number: int) -> None:
    error = OSError(number, os.strerror(number), "somewhere/given")
    assert is_mistake(error)
    assert one_line(error) == f"somewhere/given: {os.strerror(number)}"
    assert not is_mistake(OSError(number, os.strerror(number))), "of no path"


def rewrite(folder: Path, source: Path) -> None:
    """Give a checkpoint the files of ``source``, under checksums of their own."""
    files = [file for file in source.iterdir() if file.name != CHECKSUMS_NAME]
    write_folder(folder, lambda partial: [shutil.copy(file, partial) for file in files])


def flipped(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.mark.parametrize("damage", ["removed", "cut", "flipped"])
def test_damage_to_any_file_of_a_checkpoint_is_found_by_name_and_the_one_before_is_used(
    tmp_path: Path, shards: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    train(tmp_path, configuration(shards, *QUIET, "trainer.max_steps=2"))
    before, newest = checkpoints_of(tmp_path)
    names = sorted(path.name for path in newest.iterdir())
    assert {"ema.safetensors", "model.safetensors", "optimizer.safetensors", "state.json"} < set(names)
    change: Callable[[bytes], bytes] = flipped if damage == "flipped" else lambda content: content[:-1]
    for name in names:
        path = newest / name
        content = path.read_bytes()
        path.unlink() if damage == "removed" else path.write_bytes(change(content))
        caplog.clear()
        assert latest_checkpoint(tmp_path) == before
        (line,) = caplog.messages
        assert line.startswith("Passing over a checkpoint: ")
        assert name in line
        path.write_bytes(content)
    assert latest_checkpoint(tmp_path) == newest


def test_damaged_checkpoint_does_not_count_as_the_latest_once_the_run_goes_on(tmp_path: Path, shards: Path) -> None:
    config = configuration(shards, *QUIET, "trainer.max_steps=3", "save.every_steps=1", "save.keep.last=9")
    train(tmp_path, config)
    first, second, third = checkpoints_of(tmp_path)
    for damaged in (second, third):
        (damaged / "model.safetensors").unlink()
    config["save"]["keep"]["last"] = 1
    config["trainer"]["max_steps"] = 2
    assert train(tmp_path, config, resume=True).trainer.global_step == 2
    assert [path.name for path in checkpoints_of(tmp_path)] == [second.name]
    assert latest_checkpoint(tmp_path).name == second.name  # anew, and whole
    (aside,) = first.parent.glob("abandoned-*")
    assert sorted(path.name for path in aside.iterdir()) == [second.name, third.name]


def test_run_is_not_resumed_from_a_state_that_is_whole_but_of_another_form(tmp_path: Path, shards: Path) -> None:
    config = configuration(shards, *QUIET, "trainer.max_steps=1")
    train(tmp_path, config)
    folder, before = latest_checkpoint(tmp_path), tmp_path / "before"
    shutil.copytree(folder, before)
    path = before / "state.json"
    state = json.loads(path.read_text())
    for changes, complaint in (
        ({"global_step": "1"}, r"state\.json: global_step '1': Input should be a valid integer$"),
        ({"ClipDataModule": {"position": -4}}, r"state\.json: ClipDataModule\.position -4: Input should be greater"),
        ({"loops": {}}, r"state\.json: loops\.fit_loop is missing$"),
        (
            {"optimizer_states": state["optimizer_states"][:1]},
            r"optimizer_states are 1, but this optimizer has 2 groups",
        ),
        ({"lr_schedulers": [3]}, r"state\.json: lr_schedulers\.0 3: Input should be a valid dictionary$"),
    ):
        path.write_text(json.dumps({**state, **changes}))
        rewrite(folder, before)
        with pytest.raises(ValueError, match=complaint):
            train(tmp_path, config, resume=True)
    path.write_text("{}")
    rewrite(folder, before)
    with pytest.raises(ValueError, match=r"holds weights, and no state of training to resume; init_from starts"):
        train(tmp_path, config, resume=True)


def test_average_that_does_not_fit_the_model_is_one_line(tmp_path: Path, shards: Path) -> None:
    config = configuration(shards, *QUIET, "trainer.max_steps=1")
    train(tmp_path, config)
    folder, before = latest_checkpoint(tmp_path), tmp_path / "before"
    shutil.copytree(folder, before)
    averages = load_file(before / "ema.safetensors")
    name = next(iter(averages))
    for damaged, complaint in (
        (
            {other: tensor for other, tensor in averages.items() if other != name},
            "is missing, but the weight has shape",
        ),
        ({**averages, name: torch.zeros(1, 2, 3)}, r"has shape \(1, 2, 3\), but the weight has shape"),
    ):
        save_file(damaged, before / "ema.safetensors")
        rewrite(folder, before)
        with pytest.raises(ValueError, match=rf"EMA half_life_\d+: {re.escape(name)} {complaint}"):
            train(tmp_path, config, resume=True)


def test_file_that_does_not_belong_to_a_checkpoint_does_not_get_into_its_weights(tmp_path: Path, shards: Path) -> None:
    train(tmp_path, configuration(shards, *QUIET, "trainer.max_steps=1"))
    folder = latest_checkpoint(tmp_path)
    before = load_weights(folder)
    shutil.copy(folder / "model.safetensors", folder / "model-00007.safetensors")
    with pytest.raises(ValueError, match=r"model-00007\.safetensors: is not one of the checkpoint's files"):
        verify_folder(folder)
    (folder / "model-00007.safetensors").unlink()
    listed = json.loads((folder / CHECKSUMS_NAME).read_text())["files"]
    assert sorted(listed) == sorted(path.name for path in folder.iterdir() if path.name != CHECKSUMS_NAME)
    assert all(torch.equal(before[name], tensor) for name, tensor in load_weights(folder).items())
