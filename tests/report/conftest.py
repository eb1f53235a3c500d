"""Reports of made runs, written once for all tests that look at them."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.report.made_runs import HOSTILE, write_run
from vdm.cli.report import commands_of, read_runs
from vdm.report.page import About, Limits, page_of

LIMITS = Limits(max_bytes=15_000_000, max_videos=8)


def write_report(output: Path, paths: Sequence[Path], limits: Limits = LIMITS) -> Path:
    """Write the page of some runs, as ``vdm report`` does; return its path."""
    runs = read_runs(paths)
    text, _ = page_of(runs, {run.name: commands_of(run) for run in runs}, About("today", "1"), limits)
    output.write_text(text)
    return output


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 400 steps, with samples at four of them."""
    return write_run(tmp_path_factory.mktemp("made") / "run")


@pytest.fixture(scope="session")
def report(run: Path) -> Path:
    return write_report(run.parent / "report.html", [run])


@pytest.fixture(scope="session")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs that differ in learning rate and loss: of the second, the loss is the highest."""
    folder = tmp_path_factory.mktemp("sweep")
    for number, (lr, scale) in enumerate([(1e-4, 2.0), (1e-3, 3.0), (1e-2, 1.0)]):
        settings = {"optimizer": {"lr": lr}, "training": {"optimizer": {"lr": lr}}}
        write_run(folder / f"{number}_optimizer.lr={lr:g}", scale=scale, settings=settings, sample_steps=(200, 400))
    return folder


@pytest.fixture(scope="session")
def sweep_report(sweep: Path) -> Path:
    return write_report(sweep / "report.html", [sweep])


@pytest.fixture(scope="session")
def hostile_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of two runs in which each text is one that would run if it were taken as HTML."""
    folder = tmp_path_factory.mktemp("hostile")
    name = HOSTILE.replace("/", "\u2044")
    for number in range(2):
        settings = {"name": f"{HOSTILE} {number}", HOSTILE: HOSTILE, ("constructor", "x")[number]: ""}
        history = [{"event": "fail", "time": 1.0, "step": 3, "position": 3, "reason": HOSTILE}]
        run = write_run(folder / f"{number}{name}", settings=settings, captions=(HOSTILE, None), history=history)
        with (run / "metrics.jsonl").open("a") as file:
            file.write('{"step": 401, "time": 1764537300, "position": 1, "train/<b>x</b><img src=x>": 1}\n')
            file.write(
                '{"step": 402, "time": 1e308, "position": 1, "toString": 1e308, "__proto__": 1}\n' * (1 - number)
            )
    return write_report(folder / "report.html", [folder])
