"""The history and the last figures of a run, read after kills, damage and malice."""

import json
import math
import os
from pathlib import Path

import pytest

from vdm.checkpoints.history import (
    HISTORY_NAME,
    MAX_REASON,
    Event,
    append_event,
    latest_start,
    one_line,
    read_history,
    whole_cost,
)
from vdm.checkpoints.last_figures import LastFigures, last_figures
from vdm.checkpoints.metrics_file import METRICS_NAME
from vdm.outside import MAX_BYTES


def event(kind: str = "stop", time: float = 1.0, **values: object) -> Event:
    return Event(**{"event": kind, "time": time, "step": 2, "position": 8} | values)  # type: ignore[arg-type]


def test_what_is_appended_is_read_back(tmp_path: Path) -> None:
    events = [
        event("start", command="vdm train 'data.path=a b'", host="h", lost_steps=3, lost_seconds=1.5, max_steps=None),
        event("rollback", 2.0, from_step=5, reason="step 5 was bad"),
        event("fail", 3.0, step=None, position=None, reason="é \u2028 one"),
    ]
    for one in events:
        append_event(tmp_path, one)
    assert read_history(tmp_path) == events
    lines = (tmp_path / HISTORY_NAME).read_bytes().splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["start", "rollback", "fail"]
    assert json.loads(lines[0])["resumed_from"] is None


def test_a_line_that_a_kill_cut_off_costs_that_line_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    append_event(tmp_path, event(time=1.0))
    with (tmp_path / HISTORY_NAME).open("a") as file:
        file.write('{"event": "sta')
    assert [one.time for one in read_history(tmp_path)] == [1.0]
    assert not caplog.records  # it may be in the making
    append_event(tmp_path, event(time=2.0))
    assert [one.time for one in read_history(tmp_path)] == [1.0, 2.0]
    assert "line 2: Invalid JSON" in caplog.text


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[]",
        b"[" * 100_000,
        b'{"event": "end", "time": 1, "step": 1, "position": 1}',
        b'{"event": "stop", "time": NaN, "step": 1, "position": 1}',
        b'{"event": "stop", "time": 1e999, "step": 1, "position": 1}',
        b'{"event": "stop", "time": -1, "step": 1, "position": 1}',
        b'{"event": "stop", "time": 1, "step": -1, "position": 1}',
        b'{"event": "stop", "time": 1, "step": 1' + b"0" * 5000 + b', "position": 1}',
        b'{"event": "stop", "time": 1, "step": true, "position": 1}',
        b'{"event": "stop", "time": 1, "step": 1, "position": 1, "reason": {"a": 1}}',
        b'{"event": "stop", "time": 1, "position": 1}',
    ],
    ids=lambda line: repr(line[:60]),
)
def test_a_damaged_line_is_passed_over_with_a_warning(
    tmp_path: Path, line: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    append_event(tmp_path, event(time=1.0))
    with (tmp_path / HISTORY_NAME).open("ab") as file:
        file.write(line + b"\n")
    append_event(tmp_path, event(time=2.0))
    assert [one.time for one in read_history(tmp_path)] == [1.0, 2.0]
    (warning,) = caplog.messages
    assert "history.jsonl: passed over what is no event: line 2: " in warning
    assert "\n" not in warning
    assert len(warning) < 1000


def test_a_file_of_bytes_is_one_line(tmp_path: Path) -> None:
    (tmp_path / HISTORY_NAME).write_bytes(b"\xff\xfe\n")
    with pytest.raises(ValueError, match=r"history\.jsonl: not UTF-8: invalid start byte at byte 0$"):
        read_history(tmp_path)


def test_what_is_no_file_is_neither_read_nor_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    target = tmp_path / "elsewhere"
    for name, make in (
        ("pipe", os.mkfifo),
        ("folder", Path.mkdir),
        ("device", lambda path: path.symlink_to("/dev/zero")),
        ("link", lambda path: path.symlink_to(target)),
    ):
        run = tmp_path / name
        run.mkdir()
        make(run / HISTORY_NAME)
        caplog.clear()
        append_event(run, event())
        assert "can't be written" in caplog.text, name
        if name != "link":
            with pytest.raises(ValueError, match=r"history\.jsonl: can't be read: "):
                read_history(run)
    assert not target.exists()
    append_event(tmp_path / "renamed while it trained", event())
    assert not (tmp_path / "renamed while it trained").exists()


def test_a_huge_history_is_one_line(tmp_path: Path) -> None:
    with (tmp_path / HISTORY_NAME).open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(ValueError, match=rf"has more than the {MAX_BYTES} bytes"):
        read_history(tmp_path)


def test_the_latest_start_is_told_from_earlier_ones_and_its_cost_ends_with_its_first_step() -> None:
    first = [event("start", 10.0, lost_seconds=0.0), event("stop", 20.0)]
    second = [event("start", 50.0, lost_seconds=30.0), event("first_step", 54.0), event("fail", 60.0)]
    assert latest_start([*first, *second]) == second
    assert latest_start(first[1:]) == first[1:]
    assert whole_cost(second) == (50 - 20) + (54 - 50)
    assert whole_cost(second[:1]) == 30  # killed before


def test_reason_keeps_both_ends_of_a_traceback_and_is_short() -> None:
    text = "Rank 1 failed:\nTraceback (most recent call last):\n  File ...\nRuntimeError: lost. All others end with it."
    assert one_line(text) == "Rank 1 failed: RuntimeError: lost. All others end with it."
    assert one_line("") == ""
    assert len(one_line("x" * 10_000)) == MAX_REASON


def write(run: Path, *lines: str, end: str = "\n") -> None:
    (run / METRICS_NAME).write_text("\n".join(lines) + end)


def test_last_figures_are_those_of_the_last_lines_that_have_them(tmp_path: Path) -> None:
    write(
        tmp_path,
        '{"step": 10, "time": 5.5, "position": 80, "train/loss": 0.9, "val/loss": 0.8, "val/fvd": 120}',
        '{"step": 20, "time": 6.5, "position": 160, "train/loss": "NaN"}',
        '{"step": 20, "time": 7.5, "position": 160, "val/loss": 0.7}',
    )
    found = last_figures(tmp_path)
    assert (found.step, found.time) == (20, 7.5)
    assert math.isnan(found.values["train/loss"])
    assert found.values["val/loss"] == 0.7
    assert found.values["val/fvd"] == 120
    assert last_figures(tmp_path / "none") == LastFigures()


def test_validation_loss_is_found_before_thousands_of_lines_without_it(tmp_path: Path) -> None:
    rare = '{"step": %d, "time": 5.5, "position": 80, "val/loss": %s}'
    often = [f'{{"step": {step}, "time": 5.5, "position": 80, "train/loss": 0.9}}' for step in range(3, 20_000)]
    write(tmp_path, rare % (1, 0.8), rare % (2, 0.7), '{"step": 2, "val/loss": 0.6}', *often)
    assert (tmp_path / METRICS_NAME).stat().st_size > 1 << 20
    found = last_figures(tmp_path)
    assert (found.step, found.values) == (19_999, {"train/loss": 0.9, "val/loss": 0.7})
    write(tmp_path, *often)
    assert "val/loss" not in last_figures(tmp_path).values


def test_only_the_end_of_a_long_file_is_read_and_cut_lines_are_left_out(tmp_path: Path) -> None:
    with (tmp_path / METRICS_NAME).open("wb") as file:
        file.truncate(1 << 34)  # a file with a hole, which takes no room
        file.seek(0, os.SEEK_END)
        file.write(b'\n{"step": 3, "time": 1.0, "position": 9, "train/loss": 0.25}\n{"step": 4, "ti')
    assert (last_figures(tmp_path).step, last_figures(tmp_path).values["train/loss"]) == (3, 0.25)
    write(tmp_path, '{"step": 1, "pad": "' + "x" * (1 << 20) + '"}')
    assert last_figures(tmp_path) == LastFigures()


@pytest.mark.parametrize(
    "line",
    ["[1]", '{"step": NaN}', '{"step": "NaN", "time": 1, "position": 1}', '{"step": -4, "time": -1, "position": 1}']
    + ['{"step": true, "time": 1, "position": 1}', '{"step": 1' + "0" * 400 + ', "time": 1, "position": 1}']
    + ["[" * 50_000, "\x00", '{"step": {}, "time": [], "train/loss": "0.5"}'],
    ids=lambda line: repr(line[:40]),
)
def test_lines_that_are_none_are_left_out(tmp_path: Path, line: str) -> None:
    write(tmp_path, line)
    assert last_figures(tmp_path) == LastFigures()


def test_an_endless_time_is_unknown(tmp_path: Path) -> None:
    write(tmp_path, '{"step": 1, "time": "Infinity", "position": 1}')
    assert last_figures(tmp_path) == LastFigures(step=1)


def test_figures_in_what_is_no_file_are_one_line(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / METRICS_NAME)
    with pytest.raises(ValueError, match=r"metrics\.jsonl: can't be read: is a named pipe, not a file$"):
        last_figures(tmp_path)
