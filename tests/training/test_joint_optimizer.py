"""Optimizers that step as one."""

import torch
from torch import nn
from torch.optim import SGD, Adagrad

from vdm.training.joint_optimizer import JointOptimizer


def test_what_an_optimizer_begins_with_is_kept() -> None:
    weights = [nn.Parameter(torch.tensor([1.0, 2.0])) for _ in range(2)]
    started = Adagrad([weights[1]], initial_accumulator_value=0.5)
    joint = JointOptimizer([SGD([weights[0]]), started])

    assert joint.state[weights[1]]["sum"].tolist() == [0.5, 0.5]
    assert started.state[weights[1]]["sum"].tolist() == [0.5, 0.5]
