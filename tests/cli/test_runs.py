"""``vdm runs``: what it says of runs in every state, and of folders that are none."""

import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vdm.checkpoints.history import HISTORY_NAME, Event, append_event
from vdm.checkpoints.layout import checkpoint_folder
from vdm.checkpoints.metrics_file import METRICS_NAME
from vdm.checkpoints.run_record import write_config
from vdm.cli import run_status, run_table
from vdm.cli.commands import run_program
from vdm.cli.main import COMMANDS
from vdm.cli.run_search import find_runs, folder_size
from vdm.cli.run_status import status_of
from vdm.lock_files import LockHolder, acquire

ROOT = Path(__file__).parents[2]
NOW = time.time()


@pytest.fixture(autouse=True)
def clock_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have ages not depend on how long the tests before took."""
    monkeypatch.setattr(run_status, "time", SimpleNamespace(time=lambda: NOW))


def plant(run: Path, *events: Event, step: int = 4, figures: dict[str, Any] | None = None, max_steps: int = 10) -> Path:
    """Make a run's folder as training leaves it."""
    write_config_into(run, {"trainer": {"max_steps": max_steps}})
    if step:
        checkpoint_folder(run, step).mkdir(parents=True)
    for event in events:
        append_event(run, event)
    if figures is not None:
        (run / METRICS_NAME).write_text(json.dumps(figures) + "\n")
    return run


def write_config_into(run: Path, config: dict[str, Any]) -> None:
    run.mkdir(parents=True, exist_ok=True)
    write_config(run, config)
    (run / "versions.json").write_text("[]")


def start(ago: float = 100.0, **values: Any) -> Event:
    given = {"command": "vdm train data.path=SHARDS", "max_steps": 10} | values
    return Event(event="start", time=NOW - ago, step=0, position=0, **given)


def end(kind: Any, step: int | None = 4, ago: float = 50.0) -> Event:
    return Event(event=kind, time=NOW - ago, step=step, position=step, reason="why")


def measure(run: Path, step: int, **values: float) -> None:
    """Leave the figures of metrics behind, as ``callbacks.measure`` does."""
    folder = run / "evaluation" / f"step={step:08d}"
    folder.mkdir(parents=True)
    metrics = {name: {"value": value} for name, value in values.items()}
    (folder / "results.json").write_text(json.dumps({"metrics": metrics}))


def hold(run: Path, holder: LockHolder, silent: float = 0.0) -> None:
    """Leave the lock file of a process behind."""
    path = run / "locks" / "start"
    path.parent.mkdir(exist_ok=True)
    assert acquire(path, len(list(path.parent.iterdir())), holder.text())
    touched = time.time() - silent
    os.utime(path.with_name("start.0"), (touched, touched))


ME = LockHolder.this_process()
DEAD = replace(ME, process=2**22 + 1)
ELSEWHERE = replace(ME, host="elsewhere", boot="x", process=2**22 + 1)


@pytest.mark.parametrize(
    ("events", "holder", "silent", "state"),
    [
        ([start()], ME, 0, "training"),
        ([start(), end("stop"), start(20)], ME, 0, "training"),
        ([], ME, 0, "training"),  # its data are being opened
        ([start()], ELSEWHERE, 60, "training"),
        ([start()], ELSEWHERE, 600, "killed"),
        ([start()], DEAD, 0, "killed"),
        ([start(), end("first_step", 1)], None, 0, "killed"),
        ([start(), end("rollback")], DEAD, 0, "killed"),
        ([start(), end("stop"), start(20)], DEAD, 0, "killed"),
        ([start(), end("finish", 10)], replace(DEAD, ended="then"), 0, "finished"),
        ([start(), end("stop")], None, 0, "stopped"),
        ([start(), end("fail")], DEAD, 0, "failed"),
        ([end("fail", None)], None, 0, "failed"),
        ([], DEAD, 0, "killed"),
        ([], replace(DEAD, ended="then"), 0, "unknown"),
        ([], None, 0, "unknown"),
    ],
)
def test_state_follows_from_the_history_and_from_whether_the_process_lives(
    tmp_path: Path, events: list[Event], holder: LockHolder | None, silent: float, state: str
) -> None:
    run = plant(tmp_path / "run", *events)
    if holder is not None:
        hold(run, holder, silent)
    before = sorted(run.rglob("*"))
    assert status_of(run).state == state
    assert sorted(run.rglob("*")) == before  # no lock is taken, and nothing written


def test_run_of_an_earlier_version_is_finished_if_all_steps_are_done(tmp_path: Path) -> None:
    assert status_of(plant(tmp_path / "a", step=10)).state == "finished"
    status = status_of(plant(tmp_path / "b", step=9))
    assert (status.state, status.step, status.max_steps) == ("unknown", 9, 10)
    assert status_of(plant(tmp_path / "c", step=9, max_steps=-1)).max_steps is None


def test_steps_figures_age_and_size_are_the_latest(tmp_path: Path) -> None:
    figures = {"step": 7, "time": NOW - 30, "position": 28, "train/loss": 0.5, "val/loss": 0.6, "val/perplexity": 3.0}
    run = plant(tmp_path / "run", start(), end("stop", 9, 80), start(40, max_steps=20), figures=figures)
    measure(run, 2, fvd=80.0, static_clips=0.5)
    measure(run, 4, fvd=77.0, static_clips=0.5)
    measure(run, 6)  # all of its metrics failed
    measure(run, 8, fvd=70.0)  # after the checkpoint: to be measured again
    status = status_of(run)
    # Of the steps that the first start had done after the checkpoint, two are to be repeated.
    assert (status.step, status.max_steps, status.loss, status.metric, status.value) == (7, 20, 0.5, "fvd", 77.0)
    assert status.age == pytest.approx(30)
    assert status.num_starts == 2
    assert status.num_bytes == sum(path.stat().st_size for path in run.rglob("*") if path.is_file())


def test_scalar_of_an_objective_is_no_metric(tmp_path: Path) -> None:
    figures = {"step": 4, "time": NOW, "position": 0, "val/accuracy": 0.5, "val/loss": 0.6}
    run = plant(tmp_path / "run", figures=figures)
    assert (status_of(run).metric, status_of(run).value) == ("loss", 0.6)


def test_damaged_measurement_is_a_warning_and_the_validation_loss_stands_in(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = plant(tmp_path / "run", figures={"step": 4, "time": NOW, "position": 0, "val/loss": 0.6})
    measure(run, 4, fvd=1.0)
    file = run / "evaluation" / "step=00000004" / "results.json"
    file.write_text('{"metrics": {"fvd": {"value": "low"}}}')
    status = status_of(run)
    assert (status.metric, status.value) == ("loss", 0.6)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(f"{file}: metrics.fvd.value 'low': ")


Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Call:
    """Run ``vdm runs`` in a folder of its own; it returns exit code and what it said to stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["vdm", "runs", *arguments])
        capfd.readouterr()
        code = run_program("vdm", COMMANDS)
        out, err = capfd.readouterr()
        return code, out, err

    return run


def plant_three() -> None:
    for name, loss, step, ago in (("a/1", 0.3, 5, 30_600), ("a/0", "NaN", 9, 50), ("b", 0.1, 2, 50_000)):
        figures = {"step": step, "time": NOW - ago, "position": 0, "train/loss": loss}
        plant(Path("runs") / name, start(ago + 1), end("stop", step, ago), step=step, figures=figures)


@pytest.mark.parametrize(
    ("order", "names"),
    [
        ("age", ["a/0", "a/1", "b"]),
        ("step", ["a/0", "a/1", "b"]),
        ("loss", ["b", "a/1", "a/0"]),
        ("name", ["a/0", "a/1", "b"]),
    ],
)
def test_runs_of_all_folders_below_are_listed_in_the_order_asked_for(runs: Call, order: str, names: list[str]) -> None:
    plant_three()
    code, out, err = runs(f"sort={order}")
    head, *lines, following, other = out.splitlines()
    assert (code, err) == (0, "")
    assert head.split() == ["run", "state", "step", "loss", "metric", "age", "size", "command"]
    assert [line.split()[0] for line in lines] == names
    assert following == f"Next: vdm train resume=runs/{names[0]}"
    assert other == f"  or: vdm sample checkpoint=runs/{names[0]}"
    cells = next(line for line in lines if line.startswith("a/1")).split()
    assert cells[1:7] == ["stopped", "5/10", "0.3", "-", "8.5", "h"]


def test_json_and_csv_have_all_that_is_known(runs: Call) -> None:
    plant_three()
    listed = json.loads(runs("sort=loss", "format=json")[1])
    assert [(one["run"], one["loss"]) for one in listed] == [("b", 0.1), ("a/1", 0.3), ("a/0", "NaN")]
    assert listed[0].items() >= {"state": "stopped", "reason": "why", "step": 2, "max_steps": 10, "starts": 1}.items()
    assert listed[0]["command"] == "vdm train data.path=SHARDS"
    assert listed[0]["age_seconds"] == 50_000
    rows = list(csv.DictReader(StringIO(runs("sort=loss", "format=csv")[1])))
    assert [row["path"] for row in rows] == ["runs/b", "runs/a/1", "runs/a/0"]
    assert rows[2]["loss"] == "nan"
    assert rows[0].keys() == listed[0].keys()


@pytest.mark.parametrize("width", [20, 30, 40, 60, 80, 120])
def test_table_fits_the_terminal_and_keeps_names_as_long_as_it_can(tmp_path: Path, width: int) -> None:
    long = plant(tmp_path / "vdm" / "2026-01-31_12-00-00", start(command="vdm train " + "x" * 500))
    wide = plant(
        tmp_path / "vdm" / "動画",
        start(),
        figures={"step": 4, "time": NOW, "position": 0, "train/loss": 1},
    )
    measure(wide, 4, fvd=1e9)
    lines = list(run_table.table([status_of(long), status_of(wide)], tmp_path, width))
    assert len(lines) == 3
    assert all(run_table.disp_len(line) <= width for line in lines)
    if width >= 40:
        assert lines[1].startswith("vdm/2026-01-31_12-00-00  killed")
        # A wide character takes two columns.
        assert lines[2].index("killed") == lines[1].index("killed") - 2
    assert ("vdm train" in lines[1]) == (width == 120)


def test_one_run_is_listed_by_its_own_folder(runs: Call) -> None:
    plant(Path("runs/one"), start())
    code, out, _ = runs("folder=runs/one")
    assert code == 0
    assert out.splitlines()[1].split()[:2] == ["one", "killed"]


def test_a_folder_without_runs_and_a_missing_one_are_said_to_be_so(runs: Call) -> None:
    assert runs() == (2, "", "folder=runs: no such folder; give a folder of runs\n")
    Path("runs/.check-1").mkdir(parents=True)
    plant(Path("runs/.check-1"))
    code, out, _ = runs()
    assert (code, out.splitlines()[0]) == (0, "No runs in runs or below")
    assert runs("format=json")[1] == "[]\n"
    assert runs("format=csv")[1] == "\n"
    assert runs("folder=runs", "sort=size")[0] == 2
    assert runs("format=xml")[0] == 2


def test_links_are_followed_to_runs_alone_and_circles_end(tmp_path: Path) -> None:
    one = plant(tmp_path / "elsewhere" / "one", start())
    folder = tmp_path / "runs"
    two = plant(folder / "two", start())
    (folder / "to_run").symlink_to(one)
    (folder / "again").symlink_to(two)
    (folder / "up").symlink_to(tmp_path)
    (folder / "self").symlink_to("self")
    (folder / "sub").mkdir()
    (folder / "sub" / "circle").symlink_to(folder)
    found = list(find_runs(folder))
    assert sorted(path.resolve() for path in found) == [one, two]
    (two / "link").symlink_to("/")
    assert folder_size(two) == sum(
        path.stat().st_size for path in two.iterdir() if path.is_file() and path.name != "link"
    )


def test_folders_that_only_look_like_runs_are_left_out_and_runs_are_not_searched(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.yaml").write_text("a: 1")
    run = plant(tmp_path / "run")
    plant(run / "ema" / "sigma_rel_0.1")
    assert list(find_runs(tmp_path)) == [run]


def test_damaged_runs_are_a_line_each_with_a_warning(runs: Call) -> None:
    for name in ("config", "history", "metrics", "lock", "all", "long"):
        plant(Path("runs") / name, start(), step=0)
    (Path("runs/config/config.yaml")).write_text("- [")
    Path("runs/config", HISTORY_NAME).unlink()
    for name in ("history", "all"):
        Path("runs", name, HISTORY_NAME).write_bytes(b"\xff\n")
    for name in ("metrics", "all"):
        os.mkfifo(Path("runs", name, METRICS_NAME))
    for name in ("lock", "all"):
        Path("runs", name, "locks").mkdir()
        os.mkfifo(Path("runs", name, "locks", "start.0"))
        Path("runs", name, "locks", "start." + "9" * 200).touch()
    Path("runs/all/checkpoints").write_text("no folder")
    Path("runs/long", HISTORY_NAME).write_text("x" * 5_000_000)
    code, out, err = runs("sort=name")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[1:]] == ["all", "config", "history", "lock", "long", "metrics"]
    assert "Traceback" not in err
    for complaint in ("config.yaml: can't be read", "history.jsonl: not UTF-8", "metrics.jsonl: can't be read"):
        assert complaint in err


def test_hostile_names_and_texts_do_not_reach_the_terminal(runs: Call) -> None:
    name = "a\x1b[31m\nb"
    plant(
        Path("runs") / name,
        start(command="vdm\x1b]0;x\x07\ntrain"),
        figures={"val/\x1b[2J": 1.0, "step": 1, "time": NOW, "position": 0},
    )
    for form in ("table", "json", "csv"):
        code, out, _ = runs(f"format={form}")
        assert code == 0
        assert "\x1b" not in out
        assert "\x07" not in out


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read all")
def test_unreadable_folder_is_a_warning(runs: Call) -> None:
    plant(Path("runs/one"), start())
    Path("runs/secret").mkdir(mode=0)
    code, out, err = runs()
    assert code == 0
    assert "one" in out
    assert "runs/secret: can't be read: Permission denied" in err


def test_folder_that_goes_away_meanwhile_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plant(tmp_path / "one", start())
    scan = os.scandir

    def fail(path: Any) -> Any:
        if str(path).endswith("gone"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    (tmp_path / "gone").mkdir()
    monkeypatch.setattr("os.scandir", fail)
    assert list(find_runs(tmp_path)) == [tmp_path / "one"]
    assert f"{tmp_path}/gone: can't be read: Permission denied" in caplog.text
    assert status_of(tmp_path / "never").state == "unknown"


def test_thousand_runs_are_listed_in_seconds_without_pytorch(tmp_path: Path) -> None:
    figures = {f"train/loss_by_level/t={index}": 0.5 for index in range(30)} | {
        "train/loss": 0.5,
        "time": NOW,
        "position": 0,
    }
    lines = "".join(json.dumps({"step": step, **figures}) + "\n" for step in range(300))
    plant(tmp_path / "first", start(), end("stop"))
    texts = {path.name: path.read_text() for path in (tmp_path / "first").iterdir() if path.is_file()}
    texts[METRICS_NAME] = lines
    for number in range(999):
        run = tmp_path / f"{number // 100}" / f"{number}"
        (run / "checkpoints" / "step=00000004").mkdir(parents=True)
        (run / "checkpoints" / "step=00000004" / "weights").touch()
        for name, text in texts.items():
            (run / name).write_text(text)
    script = (
        "import sys; from vdm.cli.main import main\n"
        "try: main()\n"
        "finally: assert not {'torch', 'lightning', 'wandb'} & set(sys.modules), 'a heavy import'"
    )
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", script, "runs", f"folder={tmp_path}", "format=json"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=100,
    )
    assert time.perf_counter() - began < 30
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)) == 1000


def test_age_and_size_are_in_the_largest_unit_that_fits(tmp_path: Path) -> None:
    def cells(age: float, num_bytes: int) -> list[str]:
        status = status_of(plant(tmp_path / str(age), start()))
        aged = replace(status, alive=NOW - age, num_bytes=num_bytes)
        return list(run_table.table([aged], tmp_path, None))[1].split()[5:9]

    assert cells(42, 0) == ["42", "s", "0", "B"]
    assert cells(90, 1536) == ["1.5", "min", "1.5", "KiB"]
    assert cells(36000, 20 * 2**30) == ["10", "h", "20", "GiB"]
    assert cells(86400 * 3, 5 * 2**40) == ["3.0", "d", "5.0", "TiB"]
    assert replace(status_of(tmp_path / "42"), alive=NOW + 1e9).age == 0
