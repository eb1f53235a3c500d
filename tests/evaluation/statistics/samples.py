"""Features for tests."""

import torch
from torch import Tensor


def features(num_clips: int, width: int, seed: int, rows: int = 1, seed_of_draw: int = 0) -> Tensor:
    """Draw rows from a normal distribution, whose mean and covariance are random functions of the seed."""
    distribution = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=distribution)
    mean = torch.randn(width, generator=distribution)
    draw = torch.Generator().manual_seed(1000 * seed + seed_of_draw)
    return torch.randn(num_clips, rows, width, generator=draw) @ mixing + mean
