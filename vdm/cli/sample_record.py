"""The record of a call of ``vdm sample``: all options that decide its videos, and versions of the code."""

import hashlib
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from vdm.assembly.model import VideoDiffusionModel
from vdm.checkpoints.checkout import git_version
from vdm.checkpoints.folder import checksum_of
from vdm.checkpoints.latest import latest_checkpoint
from vdm.checkpoints.run_config import RunConfig
from vdm.cli.manual.versions import DISTRIBUTION
from vdm.cli.options.sample import SampleOptions
from vdm.cli.options.sampling import SamplingOptions
from vdm.cli.sample_settings import NEVER_RECORDED, Identity, as_json
from vdm.cli.sample_task import Task
from vdm.config.options import options_of
from vdm.generation.frame_blocks import BlockSize
from vdm.regular_files import open_regular

READ_FILES = ("image", "last_image", "input")
"""Options that name a file which decides the videos."""


def options_in_effect(
    options: SampleOptions,
    captions: Sequence[str] | None,
    checkpoint: Path,
    trained: RunConfig,
    model: VideoDiffusionModel,
    task: Task,
    block: BlockSize,
    method: str | None,
) -> dict[str, Any]:
    """Return all options that decide the videos, by key, as plain values; defaults are filled in.

    ``fps`` stays as the user set it: the model's condition and the speed of the files follow from it.
    """
    recorded = [option for option in options_of(type(options)) if option.key not in NEVER_RECORDED]
    told = {option.key: getattr(options, option.field.name) for option in recorded}
    of_model = {} if model.conditioner.options is None else asdict(model.conditioner.options)
    guidance = guidance_in_effect(options, trained)
    effective = {
        "checkpoint": checkpoint,
        "guide": None if options.guide is None else latest_checkpoint(options.guide),
        "prompts": None if captions is None else list(captions),
        **asdict(task.size),
        "guidance": guidance,
        "guidance_scale": guidance.get("scale"),
        "block_frames": block.num_frames,
        "overlap": block.overlap,
        "method": method,
        **{name: value for name, value in of_model.items() if name != "fps"},
    }
    if options.task == "extend":
        effective |= {"input_frames": options.input_frames or len(task.known.indices)}
        effective |= {"input_fps": options.input_fps or trained.clip.fps}
    return {key: _plain(value) for key, value in {**told, **effective}.items()}


def guidance_in_effect(options: SamplingOptions, trained: RunConfig) -> dict[str, Any]:
    """Return the configuration of guidance, with the run's scale if none is set."""
    assert options.guidance is not None, "only finished videos need no guidance"
    guidance = dict(options.guidance)
    if guidance.get("scale", 0) is None:
        guidance["scale"] = trained.guidance_scale
    return guidance


def what_was_read(options: Mapping[str, Any]) -> dict[str, Identity]:
    """Return the identities of the checkpoints and files that options name, by key."""
    found = {key: _of_checkpoint(Path(options[key])) for key in ("checkpoint", "guide") if options[key] is not None}
    return found | {key: _of_file(Path(options[key])) for key in READ_FILES if options[key] is not None}


def record(options: Mapping[str, Any], read: Mapping[str, Identity], fps: float, device: object) -> dict[str, Any]:
    """Return the record of a call, as plain values.

    Args:
        options: Options in effect.
        read: Identities of the checkpoints and files that they name.
        fps: Frames per second of the files.
        device: Device on which the videos are made.
    """
    identities = {key: {"checksum": one.checksum, **_given(step=one.step)} for key, one in read.items()}
    made = {"time": datetime.now().astimezone().isoformat(timespec="seconds"), "fps": fps, "device": str(device)}
    code = {
        "vdm": metadata.version(DISTRIBUTION),
        "git": git_version(),
        "torch": metadata.version("torch"),
        "python": platform.python_version(),
    }
    return {"options": as_json(options), "read": identities, "made": made, "code": code}


def _of_checkpoint(checkpoint: Path) -> Identity:
    step = re.fullmatch(r"step=(\d+)", checkpoint.name)
    return Identity(checksum_of(checkpoint), int(step[1]) if step else None)


def _of_file(path: Path) -> Identity:
    with open_regular(path) as file:
        return Identity(hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest())


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value.absolute())
    return list(value) if isinstance(value, tuple) else value
