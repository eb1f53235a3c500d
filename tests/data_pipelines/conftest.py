from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from data_pipelines.build import build
from data_pipelines.curate import curate
from data_pipelines.curate_settings import CurateSettings
from data_pipelines.settings import BuildSettings
from tests.data_pipelines.moving import raw_footage
from tests.data_pipelines.tars import members, video_sample, write_tar
from tests.data_pipelines.videos import gray_frames, write_h264
from vdm.config.conf_dir import conf_dir
from vdm.config.options import parse


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


Build = Callable[..., Outcome]
Curate = Callable[..., Outcome]

SMALL = ("clip.num_frames=8", "clip.height=32", "clip.width=32", "executor.num_workers=0")


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """A folder of three videos of two seconds, one in a sub-folder."""
    folder = tmp_path / "videos"
    (folder / "sub").mkdir(parents=True)
    for number, name in enumerate(("a.mp4", "b.mp4", "sub/c.mp4")):
        frames = gray_frames(16)
        for frame in frames:  # files of the same bytes would be one recording
            frame[0, :number] = 0
        write_h264(folder / name, frames)
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


@pytest.fixture(scope="session")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One video of each kind that curation must tell apart."""
    return raw_footage(tmp_path_factory.mktemp("footage") / "raw")


@pytest.fixture
def run_curate(footage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Curate:
    """Curate the footage into ``tmp_path / "shards"``, in this process."""

    def run(*overrides: str) -> Outcome:
        given = [f"input={footage}", f"output={tmp_path / 'shards'}", *SMALL, *overrides]
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            values: Any = OmegaConf.to_container(compose("curate", given), resolve=True)
        code = curate(parse(CurateSettings, values))
        return Outcome(code, *capsys.readouterr())

    return run


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """Two tars; in the second the members of samples lie apart, and videos differ in size."""
    folder = tmp_path / "foreign"
    folder.mkdir()
    write_tar(folder / "00000.tar", members(*(video_sample(number) for number in range(4))))
    apart = [video_sample(4), video_sample(5, (7, 32, 32)), video_sample(6, (8, 48, 32))]
    write_tar(folder / "00001.tar", sorted(members(*apart), key=lambda pair: pair[0].split(".")[1]))
    return folder


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    return tmp_path / "shards"
