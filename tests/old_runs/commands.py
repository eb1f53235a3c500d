"""What commands make of an old run, each called in this process as the console script calls it.

All take the folder of a copy, which holds ``run/`` and ``shards/``; commands write into it.
"""

import csv
import json
import os
import shutil
import sys
from contextlib import chdir
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from vdm.assembly.model import VideoDiffusionModel
from vdm.checkpoints.latest import latest_checkpoint
from vdm.cli import sample
from vdm.cli.commands import run_program
from vdm.cli.main import COMMANDS
from vdm.generation.video_files import write_film_strips

LAST_STEP = 6
KINDS = ("model", "ema", "optimizer")
"""Files of a checkpoint."""
PROMPTS = ("a red square moves right", "a blue square moves left")
SAMPLED = ("labels=[red,blue]", "image=first.png", "device=cpu", "seed=3")


def vdm(folder: Path, *arguments: str) -> None:
    """Run ``vdm ARGUMENTS`` in a folder."""
    with chdir(folder), mock.patch.object(sys, "argv", ["vdm", *arguments]), mock.patch.dict(os.environ):
        code = run_program("vdm", COMMANDS)
    assert code == 0, f"vdm {' '.join(arguments)} ended with {code}"


def first_frame(folder: Path) -> Path:
    """Write the picture that videos begin with."""
    picture = np.full((8, 8, 3), 60, dtype=np.uint8)
    picture[3:6, 0:3] = 220, 40, 40
    Image.fromarray(picture).save(folder / "first.png")
    return folder / "first.png"


def resumed(folder: Path) -> dict[str, Any]:
    """Train to the end; return what was logged by step, and the norms of what the last checkpoint holds."""
    vdm(folder, "train", "resume=run")
    (metrics,) = (folder / "run" / "logs").glob("*/metrics.csv")
    with metrics.open(newline="") as file:
        rows = list(csv.DictReader(file))
    kept = ("train/loss", "train/grad_norm", "data/position", "val/loss")
    logged = {key: {row["step"]: float(row[key]) for row in rows if row.get(key)} for key in kept}
    last = latest_checkpoint(folder / "run")
    assert last.name == f"step={LAST_STEP:08d}"
    return {**logged, "norm": norms(last)}


def norms(checkpoint: Path) -> dict[str, float]:
    """Return the root of the sum of squares of weights, averages less weights, and each quantity of the optimizer."""
    weights, averages, of_optimizer = (load_file(checkpoint / f"{kind}.safetensors") for kind in KINDS)
    groups = {"weights": list(weights.values()), "averages less weights": [averages[n] - weights[n] for n in averages]}
    for name, tensor in of_optimizer.items():
        groups.setdefault(name.partition("/")[0], []).append(tensor)
    return {
        name: sum(float(tensor.double().square().sum()) for tensor in group) ** 0.5 for name, group in groups.items()
    }


def sampled(folder: Path, checkpoint: str = "run") -> np.ndarray:
    """Return the picture with the frames of the videos that ``vdm sample`` makes; a png, it loses nothing."""
    first_frame(folder)
    shutil.rmtree(folder / "videos", ignore_errors=True)
    with mock.patch.object(sample, "write_grid", wraps=sample.write_grid) as written:
        vdm(folder, "sample", f"checkpoint={checkpoint}", f"prompts=[{','.join(PROMPTS)}]", *SAMPLED, "output=videos")
    write_film_strips(folder / "videos" / "frames.png", written.call_args.args[1])  # as grid.png, without captions
    return np.asarray(Image.open(folder / "videos" / "frames.png"))


def exported(folder: Path) -> dict[str, str]:
    """Return the shapes, such as 4x4x3x3, of what ``vdm export`` writes into ``given/``, by name."""
    vdm(folder, "export", "checkpoint=run", "to=given")
    (file,) = (folder / "given").rglob("*.safetensors")
    return {name: "x".join(map(str, tensor.shape)) for name, tensor in sorted(load_file(file).items())}


def evaluated(folder: Path) -> dict[str, Any]:
    """Return the losses that ``vdm evaluate`` measures."""
    vdm(folder, "evaluate", "checkpoint=run", "output=evaluation", "num_levels=3", "device=cpu")
    found = json.loads((folder / "evaluation" / "results.json").read_text())
    return {key: found[key] for key in ("held_out_loss", "held_out_loss_by_t", "num_held_out_clips")}


def latents(folder: Path) -> np.ndarray:
    """Return the clean latents that the model, loaded from Python, makes of fixed noise and all conditions."""
    model = VideoDiffusionModel.from_checkpoint(folder / "run")
    picture = torch.from_numpy(np.asarray(Image.open(first_frame(folder))).copy()).permute(2, 0, 1)[None]
    noise = np.random.default_rng(0).standard_normal((1, 3, 4, 8, 8), dtype=np.float32)
    prompts = model.prompts([PROMPTS[0]], labels=[2], image=picture)
    return model.sample(torch.from_numpy(noise), prompts).numpy()
