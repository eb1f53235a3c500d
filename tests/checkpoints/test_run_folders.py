import errno
import logging
import math
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from vdm.checkpoints.latest import latest_checkpoint
from vdm.checkpoints.layout import checkpoint_folder, folder_for_results, run_folder
from vdm.checkpoints.removal import prune, set_aside_later
from vdm.checkpoints.run_record import load_config, record_run, versions_of
from vdm.checkpoints.snapshot import save_weights
from vdm.checkpoints.weights import MergedWeights, load_weights
from vdm.files import temporary_beside


def _save(run: Path, step: int, ema: dict[str, Tensor] | None = None) -> Path:
    folder = checkpoint_folder(run, step)
    save_weights(folder, {"w": torch.full((2,), float(step)), "buffer": torch.zeros(1)}, ema)
    return folder


def _steps(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def test_latest_checkpoint_is_that_of_the_most_steps(tmp_path: Path) -> None:
    for step in (5, 100, 20):
        _save(tmp_path, step)

    assert latest_checkpoint(tmp_path) == tmp_path / "checkpoints" / "step=00000100"


def test_more_than_eight_digits_of_steps_are_ordered_by_number(tmp_path: Path) -> None:
    for step in (99_999_999, 100_000_000):
        _save(tmp_path, step)

    assert latest_checkpoint(tmp_path) == checkpoint_folder(tmp_path, 100_000_000)


def test_one_checkpoint_can_be_named(tmp_path: Path) -> None:
    first, _ = _save(tmp_path, 1), _save(tmp_path, 2)

    assert latest_checkpoint(first) == first


@pytest.mark.parametrize("name", ["model.safetensors", "state.safetensors", "state.json", "checksums.json"])
def test_checkpoint_cut_at_any_file_is_passed_over_with_a_warning(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    whole, cut = _save(tmp_path, 1), _save(tmp_path, 2)
    (cut / name).write_bytes((cut / name).read_bytes()[:-5])

    with caplog.at_level(logging.WARNING):
        assert latest_checkpoint(tmp_path) == whole

    (record,) = caplog.records
    assert str(cut) in record.getMessage()
    assert name in record.getMessage()
    with pytest.raises(ValueError, match=name):
        latest_checkpoint(cut)


def test_version_that_was_stepping_aside_when_its_replacement_was_killed_counts(tmp_path: Path) -> None:
    _save(tmp_path, 1)
    aside = _save(tmp_path, 2).rename(tmp_path / "checkpoints" / "step=00000002~")

    assert latest_checkpoint(tmp_path) == aside
    replacement = _save(tmp_path, 2)
    assert latest_checkpoint(tmp_path) == replacement


@pytest.mark.parametrize("made", ["nothing", "run", "checkpoints", "partial"])
def test_run_without_a_whole_checkpoint_is_refused_in_one_line(tmp_path: Path, made: str) -> None:
    run = tmp_path / "run"
    if made != "nothing":
        run.mkdir()
    if made in ("checkpoints", "partial"):
        (run / "checkpoints").mkdir()
    if made == "partial":
        (run / "checkpoints" / ".step=00000001.partial").mkdir()

    with pytest.raises(ValueError, match=rf"^{run}[^\n]*$"):
        latest_checkpoint(run)


def test_weights_are_averaged_where_there_is_an_average(tmp_path: Path) -> None:
    _save(tmp_path, 1, ema={"w": torch.full((2,), 0.5)})

    averaged, plain = load_weights(tmp_path), load_weights(tmp_path, ema=False)

    assert {name: weight.tolist() for name, weight in averaged.items()} == {"w": [0.5, 0.5], "buffer": [0.0]}
    assert {name: weight.tolist() for name, weight in plain.items()} == {"w": [1.0, 1.0], "buffer": [0.0]}


def test_slices_of_weights_are_read_with_lora_merged_in(tmp_path: Path) -> None:
    layer = {"x.weight": torch.randn(5, 3), "x.lora_A.weight": torch.randn(2, 3), "x.lora_B.weight": torch.randn(5, 2)}
    weights = {f"model.{name}": tensor for name, tensor in {**layer, "x.bias": torch.randn(5)}.items()}
    ema = {"model.x.lora_B.weight": torch.randn(5, 2)}
    save_weights(tmp_path, {**weights, "objective.y": torch.randn(2)}, ema)
    added = ema["model.x.lora_B.weight"] @ layer["x.lora_A.weight"]

    found = MergedWeights(tmp_path)
    assert found.shapes == {"model.x.weight": [5, 3], "model.x.bias": [5]}
    assert torch.equal(found.read("model.x.weight", 4, 7), (layer["x.weight"] + added).flatten()[4:11])
    assert torch.equal(found.read("model.x.bias", 1, 3), weights["model.x.bias"][1:4])
    assert torch.equal(found.whole("model.x.weight"), layer["x.weight"] + added)


def test_weights_are_plain_where_there_is_no_average(tmp_path: Path) -> None:
    assert load_weights(_save(tmp_path, 3))["w"].tolist() == [3.0, 3.0]


def test_pruning_keeps_what_it_is_told_and_clears_what_was_interrupted(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        _save(tmp_path, step)
    (tmp_path / "checkpoints" / ".step=00000004.partial").mkdir()

    prune(tmp_path, lambda steps: set(steps[-2:]))

    assert _steps(tmp_path) == ["step=00000002", "step=00000003"]


def test_a_file_left_half_written_among_checkpoints_is_removed_too(tmp_path: Path) -> None:
    _save(tmp_path, 1)
    temporary_beside(tmp_path / "checkpoints" / "metric.json").write_text("{")
    (tmp_path / "checkpoints" / ".metric.json.partial").write_text("{")
    prune(tmp_path, lambda steps: set(steps))

    assert _steps(tmp_path) == ["step=00000001"]


def test_what_cannot_be_removed_is_one_warning_and_is_removed_once_it_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (1, 2, 3):
        _save(tmp_path, step)
    unlink = os.unlink

    def refuse(path: str, **options: Any) -> None:
        raise OSError(errno.EPERM, "Operation not permitted", path)

    monkeypatch.setattr(os, "unlink", refuse)
    for _ in range(3):
        prune(tmp_path, lambda steps: {3})
    assert _steps(tmp_path) == [".step=00000001.partial", ".step=00000002.partial", "step=00000003"]
    left = [tmp_path / "checkpoints" / f".step=0000000{step}.partial" for step in (1, 2)]
    assert sorted(record.getMessage() for record in caplog.records) == [
        f"{folder}: can't be removed: Operation not permitted; remove it by hand" for folder in left
    ]
    monkeypatch.setattr(os, "unlink", unlink)
    prune(tmp_path, lambda steps: {3})
    assert _steps(tmp_path) == ["step=00000003"]


def test_checkpoint_that_cannot_be_renamed_stays_and_others_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stuck, *_ = (_save(tmp_path, step) for step in (1, 2, 3))
    rename = Path.rename

    def refuse(path: Path, target: Path) -> Path:
        if path == stuck:
            raise OSError(errno.EACCES, "Permission denied", str(path), None, str(target))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse)
    for _ in range(2):
        prune(tmp_path, lambda steps: {3})
    assert _steps(tmp_path) == ["step=00000001", "step=00000003"]
    (record,) = caplog.records
    assert record.getMessage() == f"{stuck}: can't be removed: Permission denied; remove it by hand"


def test_checkpoints_after_the_one_that_a_run_goes_on_from_are_set_aside(tmp_path: Path) -> None:
    for step in (1, 2, 3, 10):
        _save(tmp_path, step)
    set_aside_later(tmp_path, checkpoint_folder(tmp_path, 2))

    assert latest_checkpoint(tmp_path) == checkpoint_folder(tmp_path, 2)
    (aside,) = (tmp_path / "checkpoints").glob("abandoned-*")
    assert sorted(path.name for path in aside.iterdir()) == ["step=00000003", "step=00000010"]
    set_aside_later(tmp_path, checkpoint_folder(tmp_path, 2))
    assert len(_steps(tmp_path)) == 3


def test_configuration_that_is_no_yaml_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("a: [1\n")
    with pytest.raises(ValueError, match=r"config.yaml: can't be read: while parsing a flow sequence") as caught:
        load_config(tmp_path)
    assert "\n" not in str(caught.value)


def test_configuration_is_the_same_when_read_again(tmp_path: Path) -> None:
    config = {
        "lr": 1e-5,
        "text": "1e-5",
        "yes": "yes",
        "literal": "${not.resolved}",
        "list": [1, None, {"inf": math.inf}],
        "none": None,
        "flag": True,
        "date": "2024-01-01",
    }

    record_run(tmp_path, config)

    assert load_config(tmp_path) == config
    assert load_config(checkpoint_folder(tmp_path, 1)) == config


def test_versions_of_each_start_are_recorded(tmp_path: Path) -> None:
    import json

    record_run(tmp_path, {})
    record_run(tmp_path, {})

    first, second = json.loads((tmp_path / "versions.json").read_text())
    assert first["python"] == platform.python_version()
    assert second["packages"]["torch"] == metadata.version("torch")
    assert second["git"] is None or len(second["git"]["commit"]) == 40


def test_versions_that_earlier_versions_recorded_are_read(tmp_path: Path) -> None:
    path = tmp_path / "versions.json"
    for git in ("null", '{"commit": "c", "dirty": true}'):
        path.write_text(
            f'[{{"time": "2026-01-31", "git": {git}, "packages": {{}}}}, {{"packages": {{"torch": "2.0"}}}}]'
        )
        assert len(versions_of(tmp_path)) == 2


def test_run_of_a_checkpoint_is_found(tmp_path: Path) -> None:
    record_run(tmp_path, {})

    assert run_folder(tmp_path) == run_folder(checkpoint_folder(tmp_path, 5)) == tmp_path


def test_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"not a run: there is no config.yaml, nor such a folder$"):
        run_folder(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"not a run: there is no config.yaml$"):
        load_config(tmp_path)


def test_checkpoint_is_found_through_a_link_with_its_own_step_and_run(tmp_path: Path) -> None:
    run, elsewhere = tmp_path / "run", tmp_path / "best"
    record_run(run, {"seed": 3})
    checkpoint = _save(run, 7)
    _save(run, 9)
    (run / "checkpoints" / "last").symlink_to("step=00000007")
    elsewhere.symlink_to(checkpoint)
    (tmp_path / "run-link").symlink_to(run)

    for link in (run / "checkpoints" / "last", elsewhere):
        assert latest_checkpoint(link) == checkpoint
        assert (run_folder(link), load_config(link)["seed"]) == (run, 3)
    assert run_folder(tmp_path / "run-link") == tmp_path / "run-link"
    assert latest_checkpoint(tmp_path / "run-link").name == "step=00000009"


def test_results_are_not_written_through_links_out_of_a_run(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (tmp_path / "home").mkdir()
    run.mkdir()
    assert folder_for_results(run, "samples", "prompts") == run / "samples" / "prompts"
    (run / "samples").symlink_to(tmp_path / "home")
    with pytest.raises(ValueError, match=r"^.*run/samples/prompts: a link that leads out of .*; choose by output="):
        folder_for_results(run, "samples", "prompts")
    (run / "evaluation").symlink_to("elsewhere")
    assert folder_for_results(run, "evaluation") == run / "evaluation"
