import json
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from data_pipelines.encode.shard_writer import ShardWriter
from tests.data.loading import module, take
from tests.data.shard_sets import encode_pixels
from vdm.data.clips import ClipSampling
from vdm.data.index import ShardIndex, write_index
from vdm.data.motion import motion_of, stored_motion
from vdm.randomness import generator


def panned(pixels_per_frame: int, num_frames: int = 4, side: int = 64) -> Tensor:
    """Return a view that moves sideways over a picture of smooth spots."""
    spots = torch.rand(1, 3, 12, 24, generator=generator(0, "spots", 0))
    picture = F.interpolate(spots, size=(side, 2 * side), mode="bicubic").clamp(0, 1)[0]
    frames = [picture[:, :, i * pixels_per_frame : i * pixels_per_frame + side] for i in range(num_frames)]
    return (255 * torch.stack(frames, dim=1)).byte()


@pytest.mark.parametrize("pixels", [0, 1, 2, 4])
def test_motion_of_a_pan_is_its_speed_in_shorter_sides_per_second(pixels: int) -> None:
    assert motion_of(panned(pixels), fps=8.0) == pytest.approx(pixels / 64 * 8, rel=0.05, abs=1e-3)


def test_a_picture_does_not_move() -> None:
    assert motion_of(panned(4, num_frames=1), fps=8.0) == 0


def test_stored_motion_is_in_pixels_of_frames_of_256() -> None:
    assert stored_motion({"scores": {"motion_pixels_per_frame": 8.0}}, fps=16.0) == 8 / 256 * 16
    assert stored_motion({"motion_pixels_per_frame": 8.0}, fps=16.0) == 8 / 256 * 16
    assert stored_motion({"caption": "no scores"}, fps=16.0) is None
    with pytest.raises(ValueError, match="motion_pixels_per_frame=-1"):
        stored_motion({"motion_pixels_per_frame": -1}, fps=16.0)


@pytest.fixture
def pans(tmp_path: Path) -> Path:
    """Four clips that pan by 2 pixels a frame; of half of them the shards say that they move by 32 of 256."""
    folder = tmp_path / "pans"
    folder.mkdir()
    with ShardWriter(folder / "train-000000.tar") as writer:
        for number in range(4):
            scores = {"scores": {"motion_pixels_per_frame": 32}} if number % 2 else {}
            metadata = {"caption": "", "label": None, "fps": 8.0, **scores}
            files = {"json": json.dumps(metadata).encode(), "mp4": encode_pixels(panned(2))}
            writer.add(str(number), (4, 64, 64), files)
    assert writer.entry is not None
    write_index(folder, ShardIndex.of({"train": (writer.entry,)}, fps=8.0))
    return folder


@pytest.mark.parametrize("clips", [None, ClipSampling(shapes=[(2, 64, 64)])], ids=["whole", "part"])
def test_motion_is_read_where_shards_have_that_of_what_is_seen(pans: Path, clips: ClipSampling | None) -> None:
    data = module(pans, clips=clips, max_validation_clips=0)
    data.add_image_conditions("first", motion=True)
    motion = {}
    for batch in take(data.train_dataloader(), 2):
        assert batch.motion is not None
        motion |= dict(zip(batch.keys, batch.motion.tolist(), strict=True))
    measured = pytest.approx(2 / 64 * 8, rel=0.1)
    assert motion == dict.fromkeys("0123", measured) | ({} if clips else dict.fromkeys("13", 1.0))


def test_batches_bring_no_motion_unless_asked(pans: Path) -> None:
    assert take(module(pans, max_validation_clips=0).train_dataloader(), 1)[0].motion is None
