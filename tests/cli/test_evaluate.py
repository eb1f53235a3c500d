"""``vdm evaluate`` on a small real run, called as the command calls it."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.cli.calling import composed
from tests.data.shard_sets import write_set
from vdm.checkpoints.run_record import load_config, write_config
from vdm.cli import evaluate
from vdm.config import ConfigError
from vdm.evaluation import moving_digits


def test_evaluation_reports_losses_by_level(trained: Path, tmp_path: Path) -> None:
    options = [f"checkpoint={trained}", f"output={tmp_path}", "num_levels=3", "batch_size=2"]
    evaluate.run(composed("evaluate", *options))
    results = json.loads((tmp_path / "results.json").read_text())
    assert len(results["held_out_loss_by_t"]) == 3
    assert results["num_held_out_clips"] == 3
    assert (tmp_path / "loss_by_level.png").exists()


@pytest.mark.parametrize(
    ("objective", "reason"),
    [
        (
            {"_target_": "somebody.Objective"},
            "is not allowed: it must lie in vdm.objectives; allow_own_code=true allows",
        ),
        ({"_target_": "vdm.objectives.denoising.Denoising", "power": 2}, "objective.power: unknown key"),
    ],
)
def test_objective_that_can_not_be_built_costs_the_loss_alone_and_is_told(
    trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, objective: dict[str, Any], reason: str
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    write_config(run, {**load_config(run), "objective": objective})
    options = [f"checkpoint={run}", f"output={tmp_path / 'out'}", "batch_size=2", "bits_per_dim_clips=2"]
    with pytest.raises(ConfigError) as refused:
        evaluate.run(composed("evaluate", *options))
    assert reason in str(refused.value)

    evaluate.run(composed("evaluate", *options, "bits_per_dim=variational", "bits_per_dim.num_steps=2"))
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["bits_per_dim"]["num_clips"] == 2
    assert "held_out_loss" not in results
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert line.startswith("The held-out loss is left out: objective.")
    assert reason in line


def test_evaluation_on_a_missing_set_is_refused(trained: Path) -> None:
    with pytest.raises(ConfigError, match="data_path: nowhere: no such folder"):
        evaluate.run(composed("evaluate", f"checkpoint={trained}", "data_path=nowhere"))


@pytest.mark.parametrize(
    "choice",
    [
        "variational bits_per_dim.num_steps=3",
        "exact bits_per_dim.solver.rtol=0.1 bits_per_dim.solver.atol=0.1 bits_per_dim.sigma_min=0.5",
    ],
)
def test_evaluation_reports_bits_per_dimension_and_how_they_were_measured(
    trained: Path, tmp_path: Path, choice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [f"checkpoint={trained}", f"output={tmp_path}", "num_levels=1", "batch_size=2", "bits_per_dim_clips=3"]
    evaluate.run(composed("evaluate", *options, *f"bits_per_dim={choice}".split()))
    found = json.loads((tmp_path / "results.json").read_text())["bits_per_dim"]
    assert found["mean"] > 0
    assert found["num_clips"] == 3
    assert choice.split("=")[-1] in found["protocol"]
    assert f"bits per dimension      {found['mean']:.4f}" in capsys.readouterr().out


def test_evaluation_samples_by_steps_that_are_not_known_before(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moving_digits, "train_classifier", lambda batches: moving_digits.DigitClassifier().eval())
    options = [f"checkpoint={trained}", f"output={tmp_path}", "num_levels=1", "prompted_digits=true", "num_samples=2"]
    evaluate.run(
        composed("evaluate", *options, "sampler=probability_flow", "sampler.solver.rtol=0.1", "sampler.solver.atol=0.1")
    )
    assert json.loads((tmp_path / "results.json").read_text())["num_samples"] == 2


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("bits_per_dim_clips=0", "bits_per_dim_clips=0: must be a whole number, at least 1"),
        ("num_levels=some", "num_levels=some: must be a whole number, at least 1"),
        ("max_clips=0", "max_clips=0: must be a whole number, at least 1, or null"),
        ("prompted_digits=maybe", "prompted_digits=maybe: must be auto, true or false"),
        (
            "bits_per_dim=variational bits_per_dim.num_steps=0",
            "bits_per_dim.num_steps: 0 is not allowed",
        ),
        (
            "bits_per_dim=exact bits_per_dim.num_probes=0",
            "bits_per_dim.num_probes: 0 is not allowed",
        ),
    ],
)
def test_bad_wishes_for_evaluation_are_one_line(trained: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        evaluate.run(composed("evaluate", f"checkpoint={trained}", *override.split()))


def test_loss_follows_the_seed(trained: Path, tmp_path: Path) -> None:
    def loss(seed: int) -> float:
        folder = tmp_path / "evaluation"
        evaluate.run(composed("evaluate", f"checkpoint={trained}", f"output={folder}", f"seed={seed}", "num_levels=2"))
        return json.loads((folder / "results.json").read_text())["held_out_loss"]

    assert loss(1) == loss(1) != loss(2)


def test_clips_that_can_not_be_read_are_left_out(trained: Path, tmp_path: Path) -> None:
    shards = write_set(tmp_path / "shards", {"train": (5,), "validation": (3,)})
    (tar,) = shards.glob("validation-*.tar")
    content = tar.read_bytes()
    options = [f"checkpoint={trained}", f"data_path={shards}", f"output={tmp_path / 'out'}", "batch_size=1"]
    options += ["num_levels=1"]
    start = content.index(b"ftyp")
    tar.write_bytes(content[:start] + bytes(64) + content[start + 64 :])
    evaluate.run(composed("evaluate", *options))
    assert json.loads((tmp_path / "out" / "results.json").read_text())["num_held_out_clips"] == 2
