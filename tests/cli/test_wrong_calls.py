"""Wrong calls of the real commands, as people type them: one line, exit code 2, and nothing left behind."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.assembly.small_model import save_run, small_model
from tests.data.shard_sets import write_set

ROOT = Path(__file__).parents[2]

CALLS = [
    ("vdm train data.path=nowhere", "data.path"),
    ("vdm train data.path=nowhere optimizer.lr=-1", "optimizer.lr"),  # values come before files
    ("vdm train data.path=nowhere trainer.max_steps=abc", "trainer.max_steps"),
    ("vdm train data.path=shards seed=abc", "seed=abc"),
    ("vdm train data.path=shards seed=1.5", "seed=1.5"),
    ("vdm train data.path=shards seed=null", "seed=null"),
    ("vdm train data.path=shards ~seed", "seed"),
    ("vdm train data.path=shards guidance_scale=nan", "guidance_scale"),
    ("vdm train data.path=shards optimizer.lr=-1", "optimizer.lr"),
    ("vdm train data.path=shards optimizer.betas=[2,2]", "optimizer.betas"),
    ("vdm train data.path=shards optimizer.lr=.inf", "optimizer.lr"),
    ("vdm train data.path=shards trainer.precision=fp8", "trainer.precision"),
    ("vdm train data.path=shards trainer.precision=bf16-true", "trainer.precision"),
    ("vdm train data.path=shards trainer.gradient_clip_val=-1", "trainer.gradient_clip_val"),
    ("vdm train data.path=shards +trainer.max_epochs=3", "trainer.max_epochs"),
    ("vdm train data.path=shards +trainer.accumulate_grad_batches=2", "trainer.accumulate_grad_batches"),
    ("vdm train data.path=shards trainer.devices=0", "trainer.devices"),
    ("vdm train data.path=shards data.global_batch_size=0", "data.global_batch_size"),
    ("vdm train data.path=shards data.num_workers=true", "data.num_workers"),
    ("vdm train data.path=shards model.network.channels=[]", "model.network.channels"),
    ("vdm train data.path=shards model.network.channels={a:1}", "model.network.channels"),
    ("vdm train data.path=shards model.network.num_blocks=10000000", "model.network.num_blocks"),
    ("vdm train data.path=shards diffusion=nothing", "diffusion=nothing"),
    ("vdm train data.path=shards name=../up", "name=../up"),
    ("vdm train --data.path shards", "data.path=shards"),
    ("vdm train --max_steps 3", "max_steps=3"),
    ("vdm train shards", "options are KEY=VALUE"),
    ("vdm trian data.path=shards", "trian"),
    ("vdm train data.path=shards check=true", "type vdm check with the same options"),
    ("vdm train data.path=shards clip.height=8", "vdm-data build clip.height=..."),
    ("vdm train data.path=shards +clip.height=8", "clip: is recorded when training begins"),
    ("vdm plan memory_gib=-1 clip_shape=[8,32,32]", "memory_gib"),
    ("vdm plan clip_shape=[0,32,32]", "clip_shape"),
    ("vdm sample checkpoint=nowhere", "nowhere"),
    ("vdm sample checkpoint=7 prompts=12", "prompts"),
    ("vdm sample checkpoint=7 num_videos=0", "num_videos"),
    ("vdm sample checkpoint=7 num_frames=1000000 height=100000 width=100000", "num_frames"),
    ("vdm sample checkpoint=7 device=warp", "device=warp"),
    ("vdm sample checkpoint=7 allow_own_code=no", "allow_own_code=no"),
    ("vdm sample checkpoint=7 batch_size=yes", "batch_size"),
    ("vdm evaluate checkpoint=7 num_levels=-3", "num_levels"),
    ("vdm evaluate checkpoint=7 prompted_digits=perhaps", "prompted_digits"),
    ("vdm export checkpoint=7 to=out dtype=int8", "dtype"),
    ("vdm ema checkpoint=7 sigma_rel=3", "sigma_rel"),
    ("vdm import from=nowhere to=out", "nowhere"),
    ("vdm-data build input=nowhere output=out", "nowhere"),
    ("vdm-data build input=. output=out clip.fps=0", "clip.fps"),
    ("vdm-data index nowhere", "nowhere"),
    ("vdm-data verify nowhere num_workers=-1", "num_workers"),
    ("vdm-data show nowhere max_clips=many", "max_clips"),
]
MODULES = {"vdm": "vdm.cli.main", "vdm-data": "data_pipelines.cli"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run whose name is a number, and a set of shards."""
    folder = tmp_path_factory.mktemp("calls")
    clip = {"num_frames": 2, "height": 8, "width": 8, "fps": 8, "label_names": []}
    write_set(folder / "shards", {"train": (2,), "validation": (1,)})
    save_run(folder / "7", small_model(), clip=clip, guidance_scale=1.0)
    return folder


@pytest.mark.parametrize(("line", "named"), CALLS, ids=[line for line, _ in CALLS])
def test_wrong_call_is_one_line_that_names_what_is_wrong(folder: Path, line: str, named: str) -> None:
    program, *arguments = line.split()
    before = sorted(folder.rglob("*"))
    done = subprocess.run(
        [sys.executable, "-m", MODULES[program], *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    said = done.stderr
    assert done.returncode == 2, said
    assert said.count("\n") == 1, said
    assert named in said
    assert "Traceback" not in said
    assert sorted(folder.rglob("*")) == before
