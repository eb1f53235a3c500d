import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.data_pipelines.videos import write_sound

SMALL = ("clip.num_frames=4", "clip.height=16", "clip.width=16", "num_workers=2")


def _vdm_data(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    command = [sys.executable, "-m", "data_pipelines.cli", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def test_help_lists_the_commands_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['vdm-data', '--help']\n"
        "from data_pipelines.cli import main\n"
        "try: main()\n"
        "finally: print(*{name.split('.')[0] for name in sys.modules})"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0
    assert not {"torch", "hydra", "omegaconf", "pydantic", "numpy", "av"} & set(done.stdout.split("\n")[-2].split())
    assert "  build   make shards" in done.stdout
    assert "  verify  check shards" in done.stdout


def test_videos_become_a_verified_set_and_nothing_else_is_left(videos: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()

    built = _vdm_data(work, "build", f"input={videos}", "output=my shards (1)".replace(" (1)", ""), *SMALL)
    verified = _vdm_data(work, "verify", "my shards", "num_workers=0")

    found, *following = built.stdout.splitlines()
    assert (built.returncode, found) == (0, "my shards: clips: train 8, validation 4; without a caption: 12")
    assert following == ["Next: vdm-data show 'my shards'", "  or: vdm train \"data.path='my shards'\""]
    assert verified.returncode == 0
    assert verified.stdout.splitlines() == ["my shards: clips: 12, shards: 2, faults: 0", *following]
    assert [path.name for path in work.iterdir()] == ["my shards"]
    assert "100%" in built.stderr
    assert "100%" in verified.stderr


def test_faults_give_exit_code_one(videos: Path, tmp_path: Path) -> None:
    write_sound(videos / "sound.mp4")

    done = _vdm_data(tmp_path, "build", f"input={videos}", "output=shards", *SMALL)

    assert done.returncode == 1
    assert "sound.mp4: has no video stream, sound only\n" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["build", "input=nowhere", "output=x"], "input=nowhere: no such folder; give a folder of videos"),
        (["build", "output=x"], "input: no value given"),
        (["build", "input=.", "output=x", "clip.heigth=64"], "Unknown key 'clip.heigth': did you mean 'clip.height'?"),
        (
            ["build", "input=.", "output=x", "clip.height=63"],
            "clip.height=63: must be an even whole number, at",
        ),
        (["verify", "nowhere"], "nowhere: no such folder of shards"),
        (["verify"], "input: no value given"),
        (["biuld"], "vdm-data: unknown command 'biuld': did you mean 'build'?"),
    ],
)
def test_mistake_is_one_line_and_exit_code_two(tmp_path: Path, arguments: list[str], line: str) -> None:
    done = _vdm_data(tmp_path, *arguments)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(line)
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
