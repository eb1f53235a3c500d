"""Checks of components against each other, before training begins."""

from collections.abc import Mapping
from typing import Any

from vdm.assembly.model import VideoDiffusionModel
from vdm.config import ConfigError
from vdm.data.datamodule import ClipDataModule
from vdm.data.stored import differences
from vdm.diffusion.samplers.base import GridSampler
from vdm.diffusion.samplers.staggered import Staggered
from vdm.generation.generate import check_size
from vdm.models.frozen import Frozen
from vdm.objectives.condition_dropout import ALL, ConditionDropout
from vdm.types import ClipSize


def check_stored(model: VideoDiffusionModel, data: ClipDataModule) -> None:
    """Refuse stored latents and text embeddings that were not made by the model's encoders.

    Raises:
        ConfigError: One line that names the key.
    """
    if data.latents is not None:
        _check_encoder(model.encoder, data.latents.encoder, "encoder", f"data.path={data.name}: the latents")
        for (t, h, w), found in data.latents.shapes.items():
            where = f"data.path={data.name}: latents of {t}x{h}x{w}"
            try:
                expected = model.encoder.latent_shape(ClipSize(t, h, w))
            except ValueError as error:
                raise ConfigError(f"{where}: {error}") from error
            if found != expected:
                raise ConfigError(f"{where} have shape {found} where the encoder's have {expected}")
    if data.text is not None:
        text_encoder = model.conditioner.text_encoder
        _check_encoder(text_encoder, data.text.encoder, "text_encoder", f"data.path={data.name}: the text embeddings")


def _check_encoder(encoder: object, stored: Mapping[str, Any], group: str, what: str) -> None:
    if not isinstance(encoder, Frozen):
        name = type(encoder).__name__ if encoder is not None else "none"
        raise ConfigError(f"{group}: {what} are of {_name(stored)}; {group} is {name}, which made none of them")
    if found := differences(stored, encoder.identity()):
        raise ConfigError(f"{group}: {what} are of another encoder, {_name(stored)}: {found}")


def _name(stored: Mapping[str, Any]) -> str:
    return str(stored.get("name") or stored.get("class") or "an unknown encoder")


def check_dropout(dropout: ConditionDropout, model: VideoDiffusionModel) -> None:
    """Refuse to drop a condition that the model does not have.

    Raises:
        ConfigError: One line that names the key.
    """
    takes = model.conditioner.takes
    for name, share in dropout.shares.items():
        if share > 0 and name not in (ALL, *takes):
            raise ConfigError(
                f"training.condition_dropout.{name}={share}: the model has no such condition; it has:"
                f" {', '.join(takes) or 'none'}"
            )


def check_together(model: VideoDiffusionModel, data: ClipDataModule) -> None:
    """Refuse a model that does not fit the data set, or a sampler that does not fit the schedule.

    Raises:
        ConfigError: One line that names the key.
    """
    for num_frames, height, width in data.clip_shapes:
        size = ClipSize(num_frames, height, width)
        try:
            check_size(model, size)
            latents = model.encoder.latent_shape(size)
        except ValueError as error:
            raise ConfigError(f"data.path={data.name}: clips are {num_frames}x{height}x{width}; {error}") from error
        if isinstance(model.sampler, GridSampler | Staggered):
            try:
                model.sampler.grid(model.diffusion.sampling_schedule(latents))
            except ValueError as error:
                raise ConfigError(f"sampler: {error}") from error
    check_stored(model, data)
    num_classes, labels = model.conditioner.num_classes, data.label_names
    if num_classes and not labels:
        raise ConfigError(
            f"model.conditioner.num_classes={num_classes}: the set in data.path={data.name} has no labels"
        )
    if num_classes and num_classes < len(labels):
        raise ConfigError(f"model.conditioner.num_classes={num_classes}: the set has {len(labels)} classes")
