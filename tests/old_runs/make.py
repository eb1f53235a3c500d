"""Makes an old run: trains a small model half-way with this checkout, and writes down what comes of it.

    python tests/old_runs/make.py tests/old_runs/NAME

The folder gets ``shards/``, ``run/`` with a checkpoint of step 3 of 6, and ``expected.json``, ``sample.png`` and
``latents.npy``, which are what this checkout's commands make of it. An old run is made once: what it was made with is
what later versions are held to.
"""

import json
import os
import platform
import shutil
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported, as in tests
sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
from PIL import Image

from data_pipelines.build import build
from data_pipelines.settings import BuildSettings, ClipOptions
from tests.data_pipelines.videos import write_video
from tests.old_runs.commands import LAST_STEP, evaluated, exported, latents, resumed, sampled, vdm
from vdm.checkpoints.layout import checkpoint_folder
from vdm.checkpoints.run_record import VERSIONS_NAME

COLORS = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (50, 70, 230)}
NUM_CLIPS, NUM_FRAMES, SIZE, SQUARE = 6, 4, 8, 3
SAVED_STEP = 3
TRAINING = (
    "name=old_run",
    "model.network.channels=[4,4]",
    "model.network.attention_levels=[]",
    "model.network.temporal_levels=[1]",
    "model.network.head_channels=4",
    "model.conditioner.num_classes=3",
    "model.conditioner.class_channels=4",
    "model.conditioner.image=true",
    "text_encoder.channels=4",
    "text_encoder.head_channels=4",
    "text_encoder.num_layers=1",
    "text_encoder.max_bytes=32",
    "text_encoder.num_word_buckets=8",
    "training.condition_dropout={all:0.2,text:0.3,label:0.3,image:0.3}",
    "data.path=shards",
    "data.num_images_per_clip=1",
    "data.global_batch_size=4",
    "data.micro_batch_size=2",
    "data.num_workers=0",
    "optimizer.lr=1e-2",
    "+optimizer.eps=1e-6",  # gradients that are zero but for rounding, which differs between machines, move nothing
    "lr_schedule.warmup_steps=1",
    "averages.half_lives=[8]",
    "averages.warm_up=1.0",
    f"trainer.max_steps={LAST_STEP}",
    "trainer.accelerator=cpu",
    "trainer.log_every_n_steps=1",
    "validate.every_steps=3",
    f"save.every_steps={SAVED_STEP}",
    "sampler.num_steps=4",
    "guidance_scale=2",
    "logger=csv",
    "callbacks.progress=null",
    "callbacks.samples=null",
)
PACKAGES = ("torch", "lightning", "hydra-core", "numpy", "safetensors", "av")
"""Those of which the versions are kept."""


def write_videos(folder: Path) -> None:
    """Write videos of a coloured square that moves to the right or left, with captions and classes."""
    folder.mkdir()
    rows = ["file,caption,label"]
    for number in range(NUM_CLIPS):
        color, moves_right = list(COLORS)[number % len(COLORS)], number % 2 == 1
        frames = []
        for frame in range(NUM_FRAMES):
            pixels = np.full((SIZE, SIZE, 3), 20 + 6 * number, dtype=np.uint8)
            left, top = (frame, 3 * number % 5) if moves_right else (5 - frame, 3 * number % 5)
            pixels[top : top + SQUARE, left : left + SQUARE] = COLORS[color]
            frames.append(pixels)
        write_video(folder / f"{number}.mkv", frames)
        rows.append(f"{number}.mkv,a {color} square moves {'right' if moves_right else 'left'},{color}")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")


def make(folder: Path) -> None:
    """Write data and run, and train it half-way."""
    with tempfile.TemporaryDirectory() as temporary:
        videos = Path(temporary) / "videos"
        write_videos(videos)
        clip = ClipOptions(num_frames=NUM_FRAMES, fps=8, height=SIZE, width=SIZE)
        build(BuildSettings(str(videos), folder / "shards", clip, validation_fraction=0.3, seed=2, num_workers=0))
    for name in ("build.json", "report.json"):  # for building further; they say where the videos were
        (folder / "shards" / name).unlink()
    vdm(folder, "train", "hydra.run.dir=run", *TRAINING)
    run = folder / "run"
    shutil.rmtree(checkpoint_folder(run, LAST_STEP))
    for name in ("logs", "locks"):
        shutil.rmtree(run / name)
    (run / "train.log").unlink(missing_ok=True)
    versions = json.loads((run / VERSIONS_NAME).read_text())
    for start in versions:
        start["platform"] = platform.system()
        start["packages"] = {name: start["packages"][name] for name in PACKAGES}
    (run / VERSIONS_NAME).write_text(json.dumps(versions, indent=1))


def write_down(folder: Path) -> None:
    """Write what comes of the run, from a copy of it."""
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(shutil.copytree(folder, Path(temporary) / "copy"))
        Image.fromarray(sampled(copy)).save(folder / "sample.png", optimize=True)
        np.save(folder / "latents.npy", latents(copy))
        expected = {"exported": exported(copy), "evaluated": evaluated(copy), "resumed": resumed(copy)}
    (folder / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    made = Path(sys.argv[1]).absolute()
    made.mkdir()
    make(made)
    write_down(made)
