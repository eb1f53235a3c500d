"""Facts of a checkpoint for sampling and evaluation: shown by ``vdm sample --help checkpoint=RUN``."""

import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vdm.checkpoints.latest import checkpoints_to_try
from vdm.checkpoints.layout import config_file
from vdm.checkpoints.run_config import RecordedClip
from vdm.checkpoints.run_record import load_config
from vdm.cli.options.of_model import options_of_model
from vdm.config.words import described
from vdm.outside import typed
from vdm.records import read_record

_MAX_STATE_BYTES = 1 << 30
_CONDITIONS = {"text_encoder": "text", "num_classes": "label", "image": "image", "crop_channels": "crop"}
"""Conditions by the key of the conditioner that adds them."""
_NO_TEXT = "vdm.models.text_encoders.no_text"


@dataclass(frozen=True)
class _Model:
    network: dict[str, Any]
    conditioner: dict[str, Any]


@dataclass(frozen=True)
class _Shown:
    """The parts of a run's configuration that are shown; nothing is built from them."""

    model: _Model
    sampler: dict[str, Any]
    guidance: dict[str, Any]
    clip: RecordedClip | None = None
    guidance_scale: float = 1.0


def of_checkpoint(path: str, allow_own_code: bool, width: int) -> list[str]:
    """Return lines with the facts of a run; one line with the error if it can't be read.

    Args:
        path: The value of ``checkpoint``.
        allow_own_code: Whether classes outside this project may be imported.
        width: Columns of a line.
    """
    try:
        facts = list(_facts(Path(path), allow_own_code))
    except (ValueError, OSError) as error:
        return [f"checkpoint={path}: {' '.join(str(error).split())}"]
    lines = [f"checkpoint={path} has:"]
    for name, text in facts:
        lines += textwrap.wrap(
            text, width, initial_indent=f"  {name:18}", subsequent_indent=" " * 20, break_on_hyphens=False
        )
    return lines


def _facts(path: Path, allow_own_code: bool) -> Iterator[tuple[str, str]]:
    run: _Shown = typed(_Shown, load_config(path), config_file(path))
    folder = checkpoints_to_try(path)[0]
    yield "checkpoint", str(folder)
    clip = run.clip
    if clip is not None:
        yield "clips", f"{clip.num_frames} frames of {clip.height}x{clip.width} pixels, {clip.fps:g} frames per second"
        if clip.label_names:
            yield "classes", _listed(clip.label_names)
    yield "network", _class(run.model.network)
    yield "conditions", ", ".join(_conditions(run.model.conditioner)) or "none that its configuration tells"
    for name, node in (("sampler", run.sampler), ("guidance", run.guidance)):
        yield name, f"{_class(node)}: {', '.join(_plain(node))}"
    yield "guidance_scale", f"{run.guidance_scale:g}"
    yield "ema", ", ".join(_averages(folder)) or "one average, without a name, or none: true or false"
    options = options_of_model(path, allow_own_code)
    for name, annotation in sorted((options or {}).items()):
        yield name, f"{described(annotation | None)}: as in the run"


def _averages(checkpoint: Path) -> list[str]:
    """Return the names of the averages in a checkpoint, from its ``state.json``."""
    state: Any = read_record(checkpoint / "state.json", dict[str, Any], _MAX_STATE_BYTES)
    names = state.get("ema_names", []) if isinstance(state, Mapping) else []
    return [str(name) for name in names] if isinstance(names, list) else []


def _conditions(conditioner: Mapping[str, Any]) -> Iterator[str]:
    for key, condition in _CONDITIONS.items():
        value = conditioner.get(key)
        is_none = isinstance(value, Mapping) and value.get("_target_") == _NO_TEXT
        if value and not is_none:
            yield condition
    if "image_encoder" in conditioner:
        yield "image (its first frame)"


def _plain(node: Mapping[str, Any]) -> Iterator[str]:
    for key, value in node.items():
        if not key.startswith("_") and not isinstance(value, Mapping):
            yield f"{key}={value if value is not None else 'null'}"


def _class(node: Mapping[str, Any]) -> str:
    return str(node.get("_target_", "unknown")).rpartition(".")[2]


def _listed(names: tuple[str, ...], most: int = 40) -> str:
    shown = [f"{index} {name}" for index, name in enumerate(names[:most])]
    return ", ".join(shown) + (f" and {len(names) - most} more" if len(names) > most else "")
