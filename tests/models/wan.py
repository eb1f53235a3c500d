"""A tiny random autoencoder of Wan, saved as diffusers saves it; nothing is downloaded."""

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan

PIXELS = 4
"""Rows, and columns, of pixels in one of its latents."""


def autoencoder(**options: Any) -> AutoencoderKLWan:
    """Return one of 4 channels, with random weights."""
    torch.manual_seed(0)
    small: dict[str, Any] = {
        "base_dim": 4,
        "z_dim": 4,
        "dim_mult": [1, 1, 1],
        "num_res_blocks": 1,
        "temperal_downsample": [True, True],
        "latents_mean": [0.1, -0.2, 0.3, 0.0],
        "latents_std": [0.5, 1.0, 2.0, 0.25],
        "scale_factor_spatial": PIXELS,
    }
    return AutoencoderKLWan(**{**small, **options}).eval()


def save_autoencoder(folder: Path, **options: Any) -> Path:
    """Write a pipeline's folder with nothing but the autoencoder."""
    autoencoder(**options).save_pretrained(folder / "vae")
    return folder
