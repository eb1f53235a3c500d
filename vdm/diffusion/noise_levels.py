"""Which times are trained on: distributions of t, drawn for each sample from (seed, position)."""

from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vdm import randomness


class NoiseLevels(Protocol):
    """A distribution over times in [0, 1]."""

    def __call__(self, seed: int, positions: Int[Tensor, " b"], global_batch_size: int) -> Float[Tensor, " b"]:
        """Draw a time for each position of the endless order; ``global_batch_size`` samples make one step."""
        ...


@dataclass(frozen=True)
class Uniform:
    """Each sample's time is uniform and independent of all others."""

    def __call__(self, seed: int, positions: Int[Tensor, " b"], global_batch_size: int) -> Float[Tensor, " b"]:
        """Draw a time for each position."""
        return randomness.uniform(seed, "noise level", map(int, positions))


@dataclass(frozen=True)
class LowDiscrepancy:
    """Times of one step's samples are spread evenly: ``t = frac(u(step) + slot / G)``.

    Each time alone is still uniform, but the loss of a step varies less. Kingma et al. 2021, appendix I.1.
    """

    def __call__(self, seed: int, positions: Int[Tensor, " b"], global_batch_size: int) -> Float[Tensor, " b"]:
        """Draw a time for each position."""
        steps, slots = positions // global_batch_size, positions % global_batch_size
        return torch.frac(randomness.uniform(seed, "noise level", map(int, steps)) + slots.cpu() / global_batch_size)
