"""TensorBoard's files, read back by TensorBoard."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vdm.generation.video_files import write_mp4
from vdm.training.loggers.background import as_run_logger
from vdm.training.loggers.base import LoggedVideo, RunLogger
from vdm.training.loggers.tensorboard_logger import TensorBoardLogger


def events(run: Path) -> Any:
    found = EventAccumulator(str(run / "tensorboard"), size_guidance={"images": 0, "tensors": 0, "scalars": 0})
    found.Reload()
    return found


def begun(run: Path, step: int = 0) -> RunLogger:
    logger = as_run_logger(TensorBoardLogger(run))
    assert logger.experiment is None  # type: ignore[attr-defined]  # Lightning asks for it in its set-up
    logger.begin({"seed": 0, "optimizer": {"lr": 1e-3}}, step, False)
    return logger


def test_video_plays_at_its_rate_and_its_prompt_stands_in_a_table(tmp_path: Path) -> None:
    frames = torch.arange(4, dtype=torch.uint8).mul(60).view(1, 4, 1, 1).expand(3, 4, 16, 16)
    write_mp4(tmp_path / "0000.mp4", frames, 5)
    logger = begun(tmp_path)
    logger.log_videos("sample/videos", [LoggedVideo(tmp_path / "0000.mp4", "a | b\nc")], 3)
    logger.close()
    found = events(tmp_path)
    (image,) = found.Images("sample/videos/0000")
    assert image.step == 3
    with Image.open(io.BytesIO(image.encoded_image_string)) as picture:
        assert (picture.format, picture.n_frames, picture.info["duration"]) == ("GIF", 4, 200)  # type: ignore[attr-defined]
        for index in range(4):
            picture.seek(index)
            assert np.asarray(picture.convert("RGB")).mean() == pytest.approx(60 * index, abs=6)
    (table,) = found.Tensors("sample/videos_table/text_summary")
    assert b"| 0000 | a \\| b c |" in table.tensor_proto.string_val[0]
    assert b"lr: 0.001" in found.Tensors("config/text_summary")[0].tensor_proto.string_val[0]


def test_steps_after_the_one_from_which_a_run_goes_on_are_hidden(tmp_path: Path) -> None:
    for begin, steps in ((0, range(1, 9)), (5, range(6, 8))):
        logger = begun(tmp_path, begin)
        for step in steps:
            logger.log_metrics({"train/loss": 100 * begin + step}, step)
        logger.close()
    logger = begun(tmp_path, 7)
    logger.log_metrics({"train/loss": 8.0}, 8)
    logger.go_back(6)
    logger.log_metrics({"train/loss": 7000.0}, 7)
    logger.close()
    found = [(event.step, event.value) for event in events(tmp_path).Scalars("train/loss")]
    assert found == [*((step, step) for step in range(1, 6)), (6, 506), (7, 7000)]


def test_histogram_keeps_the_heights_of_its_bars(tmp_path: Path) -> None:
    logger = begun(tmp_path)
    logger.log_histogram("train/loss_by_level", [0.0, 0.5, 1.0], [3.0, 1.0], 2)
    logger.close()
    (histogram,) = events(tmp_path).Histograms("train/loss_by_level")
    assert histogram.histogram_value.bucket == [3.0, 1.0]
    assert histogram.histogram_value.bucket_limit == [0.5, 1.0]
