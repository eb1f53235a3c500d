"""``vdm report``: what it writes, replaces and refuses."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.conftest import RunVdm
from tests.report.made_runs import write_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "runs/a", num_steps=40, sample_steps=(40,))


def test_the_page_is_written_into_the_run_and_replaces_an_earlier_one(
    run_vdm: RunVdm, run: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_vdm("report", f"run={run}") == (0, "")
    first = (run / "report.html").read_bytes()
    with (run / "bad_steps.jsonl").open("a") as file:
        file.write('{"step": 99}\n')
    assert run_vdm("report", f"run={run}") == (0, "")
    assert len((run / "report.html").read_bytes()) > len(first)
    assert [path.name for path in run.glob(".*")] == []


def test_pages_of_several_runs_say_where_they_are(run_vdm: RunVdm, run: Path, tmp_path: Path) -> None:
    write_run(tmp_path / "runs/b", num_steps=40, sample_steps=())

    assert run_vdm("report", f"run={tmp_path}/runs")[0] == 0
    assert run_vdm("report", "run=[runs/a,runs/b]", "output=new/page.html")[0] == 0
    assert run_vdm("report", "run=[runs/a,runs/b]")[0] == 0

    pages = [path.read_text() for path in (tmp_path / "runs/report.html", tmp_path / "new/page.html")]
    assert all('"title":"runs: 2 runs"' in page for page in pages)
    assert (tmp_path / "report.html").is_file()


def test_what_is_no_report_is_replaced_only_if_told_so(run_vdm: RunVdm, run: Path, tmp_path: Path) -> None:
    notes = tmp_path / "notes.html"
    notes.write_text("mine")

    code, said = run_vdm("report", f"run={run}", f"output={notes}")
    assert (code, said) == (2, f"output={notes}: exists already, and is no report; overwrite=true replaces it\n")
    assert notes.read_text() == "mine"
    assert run_vdm("report", f"run={run}", f"output={notes}", "overwrite=true") == (0, "")
    assert notes.read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run=nowhere"], r"run=nowhere: no such folder; give the folder of a run, or one with runs in it"),
        (["run=runs/a/config.yaml"], r"run=runs/a/config.yaml: is a file; give the folder of a run, .*"),
        (["run=empty"], r"run=empty: not a run, nor is there one in it"),
        (["run=[]"], r"run=\[\].*a list of one or more folders.*"),
        (["run=[runs/a,nowhere]"], r"run=nowhere: no such folder; .*"),
        (["run=runs/a", "output=empty"], r"output=empty: is a folder; give a file"),
        (["run=runs/a", "output=runs/a/config.yaml/x.html"], r"output=.*"),
        (["run=runs/a", "max_megabytes=1"], r"max_megabytes=1: .*a number of MB, at least 6 and at most 2000"),
        (["run=runs/a", "max_videos=-1"], r"max_videos=-1: .*"),
        (["checkpoint=runs/a"], r"checkpoint: unknown key; run=RUN names the run"),
        ([], r"run: no value given; add run=\.\.\."),
    ],
    ids=str,
)
def test_wrong_calls_are_one_line(
    run_vdm: RunVdm, run: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    (tmp_path / "empty").mkdir()

    code, said = run_vdm("report", *arguments)

    assert code == 2
    assert re.fullmatch(message, said.removesuffix("\n")), said
    assert not list(tmp_path.rglob("*report.html"))


def test_a_configuration_that_is_damaged_is_one_line(run_vdm: RunVdm, run: Path) -> None:
    (run / "config.yaml").write_text("a: [1")
    code, said = run_vdm("report", f"run={run}")
    assert (code, said.count("\n")) == (2, 1)
    assert said.startswith(f"{run / 'config.yaml'}: can't be read: ")


def test_a_file_that_is_left_out_is_named(
    run_vdm: RunVdm, run: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from vdm.cli import report

    said: list[str] = []
    monkeypatch.setattr(report, "print", lambda text: said.append(text), raising=False)
    (run / "versions.json").write_text("{")

    assert run_vdm("report", f"run={run}", "max_videos=1")[0] == 0

    assert said[0] == "runs/a: Shown: 1 of 2 videos of a step."
    assert said[1].startswith(f"Not shown: {run / 'versions.json'}: can't be read as JSON")
    assert said[2].endswith(f"MB), to be opened in a browser: {run / 'report.html'}")


def test_a_page_that_would_be_too_large_is_refused(run_vdm: RunVdm, tmp_path: Path) -> None:
    settings = {f"key{number}": "x" * 1000 for number in range(1500)}
    write_run(tmp_path / "run", num_steps=4, sample_steps=(), captions=(), settings=settings)
    code, said = run_vdm("report", "run=run", "max_megabytes=6")
    assert code == 2
    assert re.fullmatch(r"max_megabytes=6: 1 run\(s\) need 6\.\d MB without any video\n", said)
    assert not (tmp_path / "run/report.html").exists()


def test_100_000_steps_take_less_than_10_seconds_and_15_megabytes(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", num_steps=100_000, every=1, sample_steps=range(1000, 100_001, 4000))
    started = os.times()
    begun = time.perf_counter()

    call = [sys.executable, "-X", "importtime", "-m", "vdm.cli.main", "report", f"run={run}"]
    done = subprocess.run(call, capture_output=True, text=True, timeout=120)

    assert done.returncode == 0, done.stderr
    ended = os.times()
    used = ended.children_user + ended.children_system - started.children_user - started.children_system
    assert min(used, time.perf_counter() - begun) < 10  # other tests may take the cores meanwhile
    assert (run / "report.html").stat().st_size < 15_000_000
    assert not re.search(r"\| +(torch|lightning)$", done.stderr, re.MULTILINE)


def test_a_killed_call_leaves_the_earlier_page(run_vdm: RunVdm, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_vdm("report", f"run={run}")[0] == 0
    before = (run / "report.html").read_bytes()

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    code, said = run_vdm("report", f"run={run}")

    assert (code, said) == (2, "[Errno 28] No space left on device\n")
    assert (run / "report.html").read_bytes() == before
