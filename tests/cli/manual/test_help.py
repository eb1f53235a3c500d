"""``vdm COMMAND --help``: what is shown, for whom, and how fast."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.assembly.small_model import save_config
from vdm.cli.commands import run_program
from vdm.cli.main import COMMANDS
from vdm.cli.manual.call import help_text
from vdm.cli.manual.yaml_file import read_yaml_file
from vdm.config.conf_dir import conf_dir

SVD = {"model__conditioner": {"_target_": "vdm.models.svd.conditioner.SVDConditioner"}}


def _help(command: str, *arguments: str) -> str:
    text, code = help_text("vdm", command, arguments)
    assert code == 0
    return text


@pytest.mark.parametrize("command", sorted(path.stem for path in conf_dir().glob("*.yaml")))
def test_short_help_fits_on_two_screens_and_has_the_examples(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    text = _help(command)

    assert len(text.splitlines()) <= 100
    assert max(map(len, text.splitlines())) <= 120
    assert all(f"\n  {example}\n" in text for example in read_yaml_file(conf_dir() / f"{command}.yaml").examples)
    assert "_target_" not in text
    assert "hydra." not in text.replace("hydra.run.dir", "")


def test_choices_are_those_in_the_folders(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("# Of my own.\nwidth: 7  # columns\n")
    path = f"hydra.searchpath=[file://{tmp_path}]"

    assert "mine | modelscope" in _help("train", path)
    assert "model.width=7" in _help("train", path, "model=mine", "model")
    assert "mine |" not in _help("train")


def test_a_group_of_which_several_can_be_chosen_is_shown_as_a_list() -> None:
    assert "\n  metric=[] " in _help("evaluate")
    assert "\n  metric=[static_clips,psnr] " in _help("evaluate", "metric=[static_clips,psnr]")
    assert "metric.psnr.num_frames=16" in _help("evaluate", "metric=[static_clips,psnr]", "metric.psnr")


def test_all_and_single_keys_are_shown_on_demand() -> None:
    everything = _help("train", "all")
    assert "data.shuffle_window=1024" in everything
    assert "diffusion/noise_levels=uniform" in everything
    assert "data.shuffle_window" not in _help("train")
    about = _help("train", "sampler")
    assert "UniPC: Zhao et al. 2023." in about
    assert "sampler.num_steps=50" in about


def test_sampler_and_guidance_are_shown_as_those_of_the_run_unless_chosen() -> None:
    for command in ("sample", "evaluate"):
        assert "\n  sampler=(as in RUN) " in _help(command)
        assert "\n  guidance=(as in RUN) " in _help(command)
        assert "sampler.num_steps" not in _help(command, "all").partition("\nKeys:")[2]
    assert "\n  sampler=unipc " in _help("sample", "sampler=unipc")
    assert "\n  sampler.order=2 " in _help("sample", "sampler=unipc", "all")


def test_keys_that_can_not_be_set_are_not_shown() -> None:
    assert "\n  clip=" not in _help("train", "all")
    assert "families." not in _help("export", "all")


def test_unknown_topic_is_one_line(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["vdm", "train", "--help", "smapler"])

    assert run_program("vdm", COMMANDS) == 2

    message = "--help smapler: no such key or group: did you mean 'sampler'?; vdm train --help all shows them\n"
    assert capfd.readouterr() == ("", message)


def test_yaml_of_the_user_that_is_no_yaml_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("width: [1\n")
    monkeypatch.setattr("sys.argv", ["vdm", "train", "--help", f"--config-dir={tmp_path}", "model=mine"])

    assert run_program("vdm", COMMANDS) == 2

    err = capfd.readouterr().err
    assert "mine.yaml" in err
    assert err.count("\n") == 1


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, changes in (("svd", SVD), ("unet", {})):
        save_config(tmp_path / name, **changes)
        checkpoint = tmp_path / name / "checkpoints" / "step=00000007"
        checkpoint.mkdir(parents=True)
        (checkpoint / "state.json").write_text(json.dumps({"ema_names": ["half_life_8", "sigma_rel_0.1"]}))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize("command", ["sample", "evaluate"])
def test_help_of_a_checkpoint_says_what_it_has(command: str) -> None:
    text = _help(command, "checkpoint=svd")

    assert "\ncheckpoint=svd has:\n" in text
    for part in (
        "step=00000007",
        "half_life_8, sigma_rel_0.1",
        "motion_bucket_id  a number, at least 0 and at most 255",
    ):
        assert part in text.split("checkpoint=svd has:")[1]
    assert "motion_bucket_id" not in _help(command, "checkpoint=unet")
    assert "motion_bucket_id" not in _help(command)


def test_help_of_a_damaged_checkpoint_says_so_in_one_line(runs: Path) -> None:
    (runs / "unet" / "config.yaml").write_text("model: [")
    (runs / "svd" / "checkpoints" / "step=00000007" / "state.json").write_text("{")

    for checkpoint in ("unet", "svd", "nowhere", ""):
        text = _help("sample", f"checkpoint={checkpoint}")
        assert text.splitlines()[-1].startswith(f"checkpoint={checkpoint}: ")


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize("words", ["train --help", "sample -h checkpoint=svd", "train --help all"])
def test_help_imports_neither_hydra_nor_torch(words: str) -> None:
    code = (
        f"import sys; sys.argv = ['vdm', *{words.split()!r}]\n"
        "from vdm.cli.main import main\n"
        "try: main()\n"
        "finally: print(*{name.split('.')[0] for name in sys.modules})"
    )

    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert not {"torch", "lightning", "hydra", "numpy"} & set(shown.split("\n")[-2].split())
