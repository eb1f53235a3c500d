"""Commands run within the test's process, with the project's conf/ or a small one in its place."""

import logging
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from omegaconf import DictConfig

from vdm.cli import hydra_main
from vdm.cli.commands import run_program
from vdm.cli.main import COMMANDS
from vdm.config.conf_dir import conf_dir

FILES = {
    "train.yaml": """
        defaults: [run_folder: train, model: small, experiment: null, _self_]
        name: test
        seed: 1
        resume: null
        data: {path: ./shards, num_workers: 2}
        trainer: {max_steps: 10, devices: 1, log_every_n_steps: 5}
        logger: null
        twice: "${trainer.max_steps}"
        logged: {every: "${trainer.log_every_n_steps}"}
    """,
    "sample.yaml": """
        defaults: [run_folder: none, _self_]
        checkpoint: ???
        prompts: [{text: "???"}]
        same: ${checkpoint}
    """,
    "model/small.yaml": "width: 32",
    "model/large.yaml": "width: 256",
    "model/broken.yaml": "width: [1",
    "logger/csv.yaml": "kind: csv",
    "experiment/lost.yaml": """
        # @package _global_
        defaults: [override /model: larg]
    """,
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one step, conditioned on text, classes and the first frame; its clips have 4 frames of 16x32."""
    from tests.data.shard_sets import write_set  # heavy, and needed by few
    from tests.training.runs import configuration, train

    folder = tmp_path_factory.mktemp("trained")
    shards = write_set(folder / "shards", {"train": (5,), "validation": (3,)})
    conditions = ("model.conditioner.num_classes=3", "model.conditioner.image=true")
    train(folder / "run", configuration(shards, *conditions, "trainer.max_steps=1"))
    return folder / "run"


RunVdm = Callable[..., tuple[int, str]]


@pytest.fixture
def run_vdm(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> RunVdm:
    """Run a command in a folder of its own; it returns its exit code and what it said to stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["vdm", *arguments])
        capfd.readouterr()
        return run_program("vdm", COMMANDS), capfd.readouterr().err

    return run


SHORT = ("device=cpu", "sampler=ddim", "sampler.num_steps=2")
"""Options by which ``vdm sample`` is fast."""
Sample = Callable[..., None]


@pytest.fixture
def sample(run_vdm: RunVdm, trained: Path) -> Sample:
    """Run ``vdm sample`` of the trained run, and expect that it succeeds."""

    def run(*arguments: str, checkpoint: Path | None = trained) -> None:
        of_run = [] if checkpoint is None else [f"checkpoint={checkpoint}", *SHORT]
        code, said = run_vdm("sample", *of_run, *arguments)
        assert code == 0, said

    return run


class Outcome(NamedTuple):
    code: int
    out: str
    err: str
    configs: list[DictConfig]
    """What the command's own code received, run by run."""


Vdm = Callable[..., Outcome]


@pytest.fixture
def small_conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "conf"
    shutil.copytree(conf_dir() / "run_folder", folder / "run_folder")
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        first, *rest = text.strip("\n").split("\n")
        indent = len(first) - len(first.lstrip())
        path.write_text("\n".join(line[indent:] for line in [first, *rest]).rstrip() + "\n")
    monkeypatch.setattr(hydra_main, "conf_dir", lambda: folder)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return folder


@pytest.fixture
def vdm(small_conf: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Vdm]:
    """Run ``vdm ARGUMENTS`` with ``task`` as the command's own code."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level

    def run(*arguments: str, task: Callable[[DictConfig], int | None] = lambda config: None) -> Outcome:
        configs: list[DictConfig] = []

        def recorded(config: DictConfig) -> int | None:
            configs.append(config)
            return task(config)

        monkeypatch.setattr("sys.argv", ["vdm", *arguments])
        capfd.readouterr()
        code = hydra_main.hydra_command(arguments[0], recorded)
        return Outcome(code, *capfd.readouterr(), configs)

    yield run
    for handler in set(root.handlers) - set(handlers):
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
