import os
import platform
import re
import signal
import subprocess
import sys
from importlib import metadata

import pytest

from vdm.cli.commands import Command, run_program

COMMANDS = {"train": Command("vdm.cli.train", "train a model"), "sample": Command("vdm.cli.sample", "make videos")}


def _run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["vdm", *arguments])
    return run_program("vdm", COMMANDS)


def test_help_lists_the_commands(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(monkeypatch, "--help") == 0

    assert "  train   train a model\n  sample  make videos\n" in capsys.readouterr().out


def test_no_command_shows_help_and_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(monkeypatch) == 2

    assert capsys.readouterr().err.startswith("usage: vdm COMMAND")


def test_unknown_command_is_one_line_with_the_nearest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(monkeypatch, "trian") == 2

    expected = "vdm: unknown command 'trian': did you mean 'train'? (allowed: sample, train)\n"
    assert capsys.readouterr() == ("", expected)


def test_version_is_that_of_the_distribution(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(monkeypatch, "--version") == 0

    own, *others = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"vdm \d[\w.+]*( \(commit [0-9a-f]{12}(, with changes)?\))?", own)
    assert others == [f"torch {metadata.version('torch')}", f"python {platform.python_version()}"]


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['vdm', '--help']\n"
        "from vdm.cli.main import main\n"
        "try: main()\n"
        "finally: print(*{name.split('.')[0] for name in sys.modules})"
    )

    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert not {"torch", "lightning", "hydra", "omegaconf", "pydantic", "numpy"} & set(shown.split("\n")[-2].split())


def test_mistyped_key_is_refused_before_anything_heavy_is_imported() -> None:
    code = (
        "import sys; sys.argv = ['vdm', 'train', 'no_such_key=1']\n"
        "from vdm.cli.main import main\n"
        "try: main()\n"
        "finally: print(*{name.split('.')[0] for name in sys.modules})"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert not {"torch", "lightning"} & set(done.stdout.split())


@pytest.mark.parametrize(
    "arguments", ["--help", "--version", "--completion bash", "train --help all", "train --cfg job"]
)
def test_output_whose_reader_has_left_ends_without_a_traceback(arguments: str) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "vdm.cli.main", *arguments.split()]

    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)

    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize(
    ("command", "job", "held"),
    [
        ("train", {"SLURM_JOB_ID": "12", "SLURM_STEP_ID": "0"}, {signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2}),
        ("train", {"SLURM_JOB_ID": "12", "SLURM_JOB_NAME": "bash"}, set()),
        ("train", {}, set()),
        ("sample", {"SLURM_JOB_ID": "12", "SLURM_STEP_ID": "0"}, set()),
    ],
)
def test_signals_of_a_job_wait_from_the_beginning_of_training(
    command: str, job: dict[str, str], held: set[signal.Signals]
) -> None:
    code = (
        f"import signal, sys; sys.argv = ['vdm', '{command}']\n"
        "signal.pthread_sigmask(signal.SIG_SETMASK, [])\n"
        "from vdm.cli import main\n"
        "assert not {'torch', 'hydra'} & set(sys.modules)\n"
        "main.run_program = lambda *_: print(*map(int, signal.pthread_sigmask(signal.SIG_BLOCK, [])))\n"
        "main.main()"
    )
    outside = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}

    done = subprocess.run([sys.executable, "-c", code], env=outside | job, capture_output=True, text=True, check=True)

    assert set(map(int, done.stdout.split())) == held
