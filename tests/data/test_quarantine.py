import json
import logging
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
