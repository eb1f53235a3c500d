import dataclasses

import pytest
import torch

from vdm.types import ClipBatch, Conditioning, ImageBatch, Prompts


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


def test_dropping_makes_each_condition_the_one_of_no_condition() -> None:
    prompts = Prompts(("a", "b", "c", "d"), torch.tensor([4, 5, 6, 7]), torch.ones(4, 3, 2, 2), torch.ones(4).bool())
    rows = torch.arange(4)

    dropped = prompts.drop(captions=rows == 0, labels=rows == 1, image=rows == 2, image_token=rows == 3)

    assert dropped.captions == ("", "b", "c", "d")
    assert dropped.labels.tolist() == [4, -1, 6, 7]
    assert dropped.has_image is not None
    assert dropped.has_image.tolist() == [True, True, False, True]
    assert prompts.captions[0] == "a", "the original stays"


def test_dropping_does_not_invent_a_first_frame() -> None:
    prompts = Prompts(("a", "b"), torch.tensor([-1, 3])).without_conditions()

    assert (prompts.image, prompts.has_image) == (None, None)
    assert prompts.labels.tolist() == [-1, -1]
