"""Which time shift a model is trained and sampled with, in words."""

from collections.abc import Iterable

from vdm.assembly.model import VideoDiffusionModel
from vdm.diffusion.samplers.base import GridSampler
from vdm.diffusion.samplers.spacing import FlowSteps
from vdm.types import ClipSize


def time_shifts(model: VideoDiffusionModel, clip: ClipSize) -> tuple[float, float]:
    """Return the factors of the time shift in training and in sampling, for clips of a size; 1 is no shift."""
    shift = model.diffusion.time_shift
    training = 1.0 if shift is None else shift.factor(model.encoder.latent_shape(clip))
    spacing = model.sampler.spacing if isinstance(model.sampler, GridSampler) else None
    if isinstance(spacing, FlowSteps) and spacing.shift is not None:
        return training, spacing.shift
    return training, training


def said_shift(model: VideoDiffusionModel, clip: ClipSize) -> str | None:
    """Return the factors in words; None if times are not shifted."""
    training, sampling = time_shifts(model, clip)
    if training == sampling:
        return None if training == 1 else f"{training:.3g} in training and sampling"
    return f"{training:.3g} in training, {sampling:.3g} in sampling"


def shifts_by_size(model: VideoDiffusionModel, shapes: Iterable[tuple[int, int, int]]) -> dict[str, str]:
    """Return the factors in words for each size of clips (frames, rows, columns); empty if times are not shifted."""
    said = {"x".join(map(str, shape)): said_shift(model, ClipSize(*shape)) for shape in shapes}
    return {name: words for name, words in said.items() if words is not None}
