from pathlib import Path

import pytest
import torch

from tests.assembly.small_model import small_model
from vdm.evaluation.denoising_loss import loss_by_level, plot_loss_by_level
from vdm.objectives.denoising import Denoising
from vdm.types import ClipBatch


def batch(size: int, weights: list[float], seed: int = 0) -> ClipBatch:
    video = torch.randint(0, 256, (size, 3, 2, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    keys = tuple(f"{seed}-{i}" for i in range(size))
    labels = torch.full((size,), -1)
    return ClipBatch(video, ("",) * size, labels, torch.arange(size), torch.tensor(weights), keys, torch.ones(size))


def test_clips_of_weight_0_do_not_count_and_batches_do_not_matter() -> None:
    model = small_model()
    whole = batch(3, [1.0, 1.0, 0.0])
    parts = [whole.map(lambda tensor, i=i: tensor[i : i + 1]) for i in range(2)]
    parts = [
        ClipBatch(p.video, ("",), p.labels, p.positions, p.weights, whole.keys[i : i + 1], p.fps)
        for i, p in enumerate(parts)
    ]
    together, apart = loss_by_level(model, Denoising(), [whole], 4), loss_by_level(model, Denoising(), parts, 4)
    assert list(together) == [0.125, 0.375, 0.625, 0.875]
    assert apart == pytest.approx(together, rel=1e-5)


def test_picture_of_the_losses_is_written(tmp_path: Path) -> None:
    plot_loss_by_level({0.25: 0.1, 0.75: 0.9}, tmp_path / "losses.png")
    assert (tmp_path / "losses.png").read_bytes().startswith(b"\x89PNG")


def test_picture_takes_the_place_of_a_link_and_leaves_what_it_led_to(tmp_path: Path) -> None:
    (tmp_path / "own").write_text("mine")
    (tmp_path / "losses.png").symlink_to(tmp_path / "own")
    plot_loss_by_level({0.25: 0.1}, tmp_path / "losses.png")
    assert (tmp_path / "own").read_text() == "mine"
    assert (tmp_path / "losses.png").read_bytes().startswith(b"\x89PNG")
