"""Conversion between ``scheduler_config.json`` of flow matching and this project's ``diffusion`` and ``sampler``.

Wan is published with ``UniPCMultistepScheduler``; its pipelines also take ``DPMSolverMultistepScheduler`` and
``FlowMatchEulerDiscreteScheduler``.
Classes of ``vdm.diffusion`` are named by their ``_target_``, since ``vdm.models`` does not import that package.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Len

from vdm.outside import read_json, typed
from vdm.ranges import Positive

_PARAMETERIZATION = "vdm.diffusion.parameterizations.Velocity"
_TIMESTEP = "vdm.diffusion.parameterizations.FlowTimestep"
_SHIFT = "vdm.diffusion.time_shifts.ConstantShift"
_SAMPLERS = "vdm.diffusion.samplers"
_NUM_STEPS = 50
"""Network evaluations of Wan's pipelines by default."""


@dataclass(frozen=True, kw_only=True)
class MultistepConfig:
    """The keys that are read for both multistep schedulers, with the values that are supported."""

    use_flow_sigmas: Literal[True]
    prediction_type: Literal["flow_prediction"]
    flow_shift: Positive = 1.0
    num_train_timesteps: Literal[1000] = 1000
    final_sigmas_type: Literal["zero"] = "zero"
    lower_order_final: Literal[True] = True
    thresholding: Literal[False] = False
    use_dynamic_shifting: Literal[False] = False
    use_karras_sigmas: Literal[False] | None = False
    use_exponential_sigmas: Literal[False] | None = False
    use_beta_sigmas: Literal[False] | None = False


@dataclass(frozen=True, kw_only=True)
class UniPCConfig(MultistepConfig):
    """The keys that are read for ``UniPCMultistepScheduler``."""

    solver_order: Literal[1, 2, 3] = 2
    solver_type: Literal["bh1", "bh2"] = "bh2"
    disable_corrector: Annotated[list[int], Len(0, 0)] = field(default_factory=list[int])
    predict_x0: Literal[True] = True
    shift_terminal: None = None


@dataclass(frozen=True, kw_only=True)
class DPMSolverConfig(MultistepConfig):
    """The keys that are read for ``DPMSolverMultistepScheduler``."""

    solver_order: Literal[2] = 2
    solver_type: Literal["midpoint"] = "midpoint"
    algorithm_type: Literal["dpmsolver++"] = "dpmsolver++"
    euler_at_final: bool = False
    """Without effect: the last step is Euler's in any case, as it ends at noise level 0."""
    use_lu_lambdas: Literal[False] | None = False
    variance_type: None = None


@dataclass(frozen=True)
class EulerConfig:
    """The keys that are read for ``FlowMatchEulerDiscreteScheduler``, with the values that are supported."""

    shift: Positive = 1.0
    num_train_timesteps: Literal[1000] = 1000
    use_dynamic_shifting: Literal[False] = False
    use_karras_sigmas: Literal[False] | None = False
    use_exponential_sigmas: Literal[False] | None = False
    use_beta_sigmas: Literal[False] | None = False
    stochastic_sampling: Literal[False] = False
    invert_sigmas: Literal[False] = False
    shift_terminal: None = None


def read_scheduler(file: Path) -> dict[str, Any]:
    """Return the content of a ``scheduler_config.json``; diffusers writes the default of a threshold as ``-Infinity``.

    Raises:
        ValueError: One line, if the file can't be read.
    """
    return read_json(file, allow_infinity=True)


def settings(scheduler: Mapping[str, Any], source: object) -> dict[str, Any]:
    """Return the settings of a run's ``diffusion`` and ``sampler`` that override the YAML of the family.

    Args:
        scheduler: Content of ``scheduler_config.json``.
        source: Its file, for messages.

    Raises:
        ValueError: If the scheduler's class or one of its values is not supported.
    """
    kind = scheduler.get("_class_name")
    if kind not in _READERS:
        raise ValueError(f"{source}: _class_name={kind}: must be {', '.join(_READERS)}")
    return _READERS[kind](scheduler, source)


def scheduler_config(diffusion: Mapping[str, Any], published: Mapping[str, Any]) -> dict[str, Any]:
    """Return the ``scheduler_config.json`` of a network that was trained with ``diffusion``.

    Args:
        diffusion: The run's ``diffusion``.
        published: The published configuration of the scheduler, from which all but the shift is copied.

    Raises:
        ValueError: If diffusers has no such schedule or prediction, or conditions networks on noise levels differently.
    """
    parameterization, schedule, shift = diffusion["parameterization"], diffusion["schedule"], diffusion["time_shift"]
    is_flow = schedule.get("schedule", schedule)["_target_"].endswith(".RectifiedFlow")
    if not is_flow or schedule.get("log_snr_shift", 0) != 0:
        raise ValueError("diffusion.schedule: must be rectified_flow without log_snr_shift for a pipeline of diffusers")
    if parameterization["_target_"] != _PARAMETERIZATION or parameterization["c_noise"]["_target_"] != _TIMESTEP:
        raise ValueError("diffusion.parameterization: must be velocity_at_timestep for a pipeline of diffusers")
    if shift is not None and shift["_target_"] != _SHIFT:
        raise ValueError("diffusion.time_shift: must be constant or null: pipelines of diffusers have one shift")
    name = "shift" if published.get("_class_name") == "FlowMatchEulerDiscreteScheduler" else "flow_shift"
    return {**published, name: 1.0 if shift is None else shift["shift"]}


def _of_unipc(scheduler: Mapping[str, Any], source: object) -> dict[str, Any]:
    config = typed(UniPCConfig, scheduler, source)
    sampler = {
        "_target_": f"{_SAMPLERS}.unipc.UniPC",
        "num_steps": _NUM_STEPS,
        "spacing": {"_target_": f"{_SAMPLERS}.spacing.FlowSteps", "t_max": 1.0, "t_min": 0.001, "shift": None},
        "order": config.solver_order,
        "variant": config.solver_type,
        "corrector": True,
    }
    return {"diffusion": _diffusion(config.flow_shift, whole=True), "sampler": sampler}


def _of_dpm_solver(scheduler: Mapping[str, Any], source: object) -> dict[str, Any]:
    # It starts with noise of variance 1 at a level just below 1; here that noise has the variance of its level.
    config = typed(DPMSolverConfig, scheduler, source)
    sampler = {
        "_target_": f"{_SAMPLERS}.dpm_solver_pp_2m.DPMSolverPP2M",
        "num_steps": _NUM_STEPS,
        "spacing": {"_target_": f"{_SAMPLERS}.spacing.FlowSteps", "t_max": 0.999, "t_min": 0.0, "shift": None},
    }
    return {"diffusion": _diffusion(config.flow_shift, whole=True), "sampler": sampler}


def _of_euler(scheduler: Mapping[str, Any], source: object) -> dict[str, Any]:
    shift = typed(EulerConfig, scheduler, source).shift
    # Its first timestep is shifted twice: the last time is 0.001 after one shift.
    last = 0.001 * shift / (1 + 0.001 * (shift - 1))
    sampler = {
        "_target_": f"{_SAMPLERS}.euler.Euler",
        "num_steps": _NUM_STEPS,
        "spacing": {"_target_": f"{_SAMPLERS}.spacing.Linspace", "t_min": last},
    }
    return {"diffusion": _diffusion(shift, whole=False), "sampler": sampler}


_READERS: dict[str, Callable[[Mapping[str, Any], object], dict[str, Any]]] = {
    "UniPCMultistepScheduler": _of_unipc,
    "DPMSolverMultistepScheduler": _of_dpm_solver,
    "FlowMatchEulerDiscreteScheduler": _of_euler,
}


def _diffusion(shift: float, whole: bool) -> dict[str, Any]:
    return {"time_shift": {"shift": shift}, "parameterization": {"c_noise": {"whole": whole}}}
