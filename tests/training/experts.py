"""Small runs of a network of two experts."""

from pathlib import Path
from typing import Any

from tests.training.runs import configuration

TWO_EXPERTS = (
    "model=wan22_a14b",
    "model.network.boundary=0.5",
    "model.network.high_noise.num_layers=2",
    "model.network.high_noise.num_heads=2",
    "model.network.high_noise.head_channels=8",
    "model.network.high_noise.hidden_channels=16",
    "model.network.high_noise.num_text_tokens=64",
    "diffusion=wan",
    "diffusion.time_shift.shift=1",
)
"""Half of the noise levels are those of either expert, so that each of two steps in a row trains another."""


def of_experts(shards: Path, *overrides: str) -> dict[str, Any]:
    """Compose the configuration of a small run."""
    return configuration(shards, *TWO_EXPERTS, *overrides, without=("model.network",))
