"""Sinusoidal embeddings of numbers."""

import torch

from vdm.models.embeddings import NumberEmbedding


def test_noise_levels_of_the_whole_range_are_told_apart() -> None:
    """Neighbours a tenth apart, over log-SNR from -20 to 20, differ; the embedding is smooth."""
    embed = NumberEmbedding(32)
    levels = torch.linspace(-20, 20, 401)
    angles = levels[:, None] * embed.frequencies
    features = torch.cat([angles.sin(), angles.cos()], dim=-1)
    distances = torch.cdist(features, features) + 1e3 * torch.eye(401)

    assert distances.min() > 0.05
    assert (distances.argmin(dim=1) - torch.arange(401)).abs().max() == 1
    assert embed(levels).shape == (401, 32)


def test_noise_level_embedding_saves_only_what_is_trained() -> None:
    assert not [name for name in NumberEmbedding(8).state_dict() if "frequencies" in name]
