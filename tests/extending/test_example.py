"""The package in docs/example, in a folder of its user's: found there by training and planning, and by nothing else."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.data.shard_sets import write_set
from tests.training.runs import TINY
from tests.training.zygote import Zygote
from vdm.checkpoints.latest import latest_checkpoint
from vdm.checkpoints.run_record import load_config
from vdm.cli.own_code import make_importable
from vdm.processes import keep_current_folder_off_path

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "docs" / "example"
OWN = "hydra.searchpath=[file://conf]"
CHOSEN = ("model=my_network", "sampler=my_sampler", "objective=my_objective", "sampler.num_steps=2")
SMALL = tuple(option for option in TINY if not option.startswith(("model.network", "sampler.")))


class Vdm:
    """Runs commands in folders, each in a process of its own."""

    def __init__(self, zygote: Zygote, logs: Path) -> None:
        self._zygote, self._logs, self._count = zygote, logs, 0

    def __call__(self, folder: Path, *arguments: str) -> tuple[int, str]:
        """Return the exit code, and what was printed of a mistake."""
        self._count += 1
        log = self._logs / str(self._count)
        code = self._zygote.wait([self._zygote.start(arguments, {}, log, folder)], timeout=300)[0]
        return code, log.read_text() if code else ""


@pytest.fixture(scope="module")
def vdm(shared_zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Vdm:
    return Vdm(shared_zygote, tmp_path_factory.mktemp("logs"))


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("shards"), {"train": (5,), "validation": (3,)})


@pytest.fixture(scope="module")
def folder(vdm: Vdm, tmp_path_factory: pytest.TempPathFactory, shards: Path) -> Path:
    """A copy of the example in which a run of two steps was trained, its clips read by a worker."""
    folder = tmp_path_factory.mktemp("user") / "example"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    options = (f"data.path={shards}", *CHOSEN, *SMALL, "data.num_workers=1", "trainer.max_steps=2")
    assert vdm(folder, "train", *options, "hydra.run.dir=run", OWN) == (0, "")
    return folder


def test_it_is_planned_trained_resumed_and_sampled_from(vdm: Vdm, folder: Path, shards: Path) -> None:
    config = load_config(folder / "run")
    assert config["model"]["network"]["_target_"] == "my_package.network.TwoConvolutions"
    assert config["objective"]["_target_"] == "my_package.objective.AbsoluteError"
    assert vdm(folder, "plan", f"data.path={shards}", *CHOSEN, *SMALL, OWN) == (0, "")
    assert vdm(folder, "train", "resume=run", "trainer.max_steps=3") == (0, "")
    assert latest_checkpoint(folder / "run").name == "step=00000003"
    sample = ("sample", "checkpoint=run", "prompts=a dog", "output=out", "device=cpu")
    assert vdm(folder, *sample, "allow_own_code=true") == (0, "")
    assert (folder / "out" / "0000-a-dog.mp4").is_file()
    refused = "sampler._target_: 'my_package.sampler.MySampler' is not allowed: it must lie in"
    code, line = vdm(folder, *sample)
    assert (code, line[: len(refused)]) == (2, refused)


def test_elsewhere_a_resumed_run_says_what_is_missing_and_where_it_was_started(
    vdm: Vdm, folder: Path, tmp_path: Path
) -> None:
    code, line = vdm(tmp_path, "train", f"resume={folder / 'run'}", "trainer.max_steps=9")
    assert code == 2
    assert re.fullmatch(
        r"(model\.network|objective|sampler)\._target_: there is no package 'my_package' here; the run was started in"
        rf" {re.escape(str(folder))}, whose packages are found from there: resume it in that folder\n",
        line,
    )


def test_other_commands_find_nothing_in_the_current_folder(
    vdm: Vdm, folder: Path, shards: Path, tmp_path: Path
) -> None:
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "__init__.py").write_text("open('imported', 'w')")
    checkpoint = f"checkpoint={folder / 'run'}"
    for command in (("sample", "prompts=a"), ("evaluate", f"data_path={shards}"), ("ema", "sigma_rel=0.1")):
        assert vdm(tmp_path, command[0], checkpoint, *command[1:])[0] == 2
    assert not (tmp_path / "imported").exists()


def test_nothing_in_the_current_folder_stands_in_for_what_is_installed(vdm: Vdm, shards: Path, tmp_path: Path) -> None:
    """Least of all in the processes that ``multiprocessing`` starts, with the current folder first on their path."""
    for name in ("torch", "vdm", "multiprocessing", "selectors", "random", "yaml", "einops"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'a').write('{name}')")
    options = (f"data.path={shards}", *TINY, "data.num_workers=1", "trainer.max_steps=1", "hydra.run.dir=run")
    assert vdm(tmp_path, "train", *options) == (0, "")
    assert not (tmp_path / "imported").exists()


def test_the_current_folder_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", before := ["first", "second"])
    make_importable()
    make_importable()
    assert before == ["first", "second", str(tmp_path)]


def test_python_processes_that_are_started_do_not_look_in_the_current_folder_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "random.py").write_text("")
    monkeypatch.setenv("PYTHONSAFEPATH", "")
    command = [sys.executable, "-c", "import random; print(random.__file__)"]
    before = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.strip()
    keep_current_folder_off_path()
    after = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.strip()
    assert Path(before) == tmp_path / "random.py"
    assert not Path(after).is_relative_to(tmp_path)
