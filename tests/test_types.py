import dataclasses

import pytest
import torch

from vdm.types import ClipBatch, Conditioning, ImageBatch


def _clips() -> ClipBatch:
    images = ImageBatch(torch.zeros(2, 3, 4, 8, 8, dtype=torch.uint8), (("a",) * 4,) * 2, torch.zeros(2, 4).long())
    return ClipBatch(
        video=torch.zeros(2, 3, 5, 8, 8, dtype=torch.uint8),
        captions=("one", "two"),
        labels=torch.tensor([0, -1]),
        positions=torch.tensor([6, 7]),
        weights=torch.ones(2),
        keys=("k0", "k1"),
        fps=torch.full((2,), 8.0),
        images=images,
    )


def test_length_of_a_batch_is_its_number_of_clips() -> None:
    assert len(_clips()) == 2


def test_moving_a_record_moves_nested_tensors_and_keeps_their_types() -> None:
    moved = _clips().to("meta")

    assert moved.images is not None
    assert {moved.video.device.type, moved.labels.device.type, moved.images.pixels.device.type} == {"meta"}
    assert {moved.weights.device.type, moved.positions.device.type} == {"cpu"}
    assert (moved.video.dtype, moved.positions.dtype, moved.fps.dtype) == (torch.uint8, torch.int64, torch.float32)
    assert (moved.captions, moved.images.captions) == (("one", "two"), (("a",) * 4,) * 2)


def test_moving_a_record_moves_the_tensors_of_its_mappings() -> None:
    condition = Conditioning(vector=torch.zeros(1, 2), extra={"depth": torch.zeros(1, 4)}).to("meta")

    assert condition.extra["depth"].device.type == "meta"
    assert condition.text is None


def test_records_can_t_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        _clips().fps = torch.zeros(2)  # type: ignore[misc]
