"""Optimizers with typed arguments, for conf/optimizer."""

from collections.abc import Iterable

import torch
from torch import nn

from vdm.ranges import NotNegative, ShareBelowOne


def adamw(
    params: Iterable[nn.Parameter],
    lr: NotNegative,
    betas: tuple[ShareBelowOne, ShareBelowOne] = (0.9, 0.99),
    eps: NotNegative = 1e-8,
    weight_decay: NotNegative = 0.0,
    fused: bool = True,
) -> torch.optim.AdamW:
    """Return AdamW; weight decay acts on matrices and convolutions alone, not on biases and norms.

    Args:
        params: Trained weights.
        lr: Learning rate after warm-up.
        betas: Decay of the means of gradients and of their squares.
        eps: Added to the root of the mean square.
        weight_decay: Share of a weight lost in each step, per learning rate.
        fused: Update all weights in one kernel, instead of one operation after another.
    """
    parameters = list(params)
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=lr, betas=betas, eps=eps, fused=fused)
