"""Shell completion: what may stand where the line ends, and that a real bash completes with it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from data_pipelines.cli import COMMANDS as DATA_COMMANDS
from vdm.cli.main import COMMANDS
from vdm.cli.manual.completion import PATHS, completions
from vdm.config.options import PlainPath, texts_of


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a run, a folder of runs and a video."""
    for run in ("runs/one", "runs/two"):
        (tmp_path / run / "checkpoints" / "step=00000005").mkdir(parents=True)
        (tmp_path / run / "config.yaml").touch()
    (tmp_path / "my video.mp4").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("vdm ", {"train", "sample", "check", "--version"}),
        ("vdm tr", {"train"}),
        ("vdm train data.pa", {"data.path="}),
        ("vdm train optim", {"optimizer.", "optimizer="}),
        ("vdm train sampler=dd", {"sampler=ddim", "sampler=ddpm"}),
        ("vdm train diffusion/sch", {"diffusion/schedule="}),
        ("vdm train diffusion/schedule=sig", {"diffusion/schedule=sigmoid"}),
        ("vdm train diffusion=edm diffusion.schedule.sigma_ma", {"diffusion.schedule.sigma_max="}),
        ("vdm train blocks.compile=", {"blocks.compile=true", "blocks.compile=false"}),
        ("vdm sample checkpoint=ru", {"checkpoint=runs/"}),
        ("vdm sample checkpoint=runs/", {"checkpoint=runs/one", "checkpoint=runs/two"}),
        ("vdm sample checkpoint=runs/one/checkpoints/", {"checkpoint=runs/one/checkpoints/step=00000005"}),
        ("vdm sample input=my", {r"input=my\ video.mp4"}),
        ("vdm sample 'input=my v", {"input=my video.mp4"}),
        ("X=1 /some/where/vdm eva", {"evaluate"}),
        ("vdm train checkpoint=x", set()),
        ("vdm train no_such=", set()),
        ("vdm nothing a", set()),
        ("vdm train data.path=~nobody_here/x", set()),
        ("other", set()),
    ],
)
def test_what_may_come_next(line: str, expected: set[str]) -> None:
    found = completions("vdm", list(COMMANDS), line)
    assert expected <= set(found) if line.endswith("vdm ") else expected == set(found) - {"--completion"}


def test_words_that_bash_breaks_are_answered_by_their_end() -> None:
    assert completions("vdm", list(COMMANDS), "vdm train sampler=ddi", "=:") == ["ddim"]
    line = "vdm sample checkpoint=runs/one/checkpoints/st"
    assert completions("vdm", list(COMMANDS), line, "=:") == ["runs/one/checkpoints/step=00000005"]
    assert completions("vdm", list(COMMANDS), f"{line}ep=", "=:") == ["00000005"]


def test_paths_are_those_of_the_options() -> None:
    declared = {
        key
        for command in (*COMMANDS.values(), *DATA_COMMANDS.values())
        if (options := command.options_class()) is not None
        for key, option in texts_of(options).items()
        if Path in option.kinds or option.annotation == PlainPath
    }
    assert declared <= PATHS


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("vdm tr", ["train"]),
        ("vdm train sampler=un", ["unipc"]),
        ("vdm sample checkpoint=runs/tw", ["runs/two"]),
        ("vdm sample input=my", [r"my\ video.mp4"]),
    ],
)
def test_bash_completes(line: str, expected: list[str], folder: Path) -> None:
    program = folder / "vdm"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m vdm.cli.main "$@"\n')
    program.chmod(0o755)
    script = (
        f'PATH={folder}:$PATH; eval "$(vdm --completion bash)"; COMP_LINE={line!r}; COMP_POINT={len(line)}\n'
        'complete -p vdm >/dev/null && _vdm 2>/dev/null; printf "%s\\n" "${COMPREPLY[@]}"'
    )

    done = subprocess.run(["bash", "--norc", "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines() == expected, done.stderr


@pytest.mark.skipif(shutil.which("zsh") is None, reason="needs zsh")
def test_zsh_takes_the_script() -> None:
    script = 'eval "$(python -m vdm.cli.main --completion zsh)"; print ${_comps[vdm]}'
    done = subprocess.run(["zsh", "-f", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "_vdm"
