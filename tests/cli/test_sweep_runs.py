"""The runs of a sweep, one after another: each for itself, until one is stopped."""

import os
import sys
from pathlib import Path

import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from tests.cli.conftest import RunVdm, Vdm
from tests.data.shard_sets import write_set
from vdm.config import ConfigError


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    return write_set(tmp_path / "shards", {"train": (1,), "validation": (1,)})


def test_sweep_runs_each_choice_in_a_folder_of_its_own(vdm: Vdm) -> None:
    folders, command_lines = [], []

    def task(config: DictConfig) -> None:
        folders.append(Path(HydraConfig.get().runtime.output_dir))
        command_lines.append((sys.argv, Path(HydraConfig.get().run.dir)))

    outcome = vdm("train", "-m", "seed=1,2", "model=large", task=task)

    assert outcome.code == 0
    assert [config.seed for config in outcome.configs] == [1, 2]
    assert [folder.name for folder in folders] == ["0_seed=1", "1_seed=2"]
    assert folders[0].parent.parent == Path("runs/test").absolute()
    # What Lightning starts as a further process is this one job, in this job's folder.
    assert command_lines == [(["vdm", "train", f"seed={seed}", "model=large"], folders[seed - 1]) for seed in (1, 2)]


def test_yaml_of_ones_own_can_ask_for_a_sweep(
    run_vdm: RunVdm, tmp_path: Path, shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds: list[int] = []
    monkeypatch.setattr("vdm.cli.train.run", lambda config: seeds.append(config.seed))
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    sweep = "# @package _global_\nhydra: {mode: MULTIRUN, sweeper: {params: {seed: '1,2'}}}\n"
    (tmp_path / "conf" / "experiment" / "twice.yaml").write_text(sweep)

    code, err = run_vdm("train", "hydra.searchpath=[file://conf]", "experiment=twice", f"data.path={shards}")

    assert code == 0, err
    assert seeds == [1, 2]


def test_job_of_a_sweep_does_not_see_the_environment_of_the_one_before(vdm: Vdm) -> None:
    ranks = []

    def task(config: DictConfig) -> None:
        ranks.append(os.environ.get("LOCAL_RANK"))
        os.environ["LOCAL_RANK"] = "0"

    vdm("train", "-m", "seed=1,2", task=task)

    assert ranks == [None, None]


def test_sweep_stops_at_a_mistake(vdm: Vdm) -> None:
    def task(config: DictConfig) -> None:
        raise ConfigError("wrong")

    outcome = vdm("train", "-m", "seed=1,2", task=task)

    assert (outcome.code, outcome.err) == (2, "wrong\n")
    assert len(outcome.configs) == 1


def test_signal_that_stops_one_run_of_a_sweep_stops_the_sweep(vdm: Vdm) -> None:
    outcome = vdm("train", "-m", "seed=1,2,3", task=lambda config: 143 if config.seed == 2 else 0)

    assert outcome.code == 143
    assert [config.seed for config in outcome.configs] == [1, 2]
