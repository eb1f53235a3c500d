"""What ``vdm sample`` is to make: videos of a size, from prompts alone or from another video too."""

import logging
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vdm.checkpoints.run_config import RunConfig
from vdm.config import ConfigError, did_you_mean
from vdm.diffusion.observations import ObservationMethod, Reconstruction, Replacement
from vdm.generation.blocks import BlockSize
from vdm.generation.generate import ClipSize
from vdm.generation.input_video import InputVideo, read_video
from vdm.generation.model import VideoDiffusionModel
from vdm.generation.tasks import Known, extension, interpolation, super_resolution

TASKS = ("extend", "interpolate", "superres")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """What the videos are to be."""

    size: ClipSize
    fps: float
    known: Known = Known()


def whole_number(options: dict[str, Any], name: str) -> int:
    """Return an option that counts something.

    Raises:
        ConfigError: If it is no whole number, or below 1.
    """
    value = options[name]
    if not isinstance(value, int) or value < 1:
        raise ConfigError(f"{name}={value}: must be a whole number, at least 1")
    return value


def _rate(options: dict[str, Any], name: str) -> float:
    """Return an option that is in frames per second."""
    value = options[name]
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < math.inf:
        raise ConfigError(f"{name}={value}: must be a number above 0")
    return value


def clip_size(options: dict[str, Any], trained: RunConfig) -> ClipSize:
    """Return the size asked for, by default that of the clips in training."""
    names = ("num_frames", "height", "width")
    sizes = {name: getattr(trained.clip, name) if options[name] is None else options[name] for name in names}
    return ClipSize(**{name: whole_number(sizes, name) for name in names})


def block_size(options: dict[str, Any], trained: RunConfig) -> BlockSize:
    """Return what is made at once: by default as many frames as in training, half of them known from before."""
    usual = trained.clip.num_frames
    num_frames = usual if options["block_frames"] is None else whole_number(options, "block_frames")
    overlap = max(1, num_frames // 2) if options["overlap"] is None else whole_number(options, "overlap")
    return BlockSize(num_frames, overlap)


def read_task(options: dict[str, Any], trained: RunConfig, model: VideoDiffusionModel, block: BlockSize) -> Task:
    """Return what is to be made, and read the video that it is to be made of.

    Raises:
        ValueError: If the options don't go together, or the video can't be read or doesn't fit.
    """
    name, path, size = options["task"], options["input"], clip_size(options, trained)
    usual_fps = trained.clip.fps
    if name is None and path is not None:
        raise ConfigError(f"input={path}: say what to do with it: task=extend, interpolate or superres")
    if name is None:
        return Task(size, usual_fps if options["fps"] is None else _rate(options, "fps"))
    if name not in TASKS:
        raise ConfigError(f"task={name}: no such task{did_you_mean(str(name), TASKS)}")
    if path is None:
        raise ConfigError(f"task={name}: needs a video, input=FILE")
    every = whole_number(options, "every") if name == "interpolate" else 1
    if every >= block.num_frames > 1:
        raise ConfigError(f"every={every}: must be below the {block.num_frames} frames of a block")
    video = _read_input(options, size)
    if options["num_frames"] is None:
        size = replace(size, num_frames=_default_frames(name, video.frames.shape[1], every, block))
    fps = every * (video.fps or usual_fps)
    _compare_speed(fps, usual_fps, every)
    return Task(size, fps if options["fps"] is None else _rate(options, "fps"), _known(name, model, video, size, every))


def observation_method(options: dict[str, Any]) -> ObservationMethod:
    """Return how blocks are told what is known of their frames."""
    name, scale = options["method"], options["reconstruction_scale"]
    if name == "replacement":
        return Replacement()
    if name != "reconstruction":
        raise ConfigError(f"method={name}: no such method{did_you_mean(str(name), ('reconstruction', 'replacement'))}")
    if not isinstance(scale, int | float) or scale < 0:
        raise ConfigError(f"reconstruction_scale={scale}: must be a number, at least 0")
    return Reconstruction(scale)


def _read_input(options: dict[str, Any], size: ClipSize) -> InputVideo:
    max_frames = options["input_frames"]
    fps = None if options["input_fps"] is None else _rate(options, "input_fps")
    is_small = options["task"] == "superres"
    if options["image"] is not None and not is_small:
        raise ConfigError(f"image={options['image']}: task={options['task']} has its first frame from input")
    return read_video(
        Path(options["input"]),
        None if is_small else (size.height, size.width),
        fps,
        None if max_frames is None else whole_number(options, "input_frames"),
    )


def _default_frames(task: str, given: int, every: int, block: BlockSize) -> int:
    """Return how many frames to make of ``given`` ones."""
    if task == "extend":
        return max(block.num_frames, given + block.num_frames - block.overlap)
    return every * (given - 1) + 1


def _compare_speed(fps: float, usual_fps: float, every: int) -> None:
    if not 0.9 < fps / usual_fps < 1.1:
        _log.warning(
            "The input's speed makes %g frames a second, but the model was trained at %g: input_fps=%g takes frames"
            " as far apart as in training",
            *(fps, usual_fps, usual_fps / every),
        )


def _known(task: str, model: VideoDiffusionModel, video: InputVideo, size: ClipSize, every: int) -> Known:
    """Return what the input says of the videos."""
    if task == "extend":
        return extension(model, video.frames, size.num_frames)
    if task == "interpolate":
        return interpolation(model, video.frames, every, size.num_frames)
    return super_resolution(model, video.frames, size.num_frames, size.height, size.width)
