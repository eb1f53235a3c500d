"""Weights that are not trained are saved once in a run, by every strategy, and are part of each of its checkpoints."""

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.training.runs import configuration, train
from tests.training.stages import ADAMW, MICRO_BATCHES, train_in_processes
from tests.training.zygote import Zygote
from vdm.assembly.model import VideoDiffusionModel
from vdm.checkpoints.folder import write_folder
from vdm.checkpoints.frozen import FROZEN_FILE
from vdm.checkpoints.latest import latest_checkpoint
from vdm.checkpoints.layout import checkpoint_folder, frozen_weights_folder
from vdm.checkpoints.snapshot import SavedCheckpoint, save_weights
from vdm.checkpoints.weights import load_weights, saved_weights

LORA = ("tune=lora", "tune.rank=2", "save.every_steps=1")


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory, shards: Path) -> Path:
    """Return a run of two steps, with a checkpoint of each, in which only LoRA adapters are trained."""
    run = tmp_path_factory.mktemp("tuned") / "run"
    train(run, configuration(shards, *ADAMW, *MICRO_BATCHES, *LORA, "trainer.max_steps=2"))
    return run


@pytest.fixture
def run(tmp_path: Path, tuned: Path) -> Path:
    """Return a copy of the run."""
    return shutil.copytree(tuned, tmp_path / "run")


def test_checkpoints_hold_what_is_trained_and_refer_to_the_rest_which_is_saved_once(tuned: Path) -> None:
    frozen = load_file(frozen_weights_folder(tuned, 1) / "model.safetensors")
    assert [folder.name for folder in (tuned / "frozen").iterdir()] == ["step=00000001"]
    for step in (1, 2):
        held = load_file(checkpoint_folder(tuned, step) / "model.safetensors")
        assert held
        assert all("lora_" in name for name in held)
        assert not held.keys() & frozen.keys()
        assert SavedCheckpoint(checkpoint_folder(tuned, step)).weights.shapes.keys() == held.keys() | frozen.keys()


def test_model_of_such_a_run_has_all_weights(tuned: Path, shards: Path, tmp_path: Path) -> None:
    config = configuration(shards, *ADAMW, *MICRO_BATCHES, "trainer.max_steps=1")
    train(tmp_path / "whole", config)
    names = set(load_weights(tmp_path / "whole"))
    assert set(load_weights(tuned)) == names
    loaded = VideoDiffusionModel.from_checkpoint(tuned).state_dict()
    assert {f"model.{name}" for name in loaded} == names


def test_run_that_changes_strategies_saves_them_in_pieces_and_equals_one_process(
    shards: Path, zygote: Zygote, tmp_path: Path
) -> None:
    lora = " ".join(LORA)
    train_in_processes(shards, tmp_path / "two", f"fsdp2 1 {lora}", f"deepspeed_zero3 2 {lora}", zygote=zygote)
    config = configuration(shards, *ADAMW, *MICRO_BATCHES, *LORA, "trainer.max_steps=3")
    train(tmp_path / "two", config, resume=True)
    train(tmp_path / "one", config)

    assert [folder.name for folder in (tmp_path / "two" / "frozen").iterdir()] == ["step=00000001"]
    assert len(list((frozen_weights_folder(tmp_path / "two", 1)).glob("model*.safetensors"))) == 2
    expected, found = (saved_weights(tmp_path / name, ema=False) for name in ("one", "two"))
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        tolerance = 1e-6 if "lora_" in name else 0
        torch.testing.assert_close(found[name], weight, rtol=0, atol=tolerance, msg=name)


def test_run_of_an_earlier_version_goes_on_and_saves_its_frozen_weights_apart_from_then_on(
    run: Path, shards: Path
) -> None:
    checkpoint = checkpoint_folder(run, 2)
    whole = saved_weights(checkpoint, ema=False)
    state = (checkpoint / "state.json").read_text()
    kept = {name: (checkpoint / name).read_bytes() for name in ("optimizer.safetensors", "ema.safetensors")}
    tensors = (checkpoint / "state.safetensors").read_bytes()
    shutil.rmtree(run / "frozen")
    shutil.rmtree(checkpoint_folder(run, 1))
    save_weights(checkpoint, whole)
    model = (checkpoint / "model.safetensors").read_bytes()

    def as_before(folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(model)
        (folder / "state.json").write_text(state)
        (folder / "state.safetensors").write_bytes(tensors)
        for name, content in kept.items():
            (folder / name).write_bytes(content)

    write_folder(checkpoint, as_before)
    train(run, configuration(shards, *ADAMW, *MICRO_BATCHES, *LORA, "trainer.max_steps=3"), resume=True)

    assert not (checkpoint / FROZEN_FILE).exists()
    assert json.loads((checkpoint_folder(run, 3) / FROZEN_FILE).read_text())["folder"] == "step=00000003"
    found = saved_weights(run, ema=False)
    assert all(torch.equal(found[name], weight) for name, weight in whole.items() if "lora_" not in name)


def test_weights_that_were_removed_while_training_are_saved_again(run: Path, shards: Path) -> None:
    planted = "+callbacks.remove._target_=tests.training.planting.RemoveFrozenWeights"
    train(run, configuration(shards, *ADAMW, *MICRO_BATCHES, *LORA, "trainer.max_steps=4", planted), resume=True)
    assert latest_checkpoint(run) == checkpoint_folder(run, 4)
    assert [folder.name for folder in (run / "frozen").iterdir()] == ["step=00000004"]


@pytest.mark.parametrize("damage", ["missing", "cut", "other"])
def test_damaged_or_missing_frozen_weights_are_one_line(run: Path, tuned: Path, damage: str, shards: Path) -> None:
    folder = frozen_weights_folder(run, 1)
    if damage == "missing":
        shutil.rmtree(folder)
    elif damage == "cut":
        file = folder / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-1])
    else:
        weights = load_file(folder / "model.safetensors")
        save_weights(folder, {name: weight + 1 for name, weight in weights.items()})
    named = "frozen.json" if damage == "missing" else "frozen/step=00000001"
    with pytest.raises(ValueError, match=named):
        latest_checkpoint(checkpoint_folder(run, 2))
    with pytest.raises(ValueError, match="no whole checkpoint"):
        train(run, configuration(shards, *ADAMW, *MICRO_BATCHES, *LORA, "trainer.max_steps=3"), resume=True)


def test_reference_can_only_name_a_folder_of_its_run(run: Path) -> None:
    checkpoint = checkpoint_folder(run, 2)
    for name in ("../../elsewhere", "/tmp", "step=1/../../x"):
        (checkpoint / FROZEN_FILE).write_text(json.dumps({"folder": name, "checksum": "0"}))
        with pytest.raises(ValueError, match="folder"):
            SavedCheckpoint(checkpoint)


def test_checkpoint_says_that_it_is_saved_once(tmp_path: Path, shards: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        train(tmp_path / "run", configuration(shards, *LORA, "trainer.max_steps=3"))
    assert [record.message for record in caplog.records].count(
        "saving the weights that are not trained, once for the run"
    ) == 1


def test_checkpoint_may_be_named_by_a_short_path(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run / "checkpoints")
    short = Path("step=00000002")
    assert latest_checkpoint(short) == short
    assert SavedCheckpoint(short).weights.shapes == SavedCheckpoint(checkpoint_folder(run, 2)).weights.shapes
