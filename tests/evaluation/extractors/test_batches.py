import pytest
import torch

from tests.evaluation.extractors.networks import batch, make_clips
from vdm.evaluation.base import EvaluatedClip
from vdm.evaluation.extractors.batches import in_batches, stacked


@pytest.mark.parametrize("number", [1, 3, 4, 5, 8, 9])
def test_every_batch_has_one_size_and_fillers_are_dropped(number: int) -> None:
    seen: list[int] = []

    def describe(clips: list[EvaluatedClip]) -> torch.Tensor:
        seen.append(len(clips))
        return batch(clips).double().mean((1, 2, 3, 4)).view(-1, 1, 1)

    clips = make_clips(number, 2)
    features = in_batches(describe, clips, 4)
    assert seen == [4] * ((number + 3) // 4)
    assert features.dtype == torch.float32
    torch.testing.assert_close(features[:, 0, 0], batch(clips).double().mean((1, 2, 3, 4)).float())


def test_clips_of_different_sizes_share_batches_with_their_like() -> None:
    seen: list[set[tuple[int, ...]]] = []

    def describe(clips: list[EvaluatedClip]) -> torch.Tensor:
        seen.append({tuple(clip.video.shape) for clip in clips})
        return batch(clips).double().mean((1, 2, 3, 4)).view(-1, 1, 1)

    small, large = make_clips(5, 2, 20, 28), make_clips(4, 2, 8, 8)
    clips = [clip for pair in zip(small, large, strict=False) for clip in pair] + small[4:]
    features = in_batches(describe, clips, 3)
    assert [len(shapes) for shapes in seen] == [1, 1, 1, 1]
    expected = torch.tensor([clip.video.double().mean() for clip in clips])
    torch.testing.assert_close(features[:, 0, 0], expected.float())


def test_autocast_and_gradients_of_training_do_not_reach_features() -> None:
    layer = torch.nn.Linear(8, 8)
    inputs = torch.randn(4, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = in_batches(lambda items: layer(torch.stack(list(items)))[:, None], list(inputs), 4)
        assert layer(inputs).dtype == torch.bfloat16  # autocast goes on afterwards
    assert not features.requires_grad
    torch.testing.assert_close(features[:, 0], layer(inputs).detach(), rtol=0, atol=0)


def test_clips_of_different_sizes_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"^clip1: is 4 frames of 20x28, but clip0 is 2 frames of 20x28; .* equal$"):
        stacked([make_clips(1, 2)[0], make_clips(2, 4)[1]])


def test_clips_that_are_not_rgb_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^grey: has 1 channels; metrics look at RGB$"):
        stacked([EvaluatedClip(torch.zeros(1, 2, 4, 4, dtype=torch.uint8), "grey")])
