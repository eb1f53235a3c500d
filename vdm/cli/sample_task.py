"""What ``vdm sample`` is to make: videos of a size, from prompts alone or from another video too."""

import logging
from dataclasses import dataclass, replace

from vdm.assembly.model import VideoDiffusionModel
from vdm.checkpoints.run_config import RunConfig
from vdm.cli.options.sample import SampleOptions
from vdm.config import ConfigError
from vdm.diffusion.observations import CleanFrames, ObservationMethod, ReconstructionGuidance, Replacement
from vdm.generation.blocks import BlockSize
from vdm.generation.input_video import InputVideo, read_video
from vdm.generation.tasks import Known, extension, interpolation, super_resolution
from vdm.types import ClipSize

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """What the videos are to be."""

    size: ClipSize
    fps: float
    known: Known = Known()


def clip_size(options: SampleOptions, trained: RunConfig) -> ClipSize:
    """Return the size asked for, by default that of the clips in training."""
    told = {"num_frames": options.num_frames, "height": options.height, "width": options.width}
    return ClipSize(**{name: getattr(trained.clip, name) if size is None else size for name, size in told.items()})


def block_size(options: SampleOptions, trained: RunConfig, model: VideoDiffusionModel) -> BlockSize:
    """Return what is made at once: by default as many frames as in training, about half of them known from before.

    Raises:
        ValueError: If the autoencoder takes no clips of so many frames, or so many can't be known.
    """
    compression = model.encoder.compression
    num_frames = trained.clip.num_frames if options.block_frames is None else options.block_frames
    half = max(1, (num_frames // 2 - 1) // compression.frames * compression.frames + 1)
    overlap = half if options.overlap is None else options.overlap
    compression.latent_frames(num_frames, "block_frames")
    compression.latent_frames(overlap, "overlap")
    return BlockSize(num_frames, overlap)


def read_task(options: SampleOptions, trained: RunConfig, model: VideoDiffusionModel, block: BlockSize) -> Task:
    """Return what is to be made, and read the video that it is to be made of.

    Raises:
        ValueError: If the options don't go together, or the video can't be read or doesn't fit.
    """
    size, usual_fps = clip_size(options, trained), trained.clip.fps
    if options.task is None:
        return Task(size, usual_fps if options.fps is None else options.fps)
    assert options.input is not None, "options were checked together"
    every = options.every if options.task == "interpolate" else 1
    if every >= block.num_frames > 1:
        raise ConfigError(f"every={every}: must be below the {block.num_frames} frames of a block")
    frame_size = None if options.task == "superres" else (size.height, size.width)
    video = read_video(options.input, frame_size, options.input_fps, options.input_frames)
    if options.num_frames is None:
        size = replace(size, num_frames=_default_frames(options.task, video.frames.shape[1], every, block))
    fps = every * (video.fps or usual_fps)
    _compare_speed(fps, usual_fps, every)
    known = _known(options.task, model, video, size, every)
    return Task(size, fps if options.fps is None else options.fps, known)


def observation_method(options: SampleOptions) -> ObservationMethod:
    """Return how blocks are told what is known of their frames."""
    if options.method == "clean_frames":
        return CleanFrames()
    return Replacement() if options.method == "replacement" else ReconstructionGuidance(options.reconstruction_scale)


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
