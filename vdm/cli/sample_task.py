"""The task of ``vdm sample``: size and speed of the videos, and what is known of them from an input video."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from vdm.assembly.model import VideoDiffusionModel
from vdm.checkpoints.run_config import RunConfig
from vdm.cli.options.sample import SampleOptions
from vdm.config import ConfigError
from vdm.diffusion.observations import CleanFrames, ObservationMethod, ReconstructionGuidance, Replacement
from vdm.generation.frame_blocks import Block, BlockSize
from vdm.generation.input_video import InputVideo, read_end, read_video
from vdm.generation.known_frames import prefers_clean_frames
from vdm.generation.tasks import Known, extension, interpolation, super_resolution
from vdm.models.conditioner import TakesKnownFrames
from vdm.types import ClipSize

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """Size and speed of the videos, and what is known of them."""

    size: ClipSize
    fps: float
    known: Known = Known()


def clip_size(options: SampleOptions, trained: RunConfig) -> ClipSize:
    """Return the size of the videos, by default that of the training clips."""
    told = {"num_frames": options.num_frames, "height": options.height, "width": options.width}
    return ClipSize(**{name: getattr(trained.clip, name) if size is None else size for name, size in told.items()})


def read_task(options: SampleOptions, trained: RunConfig, model: VideoDiffusionModel, block: BlockSize) -> Task:
    """Return the task, and read the input video.

    Raises:
        ConfigError: If options contradict one another.
        ValueError: If the video can't be read or does not fit.
    """
    size, usual_fps = clip_size(options, trained), trained.clip.fps
    if options.task is None:
        return Task(size, usual_fps if options.fps is None else options.fps)
    assert options.input is not None, "options were checked together"
    every = options.every if options.task == "interpolate" else 1
    if every >= block.num_frames > 1:
        raise ConfigError(f"every={every}: must be below the {block.num_frames} frames of a block")
    if options.task == "extend":
        video = _context(options, size, usual_fps, model, block)
    else:
        frame_size = None if options.task == "superres" else (size.height, size.width)
        video = read_video(options.input, frame_size, options.input_fps, _limit(options.input_frames))
    if options.num_frames is None:
        size = replace(size, num_frames=_default_frames(options.task, video.frames.shape[1], every, block))
    fps = every * (video.fps or usual_fps)
    _compare_speed(fps, usual_fps, every)
    known = _known(options.task, model, video, size, every)
    return Task(size, fps if options.fps is None else options.fps, known)


def _context(
    options: SampleOptions, size: ClipSize, usual_fps: float, model: VideoDiffusionModel, block: BlockSize
) -> InputVideo:
    """Return the frames to extend: by default as many as blocks overlap, at the model's frame rate."""
    assert options.input is not None, "options were checked together"
    frame_size, fps = (size.height, size.width), options.input_fps or usual_fps
    wanted = block.overlap if options.input_frames is None else _limit(options.input_frames)
    read = read_end if options.goes_on_from == "end" else read_video
    video = read(options.input, frame_size, fps, wanted)
    if options.input_fps is None and video.frames.shape[1] > 1 and (video.file_fps or fps) < 0.9 * fps:
        _log.warning(
            "The input has %g frames a second, fewer than the model's %g, so that some are repeated: input_fps=%g takes"
            " each once",
            *(video.file_fps, fps, video.file_fps),
        )
    if options.input_frames is not None:
        return video
    # The video may be shorter than the overlap, and causal autoencoders take only 4k + 1 frames.
    span = model.encoder.compression.frames
    usable = (video.frames.shape[1] - 1) // span * span + 1
    frames = video.frames[:, -usable:] if options.goes_on_from == "end" else video.frames[:, :usable]
    return replace(video, frames=frames)


def _limit(input_frames: int | Literal["all"] | None) -> int | None:
    """Return the number of frames to take, None for all."""
    return None if input_frames == "all" else input_frames


def method_in_effect(options: SampleOptions, model: VideoDiffusionModel, blocks: Sequence[Block]) -> str | None:
    """Return the name of the method that makes sampling consistent with known frames; None if the model is told them.

    Raises:
        ConfigError: If a method is chosen, but the model is told known frames in channels.
    """
    if options.task != "superres" and isinstance(model.conditioner, TakesKnownFrames):
        if options.method is not None:
            raise ConfigError(f"method={options.method}: the model is told known frames in channels; leave method out")
        return None
    if options.method is not None:
        return options.method
    is_clean = options.task != "superres" and prefers_clean_frames(model, blocks)
    return "clean_frames" if is_clean else "reconstruction"


def observation_method(method: str | None, reconstruction_scale: float) -> ObservationMethod | None:
    """Return the method of a name."""
    if method == "reconstruction":
        return ReconstructionGuidance(reconstruction_scale)
    return {None: None, "clean_frames": CleanFrames(), "replacement": Replacement()}[method]


def _default_frames(task: str, given: int, every: int, block: BlockSize) -> int:
    """Return the default number of frames of a result, from that of the input."""
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
    """Return what is known of the videos from the input."""
    if task == "extend":
        return extension(model, video.frames, size.num_frames)
    if task == "interpolate":
        return interpolation(model, video.frames, every, size.num_frames)
    return super_resolution(model, video.frames, size.num_frames, size.height, size.width)
