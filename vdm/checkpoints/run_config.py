"""The checked part of a run's configuration, for runs from any source, such as a download.

Commands that read a run without training it, such as ``vdm sample`` and ``load_model``, use only ``RunConfig`` of its
``config.yaml``: the model that the weights belong to, and how its authors sample. It can't decide where anything is
written, deleted, stored or fetched from, nor which code runs: the command line and the user's own YAMLs do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Interval, Len

from vdm.checkpoints.data_path import STARTED_IN
from vdm.checkpoints.layout import config_file
from vdm.checkpoints.run_record import load_config
from vdm.config import ConfigError
from vdm.config.foreign import check_foreign
from vdm.config.targets import OWN_CODE
from vdm.credentials import without_credentials
from vdm.outside import dump_yaml, typed
from vdm.ranges import Count, Positive, Seed, Size

OWN_MODULES = ("vdm.models", "vdm.diffusion", "vdm.known_frames")
"""Packages with the components of a model, unless the user allows the run's own code."""
DENOISING = {"_target_": "vdm.objectives.denoising.Denoising"}
"""The objective of runs that record none."""
_PARTS = ("encoder", "model", "diffusion", "sampler", "guidance")
_OF_MODEL = ("network", "conditioner")
DATA_MODULE = "vdm.data.datamodule.ClipDataModule"
CLIP_SAMPLING = "vdm.data.clips.ClipSampling"
"""The only classes of a run's data, unless the user allows the run's own code."""


@dataclass(frozen=True)
class RecordedClip:
    """The clips of a run: those that it was trained on, and by default those that it samples."""

    num_frames: Size
    height: Size
    """In pixels."""
    width: Size
    """In pixels."""
    fps: Positive
    """Frames per second."""
    label_names: Annotated[tuple[str, ...], Len(0, 1_000_000)] = ()


@dataclass(frozen=True)
class RecordedData:
    """The used part of a run's data configuration: its place, and which part of each clip training saw."""

    path: str | dict[str, float] | None = None
    """A folder, or several with their shares."""
    seed: Seed = 0
    global_batch_size: Count | None = None
    clips: dict[str, Any] | None = None


@dataclass(frozen=True)
class _Recorded:
    """Further keys that are read."""

    clip: RecordedClip | None = None
    guidance_scale: Annotated[float, Interval(ge=-1e6, le=1e6)] = 1.0
    init_from: str | None = None
    started_in: str | None = None


@dataclass(frozen=True)
class _RecordedModel:
    pretrained: str | None = None


@dataclass(frozen=True)
class _RecordedEMA:
    sigma_rels: Annotated[tuple[Positive, ...], Len(0, 100)] = ()


@dataclass(frozen=True)
class RunConfig:
    """A run's checked configuration, from which everything of the run is built."""

    file: Path
    """The file, for messages."""
    parts: Mapping[str, Any]
    """The nodes ``encoder``, ``model`` with network and conditioner, ``diffusion``, ``sampler``, ``guidance``."""
    objective: Mapping[str, Any] | None
    """The training objective, which only the held-out loss needs; ``None`` if it can't be built."""
    objective_fault: str | None
    """Why it can't be built, in one line; for example, since it is the run's own code and not allowed."""
    guidance_scale: float
    recorded_clip: RecordedClip | None
    data: RecordedData
    started_in: str | None
    """The folder from which a relative ``data.path`` counts; see ``resolve_data_path``."""
    data_module: Mapping[str, Any] | None
    """The node of a data module of the user's own, where their code is allowed."""
    started_from: str | None
    """Published weights, or a run, that training began with; to be shown."""
    sigma_rels: Sequence[float]
    """Relative standard deviation of each power-function EMA that was kept in training."""
    allowed_modules: Sequence[str] | None
    """Packages from which components may come; ``None`` allows all."""
    text: str
    """The whole file but for ``started_in`` and credentials: only for display, also to others, and never parsed."""

    @classmethod
    def read(cls, path: Path, allow_own_code: bool = False) -> "RunConfig":
        """Read the configuration of a run, of the run of a checkpoint, or of an export.

        Args:
            path: Its folder.
            allow_own_code: Allow components of classes outside of this project, which runs their code.

        Raises:
            ValueError: In one line that names file or key, if there is no configuration, or it is not that of a run.
        """
        return cls.of(load_config(path), config_file(path), allow_own_code)

    @classmethod
    def of(cls, config: Mapping[str, Any], file: Path, allow_own_code: bool = False) -> "RunConfig":
        """Check a configuration; arguments and errors are those of ``read``."""
        for key in _PARTS:
            if not isinstance(config.get(key), Mapping):
                raise ConfigError(f"{file}: {key} is missing or no component; not the configuration of a model")
        parts = {key: config[key] for key in _PARTS if key != "model"}
        parts["model"] = {name: config["model"].get(name) for name in _OF_MODEL}
        for name, node in parts["model"].items():
            if not isinstance(node, Mapping):
                raise ConfigError(f"{file}: model.{name} is missing or no component; not the configuration of a model")
        allowed = None if allow_own_code else OWN_MODULES
        if allowed is not None:
            for key, node in parts.items():
                check_foreign(node, key, allowed)
        rest = typed(_Recorded, config, file)
        model = typed(_RecordedModel, config["model"], f"{file}: model")
        objective, objective_fault = _objective(config.get("objective", DENOISING), allow_own_code)
        data, data_module = _data(config.get("data"), file, allow_own_code)
        return cls(
            file=file,
            parts=parts,
            objective=objective,
            objective_fault=objective_fault,
            guidance_scale=rest.guidance_scale,
            recorded_clip=rest.clip,
            data=data,
            started_in=rest.started_in,
            data_module=data_module,
            started_from=model.pretrained or rest.init_from,
            sigma_rels=typed(_RecordedEMA, _mapping(config.get("averages")), f"{file}: averages").sigma_rels,
            allowed_modules=allowed,
            text=dump_yaml(without_credentials({key: one for key, one in config.items() if key != STARTED_IN})),
        )

    @property
    def clip(self) -> RecordedClip:
        """The clips that the run was trained on.

        Raises:
            ConfigError: If they were not recorded.
        """
        if self.recorded_clip is None:
            raise ConfigError(f"{self.file}: clip is missing, which a run records when training begins")
        return self.recorded_clip

    def plain(self) -> dict[str, Any]:
        """Return the configuration of a run with the same model, as plain values."""
        clip = {} if self.recorded_clip is None else {"clip": _listed(asdict(self.recorded_clip))}
        averages = {"averages": {"sigma_rels": list(self.sigma_rels)}} if self.sigma_rels else {}
        data = {} if self.data.path is None else {"data": {"_target_": DATA_MODULE, **_given(asdict(self.data))}}
        objective = {} if self.objective is None else {"objective": self.objective}
        return {**self.parts, **objective, "guidance_scale": self.guidance_scale, **clip, **averages, **data}


def _objective(node: object, allow_own_code: bool) -> tuple[Mapping[str, Any] | None, str | None]:
    """Return the node, or why nothing can be built from it."""
    if not isinstance(node, Mapping) or "_target_" not in node:
        return None, "objective: is no component: it has no _target_"
    if not allow_own_code:
        try:
            check_foreign(node, "objective", ("vdm.objectives",))
        except ConfigError as error:
            return None, str(error)
    return node, None


def _data(node: object, file: Path, allow_own_code: bool) -> tuple[RecordedData, Mapping[str, Any] | None]:
    data = _mapping(node)
    if data.get("_target_", DATA_MODULE) != DATA_MODULE:
        if not allow_own_code:
            raise ConfigError(
                f"{file}: data._target_: {data['_target_']!r} is not allowed: it is {DATA_MODULE}{OWN_CODE}"
            )
        return RecordedData(), data
    found = typed(RecordedData, data, f"{file}: data")
    clips = _mapping(found.clips)
    if clips.get("_target_", CLIP_SAMPLING) != CLIP_SAMPLING:
        raise ConfigError(f"{file}: data.clips._target_: {clips['_target_']!r} is not allowed: it is {CLIP_SAMPLING}")
    return found, None


def _mapping(node: object) -> Mapping[str, Any]:
    return node if isinstance(node, Mapping) else {}


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _listed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return plain values: lists for tuples."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
