"""Runs that have done all of their steps, and go on for more."""

import csv
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.data.shard_sets import write_set
from tests.training.runs import TINY
from vdm.checkpoints.run_record import load_config
from vdm.cli.commands import run_program
from vdm.cli.main import COMMANDS
from vdm.training.lr_schedules import WarmupLinear

Train = Callable[..., str]
LINEAR = ("lr_schedule=warmup_linear", "lr_schedule.warmup_steps=0", "optimizer.lr=0.001")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("shards"), {"train": (4,), "validation": (2,)})


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Train:
    """Run ``vdm train``, which must end with 0; returns all that it said."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["vdm", "train", *arguments])
        capfd.readouterr()
        code = run_program("vdm", COMMANDS)
        said = "".join(capfd.readouterr())
        assert code == 0, said
        return said

    return run


def begun(shards: Path, steps: int, *overrides: str) -> list[str]:
    tiny = [override for override in TINY if not override.startswith(("lr_schedule", "trainer.max_steps", "optimizer"))]
    return [f"data.path={shards}", *tiny, *LINEAR, f"trainer.max_steps={steps}", "hydra.run.dir=run", *overrides]


def learning_rates(run: Path) -> dict[int, float]:
    """Return the rate after each step, of the latest start."""
    latest = max((run / "logs").glob("*/metrics.csv"), key=lambda path: path.stat().st_mtime_ns)
    with latest.open(newline="") as file:
        return {
            int(row["step"]): float(row["train/learning_rate"])
            for row in csv.DictReader(file)
            if row.get("train/learning_rate")
        }


@pytest.mark.parametrize("way", ["resume=run", "hydra.run.dir=run", "a run that records no followers"])
def test_finished_run_goes_on_by_the_schedule_over_its_new_length(train: Train, shards: Path, way: str) -> None:
    train(*begun(shards, 2))
    assert load_config(Path("run"))["lr_schedule"]["decay_steps"] == 2
    if way.startswith("a run"):
        text = Path("run/config.yaml").read_text()
        start = text.index("follows:")
        end = text.index("\n", text.index("every_n_steps", start)) + 1
        Path("run/config.yaml").write_text(text[:start] + text[end:])
        assert "follows" not in load_config(Path("run"))
    longer = begun(shards, 4) if way.startswith("hydra") else ["resume=run", "trainer.max_steps=4"]

    said = train(*longer)

    rate = WarmupLinear(0, 4)
    assert f"learning rate 0 -> {0.001 * rate(2):g} at step 2" in said
    # Logged is the rate of the step to come.
    assert learning_rates(Path("run")) == {step: pytest.approx(0.001 * rate(step)) for step in (3, 4)}
    recorded = load_config(Path("run"))
    assert recorded["lr_schedule"]["decay_steps"] == recorded["training"]["lr_schedule"]["decay_steps"] == 4


def test_length_of_the_schedule_that_was_given_stays(train: Train, shards: Path) -> None:
    train(*begun(shards, 2, "lr_schedule.decay_steps=10"))

    said = train("resume=run", "trainer.max_steps=3")

    assert "learning rate" not in said
    assert learning_rates(Path("run")) == {3: pytest.approx(0.001 * WarmupLinear(0, 10)(3))}


def test_run_that_has_done_all_its_steps_says_so(train: Train, shards: Path) -> None:
    train(*begun(shards, 2))
    Path("run/checkpoints/last").symlink_to("step=00000002")

    assert "Nothing left to do: the run has done 2 of 2 steps" in train("resume=run/checkpoints/last")
    assert "Nothing left to do: the run has done 2 of 2 steps" in train("resume=run")
    assert "Nothing left to do: the run has done 2 of 1 steps" in train("resume=run", "trainer.max_steps=1")


def test_training_that_ends_within_the_warm_up_is_warned_of_in_one_line(train: Train, shards: Path) -> None:
    said = train(*begun(shards, 3, "lr_schedule.warmup_steps=3", "trainer.log_every_n_steps=50"))

    (line,) = (line for line in said.splitlines() if "warm-up" in line)
    assert "trainer.max_steps=3: training ends within the warm-up" in line
    assert list(learning_rates(Path("run"))) == [1, 3]  # the first and the last step are logged
