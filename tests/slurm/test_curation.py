"""``vdm-data curate`` as a real SLURM array."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np

from tests.data_pipelines.videos import gray_frames, write_h264
from tests.slurm.cluster import Cluster
from tests.slurm.conftest import CHECKOUT, SECONDS
from vdm.data.index import read_index

NUM_TASKS = 2


def curate(slurm: Cluster, folder: Path, *arguments: str) -> str:
    """Run the command where jobs are submitted, and return what it prints."""
    plain = ("shots=none", "filter=none", "drop_exact_duplicates=false", "samples_per_shard=2")
    small = ("clip.num_frames=8", "clip.height=32", "clip.width=32", "input=videos")
    done = subprocess.run(
        [sys.executable, "-m", "data_pipelines.cli", "curate", *plain, *small, *arguments],
        cwd=folder,
        env={**slurm.variables, "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def files_of(shards: Path) -> dict[str, bytes]:
    """The tars of a set, their sidecars and its index."""
    index = read_index(shards)
    names = [name for shard in index.shards() for name in (shard.name, shard.name.replace(".tar", ".index.json"))]
    return {name: (shards / name).read_bytes() for name in ["index.json", *names]}


def test_an_array_makes_what_one_machine_makes(slurm: Cluster, tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    for number in range(4):
        frames = [np.roll(frame, number, axis=0) for frame in gray_frames(16)]
        write_h264(tmp_path / "videos" / f"{number}.mp4", frames)

    array = ("executor=slurm", f"executor.num_tasks={NUM_TASKS}", "executor.cpus_per_task=1")
    printed = curate(slurm, tmp_path, "output=array", *array, "executor.alive_seconds=0.5")
    found = re.match(r"Submitted batch job (\d+); logs: array\.work/logs; the set: array$", printed.strip())
    assert found is not None, printed
    curate(slurm, tmp_path, "output=local", "executor.num_workers=0")
    for task in range(NUM_TASKS):
        state = slurm.wait(f"{found[1]}_{task}", "COMPLETED", "FAILED", seconds=SECONDS)
        log = tmp_path / "array.work/logs" / f"{found[1]}_{task}.log"
        assert state["JobState"] == "COMPLETED", log.read_text()

    assert files_of(tmp_path / "array") == files_of(tmp_path / "local")
    assert read_index(tmp_path / "array").num_samples("train") > 0
