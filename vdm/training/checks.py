"""Checks that span components, before any training begins."""

from vdm.config import ConfigError
from vdm.data.datamodule import ClipDataModule
from vdm.diffusion.samplers.base import GridSampler
from vdm.generation.generate import ClipSize, check_size
from vdm.generation.model import VideoDiffusionModel


def check_together(model: VideoDiffusionModel, data: ClipDataModule) -> None:
    """Refuse a model and a data set, or a sampler and a schedule, that don't go together.

    Raises:
        ConfigError: One line that names the key.
    """
    for num_frames, height, width in data.clip_shapes:
        try:
            check_size(model, ClipSize(num_frames, height, width))
        except ValueError as error:
            raise ConfigError(f"data.path={data.name}: clips are {num_frames}x{height}x{width}; {error}") from error
    if isinstance(model.sampler, GridSampler):
        try:
            model.sampler.grid(model.diffusion.schedule)
        except ValueError as error:
            raise ConfigError(f"sampler: {error}") from error
    num_classes, labels = model.conditioner.num_classes, data.label_names
    if num_classes and not labels:
        raise ConfigError(
            f"model.conditioner.num_classes={num_classes}: the set in data.path={data.name} has no labels"
        )
    if num_classes and num_classes < len(labels):
        raise ConfigError(f"model.conditioner.num_classes={num_classes}: the set has {len(labels)} classes")
