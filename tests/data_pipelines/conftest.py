from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_pipelines.build import build
from data_pipelines.settings import BuildSettings, parse
from tests.data_pipelines.videos import gray_frames, write_h264


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


Build = Callable[..., Outcome]


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """A folder of three videos of two seconds, one in a sub-folder."""
    folder = tmp_path / "videos"
    (folder / "sub").mkdir(parents=True)
    for number, name in enumerate(("a.mp4", "b.mp4", "sub/c.mp4")):
        write_h264(folder / name, [np.roll(frame, number, axis=0) for frame in gray_frames(16)])
    return folder


@pytest.fixture
def run_build(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Build:
    """Build ``videos`` into ``tmp_path / "shards"``, in this process."""

    def run(**changes: Any) -> Outcome:
        clip = {"num_frames": 4, "fps": 8, "height": 16, "width": 16} | changes.pop("clip", {})
        values = {"input": str(videos), "output": tmp_path / "shards", "num_workers": 0, "clip": clip, **changes}
        code = build(parse(BuildSettings, values))
        return Outcome(code, *capsys.readouterr())

    return run
