"""Runs of a sweep are called by what they differ in."""

import os
import subprocess
from pathlib import Path

import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from tests.cli.conftest import Vdm
from vdm.checkpoints import checkout, run_record
from vdm.checkpoints.checkout import MAX_DIFF_BYTES, git_diff, git_version
from vdm.cli.sweeps import Sweep, grouped, present_sweep, run_name


def test_folders_group_and_tags_name_what_differs_and_nothing_else(vdm: Vdm) -> None:
    folders, sweeps = [], []

    def task(config: DictConfig) -> None:
        folders.append(Path(HydraConfig.get().runtime.output_dir))
        sweeps.append(present_sweep())

    outcome = vdm("train", "-m", "model=small,large", "data.path=/a/b", "trainer.max_steps=1,2", task=task)

    assert outcome.code == 0, outcome.err
    assert [folder.name for folder in folders] == [
        f"{number}_{words}"
        for number, words in enumerate(
            f"model={model},trainer.max_steps={steps}" for model in ("small", "large") for steps in (1, 2)
        )
    ]
    assert sweeps[1] == Sweep(folders[0].parent.name, ["model=small", "trainer.max_steps=2"])


def test_last_of_two_overrides_of_a_key_is_what_a_run_differs_in(vdm: Vdm) -> None:
    folders = []

    def task(config: DictConfig) -> None:
        folders.append(Path(HydraConfig.get().runtime.output_dir).name)

    outcome = vdm("train", "-m", "trainer.max_steps=1", "seed=5", "trainer.max_steps=2,3", task=task)

    assert outcome.code == 0, outcome.err
    assert folders == ["0_trainer.max_steps=2", "1_trainer.max_steps=3"]


def test_single_run_is_no_sweep(vdm: Vdm) -> None:
    sweeps: list[Sweep | None] = []
    assert vdm("train", "seed=2", task=lambda config: sweeps.append(present_sweep())).code == 0
    assert sweeps == [None]


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ([], "3"),
        (["optimizer.lr=1e-4", "seed=1"], "3_optimizer.lr=1e-4,seed=1"),
        (["data.path=/a/../b c/*"], "3_data.path=-a-..-b-c"),
        (["+trainer.x='a\nb'"], "3_trainer.x=-a-b"),
        (["~logger"], "3_logger"),
        (["x=.."], "3_x="),
    ],
)
def test_names_are_safe_for_files(overrides: list[str], name: str) -> None:
    assert run_name(3, overrides) == name


def test_names_are_bounded() -> None:
    assert len(run_name(1, ["data.path=" + "x" * 1000])) < 130
    assert len(run_name(1, ["name=" + "\u6f22" * 1000]).encode()) < 255


def test_dashboard_groups_a_sweep_unless_the_user_does() -> None:
    sweep = Sweep("2026", ["optimizer.lr=1", "x=" + "y" * 100])
    wandb = {"_target_": "a.b", "group": None, "tags": None}
    found = grouped({"wandb": wandb, "csv": {"_target_": "a.c"}, "none": None}, sweep)
    assert found["wandb"] == {"_target_": "a.b", "group": "2026", "tags": ["optimizer.lr=1", ("x=" + "y" * 100)[:64]]}
    assert (found["csv"], found["none"]) == ({"_target_": "a.c"}, None)
    own = grouped({"wandb": {**wandb, "group": "mine", "tags": ["a"]}}, sweep)["wandb"]
    assert (own["group"], own["tags"][:2]) == ("mine", ["a", "optimizer.lr=1"])
    assert grouped({"wandb": wandb}, None) == {"wandb": wandb}


def test_commit_is_that_of_the_code_wherever_the_command_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In another repository, and under the variables that Git gives to hooks."""
    code, other = tmp_path / "code", tmp_path / "other"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    who = ("-c", "user.name=a", "-c", "user.email=a@b")
    for folder in (code, other):
        folder.mkdir()
        (folder / "file").write_text(folder.name)
        for command in (["init", "-q"], ["add", "file"], [*who, "commit", "-q", "-m", folder.name]):
            subprocess.run(["git", "-C", str(folder), *command], check=True, env=clean)
    (code / "vdm" / "checkpoints").mkdir(parents=True)
    monkeypatch.setattr(checkout, "__file__", str(code / "vdm" / "checkpoints" / "checkout.py"))
    monkeypatch.chdir(other)
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    commit = subprocess.run(
        ["git", "-C", str(code), "rev-parse", "HEAD"], check=True, env=clean, capture_output=True, text=True
    ).stdout.strip()
    index = (code / ".git" / "index").read_bytes()
    os.utime(code / "file", (0, 0))  # an ordinary `git status` would note it in the index, which it locks for that
    assert git_version() == {"commit": commit, "dirty": False}
    assert (code / ".git" / "index").read_bytes() == index
    assert git_diff() == ""
    (code / "new").write_text("not tracked")
    assert git_version() == {"commit": commit, "dirty": True}
    assert git_diff() == ""
    (code / "file").write_text("changed")
    subprocess.run(
        ["git", "-C", str(code), "config", "diff.external", f"touch {tmp_path / 'ran'}"], check=True, env=clean
    )
    assert git_version() == {"commit": commit, "dirty": True}
    assert git_diff().splitlines()[-4:] == [
        "-code",
        "\\ No newline at end of file",
        "+changed",
        "\\ No newline at end of file",
    ]
    assert not (tmp_path / "ran").exists()


def test_changes_to_the_code_are_recorded_with_each_start_once_and_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version: checkout.GitVersion = {"commit": "c" * 40, "dirty": True}
    monkeypatch.setattr(run_record, "git_version", lambda: version)
    for diff in ("one\n", "one\n", "two\n", ""):
        monkeypatch.setattr(run_record, "git_diff", lambda diff=diff: diff)
        run_record.record_run(tmp_path, {})
    names = [(start.get("git") or {}).get("diff") for start in run_record.versions_of(tmp_path)]
    assert names[0] == names[1] != names[2]
    assert names[3] is None
    assert [(tmp_path / str(name)).read_text() for name in names[:3]] == ["one\n", "one\n", "two\n"]
    assert len(list(tmp_path.glob("code-*.diff"))) == 2


def test_changes_of_many_bytes_are_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkout, "__file__", str(tmp_path / "vdm" / "checkpoints" / "checkout.py"))
    (tmp_path / ".git").mkdir()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "git").write_text(f"#!/bin/sh\nhead -c {MAX_DIFF_BYTES + 5} /dev/zero\n")
    (tmp_path / "bin" / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    assert git_diff() == "\0" * MAX_DIFF_BYTES + "\n... 5 further bytes are left out\n"
    (tmp_path / "bin" / "git").write_text("#!/bin/sh\nexit 1\n")
    assert git_diff() == ""
    (tmp_path / "bin" / "git").write_text("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(checkout, "_SECONDS", 0.1)
    assert git_diff() == ""
