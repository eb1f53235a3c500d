import torch

from vdm.training.callbacks.progress import _mean_loss


def test_mean_is_over_clips_that_count_and_have_a_loss() -> None:
    losses, weights = torch.tensor([1.0, torch.nan, 3.0, 100.0]), torch.tensor([1.0, 1.0, 0.5, 0.0])
    assert _mean_loss(losses, weights) == 2
    assert _mean_loss(losses[1:2], weights[1:2]).isnan()
