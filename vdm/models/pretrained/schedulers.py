"""Conversion between diffusers' ``scheduler_config.json`` and this project's ``diffusion`` and ``sampler``.

A scheduler's configuration describes the network's training (its betas and its prediction) and its sampling. Classes of
``vdm.diffusion`` are named here by their ``_target_`` in YAMLs, since ``vdm.models`` does not import that package.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Interval

from vdm.outside import typed

_SCHEDULES = {
    "linear": "vdm.diffusion.schedules.discrete.LinearBetas",
    "scaled_linear": "vdm.diffusion.schedules.discrete.ScaledLinearBetas",
}
_PREDICTIONS = {
    "epsilon": "vdm.diffusion.parameterizations.Eps",
    "v_prediction": "vdm.diffusion.parameterizations.V",
    "sample": "vdm.diffusion.parameterizations.X0",
}
_TIMESTEP = "vdm.diffusion.parameterizations.Timestep"


@dataclass(frozen=True)
class SchedulerConfig:
    """The keys that are read from ``scheduler_config.json``."""

    trained_betas: list[float] | None = None
    num_train_timesteps: Annotated[int, Interval(ge=1, le=1_000_000)] = 1000
    beta_schedule: str = "linear"
    beta_start: Annotated[float, Interval(gt=0, lt=1)] = 0.0001
    beta_end: Annotated[float, Interval(gt=0, lt=1)] = 0.02
    rescale_betas_zero_snr: bool = False
    prediction_type: str = "epsilon"
    set_alpha_to_one: bool = True
    steps_offset: Annotated[int, Interval(ge=0, le=1_000_000)] = 0
    timestep_spacing: str = "leading"


def settings(scheduler: Mapping[str, Any], source: object) -> dict[str, Any]:
    """Return the settings of a run's ``diffusion`` and ``sampler`` that override the YAML of the family.

    Args:
        scheduler: Content of ``scheduler_config.json``.
        source: Its file, for messages.

    Raises:
        ValueError: If a schedule, prediction or spacing of timesteps is not supported, or a value has the wrong type.
    """
    config = typed(SchedulerConfig, scheduler, source)
    if config.trained_betas is not None:
        raise ValueError(f"{source}: trained_betas: is not supported")
    num_timesteps = config.num_train_timesteps
    schedule = {
        "_target_": _known(_SCHEDULES, config.beta_schedule, "beta_schedule", source),
        "num_timesteps": num_timesteps,
        "zero_terminal_snr": config.rescale_betas_zero_snr,
        "beta_start": config.beta_start,
        "beta_end": config.beta_end,
    }
    prediction = _known(_PREDICTIONS, config.prediction_type, "prediction_type", source)
    return {
        "diffusion": {
            "schedule": schedule,
            "parameterization": {"_target_": prediction, "c_noise": {"_target_": _TIMESTEP, "schedule": schedule}},
            "noise_levels": {"num_timesteps": num_timesteps},
        },
        "sampler": {
            "spacing": _spacing(config, source),
            "t_end": 0.0 if config.set_alpha_to_one else 1 / num_timesteps,
        },
    }


def scheduler_config(diffusion: Mapping[str, Any], published: Mapping[str, Any]) -> dict[str, Any]:
    """Return the ``scheduler_config.json`` of a network that was trained with ``diffusion``.

    Args:
        diffusion: The run's ``diffusion``.
        published: The published configuration of the scheduler, from which all other keys are copied.

    Raises:
        ValueError: If diffusers has no such schedule or prediction, or conditions networks on noise levels differently.
    """
    schedule, parameterization = diffusion["schedule"], diffusion["parameterization"]
    if parameterization["c_noise"]["_target_"] != _TIMESTEP or parameterization["c_noise"]["schedule"] != schedule:
        raise ValueError("diffusion.parameterization.c_noise: diffusers has the timestep of the schedule alone")
    return {
        **published,
        "beta_schedule": _name_of(_SCHEDULES, schedule, "diffusion.schedule"),
        "beta_start": schedule["beta_start"],
        "beta_end": schedule["beta_end"],
        "num_train_timesteps": schedule["num_timesteps"],
        "rescale_betas_zero_snr": schedule["zero_terminal_snr"],
        "prediction_type": _name_of(_PREDICTIONS, parameterization, "diffusion.parameterization"),
    }


def _spacing(config: SchedulerConfig, source: object) -> dict[str, Any]:
    num_timesteps = config.num_train_timesteps
    first = (1 + config.steps_offset) / num_timesteps
    known = {
        "leading": {"_target_": "vdm.diffusion.samplers.spacing.Leading", "t_min": first},
        "trailing": {"_target_": "vdm.diffusion.samplers.spacing.Trailing"},
        "linspace": {"_target_": "vdm.diffusion.samplers.spacing.Linspace", "t_min": 1 / num_timesteps},
    }
    return _known(known, config.timestep_spacing, "timestep_spacing", source)


def _known(known: Mapping[str, Any], value: str, name: str, source: object) -> Any:
    if value not in known:
        raise ValueError(f"{source}: {name}={value}: must be {', '.join(known)}")
    return known[value]


def _name_of(names: Mapping[str, str], node: Mapping[str, Any], key: str) -> str:
    for name, target in names.items():
        if node["_target_"] == target:
            return name
    raise ValueError(f"{key}: diffusers has no {node['_target_']}; it has {', '.join(names)}")
