"""Folders of runs as training leaves them, made without training."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np

from vdm.outside import dump_yaml

START = 1_764_537_000.0
SECONDS_PER_STEP = 0.5
HOSTILE = "</script><img src=x onerror=alert(1)><b>bold</b>"
"""A text that would run, be fetched or be set in bold if it were taken as HTML."""


def loss_at(step: int) -> float:
    """The training loss of a made run."""
    return 0.05 + math.exp(-step / 300)


def figures_at(step: int, scale: float = 1.0) -> dict[str, float]:
    levels = {
        f"train/loss_by_level/t={n / 10:.2f}-{(n + 1) / 10:.2f}": scale * loss_at(step) * 2 ** (n - 5)
        for n in range(10)
        if (step + n) % 7  # a bin has no clip now and then
    }
    groups = {f"train/grad_norm/{group}": scale * (0.5 + 1 / step) for group in ("down.0", "middle", "up.0")}
    return {
        "train/loss": scale * loss_at(step) * (1 + 0.1 * math.sin(step)),
        "train/grad_norm": 1.0 + 1 / step,
        "train/learning_rate": min(1.0, step / 50) * 1e-3,
        "perf/clips_per_second": 16 + math.sin(step),
        "perf/data_wait_fraction": 0.04,
        "perf/checkpoint_wait_fraction": 0.01,
        **groups,
        **levels,
    }


def line(step: int, figures: Mapping[str, float | str]) -> str:
    return json.dumps({"step": step, "time": START + SECONDS_PER_STEP * step, "position": 8 * step, **figures}) + "\n"


def write_run(
    folder: Path,
    num_steps: int = 400,
    every: int = 4,
    *,
    scale: float = 1.0,
    settings: Mapping[str, Any] | None = None,
    sample_steps: Sequence[int] = (100, 200, 300, 400),
    captions: Sequence[str | None] = ("a one moves left", "a two moves up"),
    history: Sequence[Mapping[str, Any]] | None = None,
) -> Path:
    """Write a run with figures, samples, metrics, faults and a history; return its folder."""
    folder.mkdir(parents=True)
    config = {"name": "made", "seed": 0, "optimizer": {"lr": 1e-3}, "trainer": {"max_steps": num_steps}}
    (folder / "config.yaml").write_text(dump_yaml({**config, **(settings or {})}))
    with (folder / "metrics.jsonl").open("w") as file:
        for step in range(every, num_steps + 1, every):
            file.write(line(step, figures_at(step, scale)))
            if step % (25 * every) == 0:
                file.write(line(step, {"val/loss": scale * loss_at(step) + 0.01}))
    for number in range(len(captions)):
        write_clip(folder / f"samples/references/{number:04d}.mp4", 200)
        for step in sample_steps:
            write_clip(folder / f"samples/step={step:08d}/{number:04d}.mp4", 20 + 10 * number + step // 10)
            _prompts(folder / f"samples/step={step:08d}", captions)
    for step in sample_steps[1::2]:
        write_result(folder, step, 500 * scale / step)
    _write_history(folder, num_steps, history)
    return folder


def write_clip(path: Path, brightness: int, num_frames: int = 8, size: int = 32) -> None:
    """Write a grey video; ``brightness`` of its first frame is that of its luma, from 16 to 235."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", 8)
        stream.width = stream.height = size
        stream.pix_fmt = "yuv420p"
        for number in range(num_frames):
            shade = np.full((size, size), min(235, brightness), np.uint8)
            shade[:, 2 * number : 2 * number + 6] = 235
            frame = av.VideoFrame.from_ndarray(
                np.concatenate([shade, np.full((size // 2, size), 128, np.uint8)]), "yuv420p"
            )
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _prompts(folder: Path, captions: Sequence[str | None]) -> None:
    told = [
        {"video": f"{n:04d}.mp4", "caption": caption, "label": None, "reference": f"../references/{n:04d}.mp4"}
        for n, caption in enumerate(captions)
    ]
    (folder / "prompts.json").write_text(json.dumps(told))


def write_result(run: Path, step: int, value: float, name: str = "frechet_digits") -> None:
    """Write what a measurement in training writes."""
    folder = run / f"evaluation/step={step:08d}"
    folder.mkdir(parents=True, exist_ok=True)
    one = {
        "value": value,
        "interval": [0.9 * value, 1.1 * value],
        "reliable": step > 200,
        "num_videos": 64,
        "num_reference": 128,
        "checksum": None,
        "protocol": {"extractor": {"_target_": "vdm.evaluation.extractors.digits.DigitFeatures"}, "num_frames": 8},
        "unusable": [],
        "num_unusable": 0,
    }
    (folder / "results.json").write_text(json.dumps({"metrics": {name: one}}))


def _write_history(run: Path, num_steps: int, history: Sequence[Mapping[str, Any]] | None) -> None:
    middle, end = max(10, num_steps // 2), START + SECONDS_PER_STEP * num_steps
    start = {"event": "start", "host": "node1", "num_processes": 2, "devices": "2 x cpu", "command": "vdm train"}
    told = history or [
        {**start, "time": START, "step": 0, "position": 0},
        {"event": "fail", "time": START + 60, "step": middle, "position": 8 * middle, "reason": "disk is full"},
        {
            **start,
            "time": START + 90,
            "step": middle - 10,
            "position": 8 * (middle - 10),
            "resumed_from": f"checkpoints/step={middle - 10:08d}",
            "lost_steps": 10,
            "lost_seconds": 30.0,
        },
        {"event": "finish", "time": end, "step": num_steps, "position": 8 * num_steps},
    ]
    (run / "history.jsonl").write_text("".join(json.dumps(event) + "\n" for event in told))
    bad = {"step": 17, "went_back_to": None, "loss": "NaN", "gradient_norm": 1.5, "clips": [{"key": "clip-3"}]}
    (run / "bad_steps.jsonl").write_text(json.dumps(bad) + "\n")
    fault = {"shard": "train-000001.tar", "key": "clip-9", "offset": 512, "reason": "its checksum is wrong"}
    (run / "quarantine.jsonl").write_text(json.dumps(fault) + "\n")
    versions = [
        {"time": "2026-01-31T12:00:00+00:00", "python": "3.11.2", "packages": {"torch": "2.9.0", "av": "18.1.0"}}
    ]
    (run / "versions.json").write_text(json.dumps(versions))
