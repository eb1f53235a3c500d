"""``hydra_command``: composing, the exit code, mistakes and bugs, the log."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tests.cli.conftest import Vdm
from vdm.cli.faults import one_line
from vdm.cli.run_folder import register_run_folder
from vdm.config import ConfigError


def test_command_receives_the_composed_and_resolved_configuration(vdm: Vdm) -> None:
    outcome = vdm("train", "model=large", "trainer.max_steps=3", "seed=${model.width}")

    assert (outcome.code, outcome.err) == (0, "")
    (config,) = outcome.configs
    assert config.model.width == 256
    assert (config.twice, config.seed) == (3, 256)
    assert "hydra" not in config


def test_command_sees_the_command_line_and_environment_of_the_user(vdm: Vdm) -> None:
    seen = []

    def task(config: DictConfig) -> None:
        seen.append((sys.argv, os.environ.get("HYDRA_FULL_ERROR")))

    vdm("train", "seed=2", task=task)

    assert seen == [(["vdm", "train", "seed=2"], None)]
    assert sys.argv == ["vdm", "train", "seed=2"]


def test_exit_code_is_that_of_the_command(vdm: Vdm) -> None:
    assert vdm("train", task=lambda config: 1).code == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "train trainer.max_step=3",
            "Unknown key 'trainer.max_step': did you mean 'trainer.max_steps'?"
            " (allowed: devices, log_every_n_steps, max_steps)",
        ),
        (
            "train trainr.max_steps=3",
            "Unknown key 'trainr': did you mean 'trainer'?"
            " (allowed: data, logged, logger, model, name, resume, seed, trainer, twice)",
        ),
        ("train max_steps=3", "Unknown key 'max_steps': did you mean 'trainer.max_steps'?"),
        ("train seed.value=3", "Unknown key 'seed.value': 'seed' has no keys"),
        ("train model=smal", "model=smal: no such option: did you mean 'small'? (allowed: broken, large, small)"),
        ("train experiment=lost", "model=larg: no such option: did you mean 'large'? (allowed: broken, large, small)"),
        ("train seed", "seed: options are KEY=VALUE: seed=..."),
        (
            "train resume=a/step=2",
            "Cannot read 'resume=a/step=2' as KEY=VALUE: mismatched input '=' expecting <EOF>; quote the value:"
            " \"resume='a/step=2'\"",
        ),
        ("train --sede=1", "--sede=1: options are KEY=VALUE: sede=1"),
        ("train ~sede", "Could not delete from config. 'sede' does not exist."),
        (
            "train seed=${sede}",
            "seed: Interpolation key 'sede' not found; in a text that means no other key, '${' is written '\\${'",
        ),
        (
            "train data.path=a,b",
            'data.path=a,b: a list has brackets: "data.path=[a,b]"; a text with commas has quotes:'
            " \"data.path='a,b'\"; -m makes a run of each",
        ),
        ("sample prompts=[]", "checkpoint: no value given; add checkpoint=..."),
        ("sample", "checkpoint, prompts[0].text: no value given; add checkpoint=... prompts[0].text=..."),
        (
            "train hydra.searchpath=[/nowhere]",
            "provider=hydra.searchpath in command-line, path=/nowhere is not available.",
        ),
        ("train resume=nowhere", "resume: nowhere: not a run: there is no config.yaml, nor such a folder"),
    ],
)
def test_mistake_on_the_command_line_is_one_line_and_code_2(vdm: Vdm, arguments: str, message: str) -> None:
    outcome = vdm(*arguments.split())

    assert (outcome.code, outcome.out, outcome.err) == (2, "", f"{message}\n")
    assert not outcome.configs


def test_syntax_error_in_a_yaml_is_one_line_that_names_file_and_line(vdm: Vdm, small_conf: Path) -> None:
    outcome = vdm("train", "model=broken")

    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert f'in "{small_conf}/model/broken.yaml", line 1, column 8' in outcome.err


def test_mistake_found_by_the_command_is_one_line_and_leaves_no_folder(vdm: Vdm) -> None:
    def task(config: DictConfig) -> None:
        raise ConfigError("model.width: 31 is not allowed:\n  a multiple of 8")

    outcome = vdm("train", task=task)

    assert (outcome.code, outcome.err) == (2, "model.width: 31 is not allowed: a multiple of 8\n")
    assert not Path("runs").exists()


def test_mistake_is_told_by_one_process_of_a_machine(vdm: Vdm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")

    outcome = vdm("train", "sede=1")

    assert (outcome.code, outcome.err) == (2, "")


def test_mistake_keeps_its_traceback_if_hydra_is_told_so(vdm: Vdm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")

    with pytest.raises(ConfigError, match="wrong"):
        vdm("train", task=_raise_config_error)
    assert os.environ["HYDRA_FULL_ERROR"] == "1"


def _raise_config_error(config: DictConfig) -> None:
    raise ConfigError("wrong")


@pytest.mark.parametrize("error", [RuntimeError("bug"), KeyError("bug"), OSError("bug")])
def test_bug_keeps_its_traceback(vdm: Vdm, error: Exception) -> None:
    def task(config: DictConfig) -> None:
        raise error

    with pytest.raises(type(error), match="bug"):
        vdm("train", task=task)


def test_value_error_of_a_library_is_a_bug(vdm: Vdm) -> None:
    def task(config: DictConfig) -> None:
        int("a library says no")

    with pytest.raises(ValueError, match="invalid literal"):
        vdm("train", task=task)


def test_value_error_of_this_project_is_a_mistake(vdm: Vdm, tmp_path: Path) -> None:
    from vdm.checkpoints.run_record import load_config

    def task(config: DictConfig) -> None:
        load_config(tmp_path)

    outcome = vdm("train", task=task)

    assert (outcome.code, outcome.err) == (2, f"{tmp_path}: not a run: there is no config.yaml\n")


def test_ctrl_c_ends_with_code_130(vdm: Vdm) -> None:
    def task(config: DictConfig) -> None:
        raise KeyboardInterrupt

    assert vdm("train", task=task).code == 130


def test_configuration_can_be_shown_without_running(vdm: Vdm) -> None:
    outcome = vdm("train", "--cfg", "job", "trainer.max_steps=77")

    assert outcome.code == 0
    assert "max_steps: 77" in outcome.out
    assert not outcome.configs


def test_users_own_yamls_are_found_by_search_path(vdm: Vdm, tmp_path: Path) -> None:
    (tmp_path / "own" / "model").mkdir(parents=True)
    (tmp_path / "own" / "model" / "mine.yaml").write_text("width: 7\n")

    outcome = vdm("train", f"hydra.searchpath=[{tmp_path}/own]", "model=mine")

    assert outcome.configs[0].model.width == 7


def test_command_without_a_run_folder_leaves_nothing_behind(vdm: Vdm) -> None:
    outcome = vdm("sample", "checkpoint=x", "prompts=[]")

    assert (outcome.code, outcome.err) == (0, "")
    assert not list(Path.cwd().iterdir())


def test_log_goes_to_the_run_folder_and_to_stderr(vdm: Vdm) -> None:
    def task(config: DictConfig) -> None:
        import logging

        logging.getLogger("vdm").warning("two clips are damaged")

    outcome = vdm("train", "hydra.run.dir=here", task=task)

    assert "two clips are damaged" in Path("here/train.log").read_text()
    assert "two clips are damaged" in outcome.err


def test_text_from_outside_reaches_terminal_and_log_as_text(vdm: Vdm) -> None:
    evil = "caf\udce9 \x1b[2J\u202e\nINFO: all is well"

    def task(config: DictConfig) -> None:
        import logging

        logging.getLogger("vdm.data.quarantine").warning("Left out a bad sample: %s", evil)
        raise ConfigError(f"input={evil}")

    for command in (("train", "hydra.run.dir=here"), ("sample", "checkpoint=x", "prompts=[]")):
        outcome = vdm(*command, task=task)
        shown = r"Left out a bad sample: caf\ufffd \x1b[2J\u202e\nINFO: all is well".replace(r"\ufffd", "\ufffd")
        assert shown in outcome.err
        assert outcome.err.replace("\n", "").isprintable()
        assert outcome.err.endswith("input=caf\ufffd \\x1b[2J\\u202e INFO: all is well\n")
    assert Path("here/train.log").read_text(encoding="utf-8").replace("\n", "").isprintable()


def test_folder_named_by_the_time_is_made_by_one_command_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    node = OmegaConf.create(
        {"run": "${vdm.run_folder:null,runs/a,TIME}", "sweep": "${vdm.new_folder:runs/a,TIME}", "same": "${.run}"}
    )

    def folders() -> list[str]:
        found: Any = OmegaConf.to_container(node, resolve=True)
        return list(found.values())

    register_run_folder()
    assert folders() == ["runs/a/TIME"] * 3
    register_run_folder()  # as another process does
    assert folders() == ["runs/a/TIME_2"] * 3
    register_run_folder(is_to_run=False)
    assert folders() == ["runs/a/TIME"] * 3
    assert sorted(path.name for path in Path("runs/a").iterdir()) == ["TIME", "TIME_2"]
    (tmp_path / "runs" / "file").touch()
    node["run"] = "${vdm.run_folder:null,runs/file,TIME}"
    register_run_folder()
    with pytest.raises(OmegaConfBaseException) as told:
        folders()
    assert one_line(told.value) == "runs/file: can't be made a run's folder: File exists"


def test_command_that_only_shows_its_configuration_makes_no_folder(vdm: Vdm) -> None:
    assert vdm("train", "--cfg", "all", "--resolve").code == 0
    assert not Path("runs").exists()


def test_variables_of_ones_own_for_other_keys_to_refer_to_are_no_options(tmp_path: Path) -> None:
    from vdm.cli.hydra_main import ready
    from vdm.cli.options.ema import EmaOptions

    (tmp_path / "run" / "checkpoints" / "step=00000001").mkdir(parents=True)
    (tmp_path / "run" / "config.yaml").touch()
    plain = {"checkpoint": "${where}/run", "where": str(tmp_path), "sigma_rel": 0.1, "output": None}
    given = ready(DictConfig(plain), [], tmp_path, EmaOptions)
    assert set(given) == {"checkpoint", "sigma_rel", "output"}
    with pytest.raises(ConfigError, match=r"^other: unknown key"):
        ready(DictConfig({**plain, "other": 1}), [], tmp_path, EmaOptions)
