import errno
import os
from pathlib import Path

import pytest

from data_pipelines.histograms import draw_histograms
from data_pipelines.manifest import ClipRow
from data_pipelines.stages.limits import Limits


def _rows(count: int) -> list[ClipRow]:
    return [ClipRow(f"clip-{n}", "a.mp4", float(n), 0, 5.0, 8.0, 64, 64, {"sharpness": 9.0 * n}) for n in range(count)]


def test_picture_is_the_old_or_the_new_one_never_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    limits, picture = {"sharpness": Limits(min=20.0)}, tmp_path / "filter.png"
    draw_histograms(picture, _rows(8), limits)
    before = picture.read_bytes()

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full_disk)
        with pytest.raises(OSError, match="No space left"):
            draw_histograms(picture, _rows(20), limits)
    assert picture.read_bytes() == before

    draw_histograms(picture, _rows(20), limits)
    assert picture.read_bytes() != before
    assert picture.read_bytes().startswith(b"\x89PNG")
