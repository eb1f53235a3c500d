"""Figures of a model itself in ``vdm evaluate``: held-out loss, bits per dimension, and the digits asked for."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from vdm.assembly.model import VideoDiffusionModel
from vdm.cli.options.evaluate import EvaluateOptions
from vdm.config import ConfigError
from vdm.data.datamodule import ClipDataModule
from vdm.diffusion.likelihood.base import Likelihood
from vdm.evaluation import bits_per_dim, moving_digits
from vdm.evaluation.denoising_loss import loss_by_level, plot_loss_by_level
from vdm.generation.generate import generate
from vdm.generation.video_files import DEFAULT_FPS, write_grid
from vdm.objectives.base import Objective
from vdm.types import ClipBatch, ClipSize


class HeldOut:
    """Batches of held-out clips, without padding and unreadable clips; each iteration reads them again."""

    def __init__(self, data: ClipDataModule) -> None:
        self._loader = data.val_dataloader()

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[ClipBatch]:
        num_clips = 0
        for batch in self._loader:
            whole = _without_padding(batch)
            num_clips += len(whole)
            if len(whole) > 0:
                yield whole
        if num_clips == 0:
            raise ConfigError("data_path: none of the held-out clips can be read")


def _without_padding(batch: ClipBatch) -> ClipBatch:
    """Return the batch without padding and without clips that could not be read."""
    return _rows(batch, (batch.weights > 0).nonzero()[:, 0].tolist())


def _rows(batch: ClipBatch, rows: Sequence[int]) -> ClipBatch:
    """Return some clips of a batch."""
    part = batch.map(lambda tensor: tensor[list(rows)])
    return replace(part, captions=tuple(batch.captions[i] for i in rows), keys=tuple(batch.keys[i] for i in rows))


def measure_loss(
    model: VideoDiffusionModel, objective: Objective, held_out: HeldOut, options: EvaluateOptions, folder: Path
) -> dict[str, Any]:
    """Measure, plot and print the held-out loss by noise level."""
    num_clips = 0

    def counted() -> Iterator[ClipBatch]:
        nonlocal num_clips
        for batch in tqdm(held_out, desc="held-out loss", unit="batch"):
            num_clips += len(batch)
            yield batch

    losses = loss_by_level(model, objective, counted(), options.num_levels, options.seed)
    plot_loss_by_level(losses, folder / "loss_by_level.png")
    for t, loss in losses.items():
        print(f"held-out loss at t={t:.2f}  {loss:.4f}")
    mean = sum(losses.values()) / len(losses)
    print(f"held-out loss, mean     {mean:.4f}")
    return {"held_out_loss": mean, "held_out_loss_by_t": losses, "num_held_out_clips": num_clips}


def measure_bits_per_dim(
    model: VideoDiffusionModel, likelihood: Likelihood, data: ClipDataModule, options: EvaluateOptions
) -> dict[str, Any]:
    """Measure and print the bits per dimension of held-out clips."""
    held_out = data.held_out_clips(options.bits_per_dim_clips)
    assert held_out is not None, "the set was checked for validation clips"
    clips = _without_padding(held_out)
    starts = range(0, len(clips), options.batch_size)
    batches = [_rows(clips, range(len(clips))[start : start + options.batch_size]) for start in starts]
    total = None if likelihood.num_steps is None else len(batches) * likelihood.num_steps
    with tqdm(total=total, desc="bits per dimension", unit="step") as bar:

        def announced() -> Iterator[ClipBatch]:
            for number, batch in enumerate(batches, start=1):
                bar.set_description(f"bits per dimension, batch {number} of {len(batches)}")
                yield batch

        found = bits_per_dim.bits_per_dim(model, announced(), likelihood, options.seed, bar.update)
    error = "" if found.standard_error is None else f"standard error {found.standard_error:.4f}, "
    print(f"bits per dimension      {found.mean:.4f} ({error}{found.num_clips} clips)")
    return {"bits_per_dim": asdict(found)}


def measure_prompted_digits(
    model: VideoDiffusionModel,
    data: ClipDataModule,
    held_out: HeldOut,
    options: EvaluateOptions,
    folder: Path,
) -> dict[str, Any]:
    """Measure and print the shares of sampled clips with the digit and the motion of their prompts."""
    classifier = moving_digits.train_classifier(data.train_dataloader())
    batches = list(held_out)  # clips of digits are small
    real = torch.cat([batch.video for batch in batches])
    of_real = [caption for batch in batches for caption in batch.captions]
    real_labels = torch.cat([batch.labels for batch in batches])
    ceiling = moving_digits.score(classifier, real, of_real, real_labels)

    pairs = sorted(set(zip(of_real, real_labels.tolist(), strict=True)))
    # Evenly over all prompts for any number of samples, since digits are not equally hard.
    number = options.num_samples
    chosen = [pairs[i * len(pairs) // number % len(pairs)] for i in range(number)]
    captions, labels = zip(*chosen, strict=True)
    prompts = model.prompts(captions, labels)
    videos = generate(model, prompts, ClipSize(*data.clip_shape), options.seed, options.batch_size, progress=True)
    shown = slice(None, None, max(1, len(videos) // 16))
    write_grid(folder / "prompted_digits", list(videos[shown]), data.fps or DEFAULT_FPS, captions[shown])
    found = moving_digits.score(classifier, videos, captions, torch.tensor(labels))
    print(
        f"clips with the digit asked for   {found.digit:.1%} of {len(videos)} (held-out real clips {ceiling.digit:.1%})"
    )
    print(f"clips with the motion asked for  {found.direction:.1%} (held-out real clips {ceiling.direction:.1%})")
    return {"prompted_digits": asdict(found), "held_out_real_clips": asdict(ceiling), "num_samples": len(videos)}
