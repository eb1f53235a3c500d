"""Held-out denoising loss by noise level."""

from collections.abc import Iterable
from pathlib import Path

import matplotlib
import torch
from matplotlib import pyplot as plt

from vdm.assembly.model import VideoDiffusionModel
from vdm.files import appearing
from vdm.objectives.base import Objective, losses_of
from vdm.objectives.batch_randomness import RandomnessAtTime
from vdm.objectives.latents import latents_of
from vdm.types import ClipBatch

matplotlib.use("Agg")  # needs no screen


@torch.no_grad()
def loss_by_level(
    model: VideoDiffusionModel, objective: Objective, batches: Iterable[ClipBatch], num_levels: int, seed: int = 0
) -> dict[float, float]:
    """Return the mean loss of clips at each of ``num_levels`` times: the midpoints of equal parts of [0, 1].

    Every clip is noised to every level, with noise that is a function of the seed, the clip's key and the level.
    """
    times = [(index + 0.5) / num_levels for index in range(num_levels)]
    sums = torch.zeros(num_levels, dtype=torch.float64)
    weight = 0.0
    for batch in batches:
        by_level = [RandomnessAtTime(seed, batch.keys, t=t) for t in times]
        latents = latents_of(model, batch.to(model.device), by_level[0])
        for index, randomness in enumerate(by_level):
            loss = losses_of(objective, model, latents, randomness).per_clip.cpu()
            sums[index] += torch.where(batch.weights > 0, batch.weights * loss, 0).sum()
        weight += float(batch.weights.sum())
    return {t: total / weight for t, total in zip(times, sums.tolist(), strict=True)}


def plot_loss_by_level(losses: dict[float, float], path: Path) -> None:
    """Plot the loss over t into a png file."""
    figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
    axes.plot(list(losses), list(losses.values()), marker="o")
    axes.set(xlabel="t (0 is data, 1 is noise)", ylabel="held-out loss", yscale="log", xlim=(0, 1))
    axes.grid(alpha=0.3)
    with appearing(path) as partial:
        figure.savefig(partial, dpi=150, format="png")
    plt.close(figure)
