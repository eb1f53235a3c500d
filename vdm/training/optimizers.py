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
    """Return AdamW (Loshchilov & Hutter 2019).

    Weight decay acts on weights of two or more dimensions (matrices, convolutions, embeddings), not on biases and
    norms.

    Args:
        params: Trained weights.
        lr: Learning rate after warm-up.
        betas: Decay of the running means of the gradient and of its square, in a step.
        eps: Added to the root of the mean square of the gradient.
        weight_decay: Each step multiplies a weight by ``1 - lr * weight_decay``.
        fused: Update all weights in one kernel, instead of one operation after another.
    """
    parameters = list(params)
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=lr, betas=betas, eps=eps, fused=fused)
