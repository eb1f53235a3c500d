"""Random numbers as pure functions of (seed, purpose, position).

No generator is shared, and none has a state that must be saved. The numbers of a sample for a purpose are the same in
one process or many, in any batch, and before and after a resume.
"""

import hashlib
from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor


def generator(seed: int, purpose: str, position: int | str) -> torch.Generator:
    """Return a fresh CPU generator for one sample and one purpose.

    Args:
        seed: Seed of the run.
        purpose: Purpose of the numbers, e.g. ``"noise"``. Numbers of different purposes are independent.
        position: Position of the sample in the order of training, or its key in validation.
    """
    digest = hashlib.blake2b(f"{seed}\0{purpose}\0{position}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


def normal(
    seed: int, purpose: str, positions: Iterable[int | str], shape: tuple[int, ...]
) -> Float[Tensor, "b *shape"]:
    """Draw standard normal noise of ``shape`` for each position, in fp32 on the CPU."""
    return torch.stack([torch.randn(shape, generator=generator(seed, purpose, p)) for p in positions])


def uniform(seed: int, purpose: str, positions: Iterable[int | str]) -> Float[Tensor, " b"]:
    """Draw one number in [0, 1) for each position, in fp32 on the CPU."""
    return torch.cat([torch.rand(1, generator=generator(seed, purpose, p)) for p in positions])


def permutation(seed: int, purpose: str, position: int | str, size: int) -> list[int]:
    """Return a random permutation of ``range(size)``."""
    return torch.randperm(size, generator=generator(seed, purpose, position)).tolist()
