import json
import logging
import os
from pathlib import Path

import pytest

from vdm.data.quarantine import MIN_SAMPLES, RECENT_SAMPLES, Fault, Quarantine, TooManyBadSamplesError

FAULT = Fault("train-000000.tar", "clip-1", 512, "its checksum is not the one in the index")
OTHER = Fault("train-000000.tar", "clip-2", 9728, "does not decode")


def test_each_bad_sample_is_listed_and_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "run" / "quarantine.jsonl"
    quarantine, other_rank = Quarantine(path, 1.0), Quarantine(path, 1.0)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            quarantine.record(16, [FAULT])
            other_rank.record(16, [OTHER, FAULT])
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [Fault(**row) for row in rows] == [FAULT, OTHER]
    messages = [record.getMessage() for record in caplog.records]
    assert messages.count(f"Left out a bad sample: {FAULT.reason}") == 2  # each rank has its own log


def test_a_share_above_the_limit_stops_the_run() -> None:
    quarantine = Quarantine(None, max_bad_fraction=0.05)
    for _ in range(50):
        quarantine.record(20, [FAULT])  # one in twenty is allowed
    with pytest.raises(TooManyBadSamplesError, match=r"^51 of 1010 samples .* max_bad_fraction=0.05; .*$"):
        quarantine.record(10, [FAULT])


def test_a_few_bad_samples_at_the_start_do_not_stop_the_run() -> None:
    quarantine = Quarantine(None, max_bad_fraction=0.05)
    quarantine.record(16, [FAULT] * (MIN_SAMPLES // 20))
    with pytest.raises(TooManyBadSamplesError):
        quarantine.record(16, [FAULT])


def test_many_good_samples_do_not_hide_that_the_last_are_bad() -> None:
    quarantine = Quarantine(None, max_bad_fraction=0.05)
    quarantine.record(100 * RECENT_SAMPLES, [])
    for _ in range(RECENT_SAMPLES // 10):
        quarantine.record(10, [])
    for _ in range(RECENT_SAMPLES // 200):
        quarantine.record(10, [FAULT] * 10)
    with pytest.raises(TooManyBadSamplesError, match=r"^510 of the last 10000 samples .* max_bad_fraction=0.05; .*$"):
        quarantine.record(10, [FAULT] * 10)


def test_a_share_that_is_allowed_is_allowed_for_ever() -> None:
    quarantine = Quarantine(None, max_bad_fraction=0.05)
    for _ in range(3 * RECENT_SAMPLES // 20):
        quarantine.record(20, [FAULT])


@pytest.mark.parametrize(
    "content", [b"my notes\n", b"{}\n", b'{"shard": 1}\n', b"[" * 10**5, b"\xff\xfe\n", bytes(100)]
)
def test_a_file_of_the_users_is_refused_and_stays_as_it_is(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"^quarantine_path=.*notes.txt: its first line is no bad sample; name .*$"):
        Quarantine(path, 1.0)
    assert path.read_bytes() == content


def test_a_report_is_not_written_through_a_link_nor_into_what_is_no_file(tmp_path: Path) -> None:
    target = tmp_path / "target"
    (tmp_path / "link").symlink_to(target)
    os.mkfifo(tmp_path / "pipe")
    for name, kind in (("link", "a symbolic link"), ("pipe", "a named pipe"), (".", "a folder")):
        with pytest.raises(ValueError, match=rf"^quarantine_path=.*: is {kind}, not a file; name .*$"):
            Quarantine(tmp_path / name, 1.0)
    with pytest.raises(ValueError, match=r"^quarantine_path=/dev/null: is a device, not a file; .*$"):
        Quarantine(Path("/dev/null"), 1.0)
    quarantine = Quarantine(tmp_path / "late", 1.0)
    (tmp_path / "late").symlink_to(target)  # put there while training goes on
    with pytest.raises(ValueError, match="is a symbolic link, not a file"):
        quarantine.record(1, [FAULT])
    assert not target.exists()


def test_a_report_that_could_not_be_written_is_refused_before_training(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"^quarantine_path=.*: Not a directory; name .*$"):
        Quarantine(tmp_path / "file" / "report.jsonl", 1.0)


def test_a_report_is_one_ascii_line_a_sample_whatever_a_key_holds(tmp_path: Path) -> None:
    path = tmp_path / "quarantine.jsonl"
    odd = Fault("a\n.tar", "caf\udce9 \x1b[31m\u202e\u2028", 0, "\ud800\nreason")
    Quarantine(path, 1.0).record(1, [odd, OTHER])
    lines = path.read_bytes().split(b"\n")
    assert path.read_bytes().isascii()
    assert [Fault(**json.loads(line)) for line in lines[:-1]] == [odd, OTHER]
    assert not any(byte < 32 for byte in path.read_bytes().replace(b"\n", b""))
    Quarantine(path, 1.0).record(1, [odd])  # of a later run
    assert path.read_bytes().count(b"\n") == 2
