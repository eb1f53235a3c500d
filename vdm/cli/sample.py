"""``vdm sample``: makes videos from prompts, and from other videos, with a trained model."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from jaxtyping import UInt8
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from vdm.assembly.load import load_with_guide
from vdm.assembly.model import VideoDiffusionModel
from vdm.assembly.time_shift import said_shift, time_shifts
from vdm.checkpoints.latest import latest_checkpoint
from vdm.checkpoints.layout import folder_for_results, run_folder
from vdm.checkpoints.run_config import RunConfig
from vdm.cli.next_step import command, say_next
from vdm.cli.options.sample import SampleOptions
from vdm.cli.options.sampling import SamplingOptions
from vdm.cli.sample_folder import CallFiles, begin_call, make_output_folder, new_folder, results_in
from vdm.cli.sample_record import READ_FILES, guidance_in_effect, options_in_effect, record, what_was_read
from vdm.cli.sample_settings import Settings
from vdm.cli.sample_task import Task, method_in_effect, observation_method, read_task
from vdm.config import ConfigError, build
from vdm.config.options import parse
from vdm.diffusion.frame_levels import KnownFramesClean, trained_on_any_levels
from vdm.diffusion.samplers.base import OnStep
from vdm.diffusion.samplers.staggered import Staggered
from vdm.generation.canvas import known_latents
from vdm.generation.conditions import conditions, model_options, refuse_unless_first_frame
from vdm.generation.frame_blocks import Block, block_size, plan_blocks
from vdm.generation.generate import check_size, generate
from vdm.generation.known_frames import was_trained_on, with_pictures
from vdm.generation.requests import load_image, read_prompts
from vdm.generation.tasks import Known
from vdm.generation.video_files import write_grid, write_mp4
from vdm.models.conditioner import TakesKnownFrames
from vdm.models.experts import OneOnDevice, TwoExperts, move_but_experts
from vdm.prompts import Prompts
from vdm.types import ClipSize

_log = logging.getLogger(__name__)


def run(config: DictConfig) -> None:
    """Record the settings, write an mp4 of each video as soon as it is made, then a grid of all videos."""
    plain: Any = OmegaConf.to_container(config, resolve=True)
    options = parse(SampleOptions.completed(plain), plain)
    trained = RunConfig.read(options.checkpoint, options.allow_own_code)
    if options.model is not None:
        _check_network(options.model, trained)
    checkpoint = latest_checkpoint(options.checkpoint)
    model = load_for_sampling(checkpoint, options, trained)
    call = begin(options, trained, checkpoint, model)
    grid = call.make(progress=True)
    folder, number = call.files.settings.parent, len(call.files.videos)
    print(f"Wrote {number} videos to {folder}, all of them in {grid[0].name} and {grid[1].name}")
    say_next(
        command("vdm sample", settings=call.files.settings), command("vdm evaluate", checkpoint=options.checkpoint)
    )


@dataclass(frozen=True)
class SampleCall:
    """A call whose options were checked together, and whose settings are recorded; ``make`` makes its videos."""

    options: SampleOptions
    model: VideoDiffusionModel
    prompts: Prompts
    """One entry a video."""
    task: Task
    blocks: Sequence[Block]
    method: str | None
    files: CallFiles

    @property
    def num_steps(self) -> int | None:
        """Sampling steps of all blocks of all batches; None if that is not known in advance."""
        steps, batches = self.model.sampler.num_steps, math.ceil(len(self.prompts) / self.options.batch_size)
        return None if steps is None else batches * len(self.blocks) * steps

    def make(self, progress: bool = False, on_step: OnStep | None = None) -> tuple[Path, Path]:
        """Write an mp4 of each video as soon as it is made, then a grid of all videos.

        Args:
            progress: Show a progress bar on the terminal.
            on_step: See ``generate``.

        Returns:
            Paths of the grid's mp4 and png.
        """
        remaining = iter(zip(self.files.videos, self.prompts.captions, strict=True))

        def write(batch: UInt8[Tensor, "b c t h w"]) -> None:
            for video, (path, caption) in zip(batch, remaining, strict=False):  # the batch ends first
                write_mp4(path, video, self.task.fps, self.files.metadata(caption))

        videos = generate(
            self.model,
            self.prompts,
            self.task.size,
            self.options.seed,
            self.options.batch_size,
            self.options.negative,
            self.task.known,
            self.blocks,
            observation_method(self.method, self.options.reconstruction_scale),
            write,
            progress=progress,
            on_step=on_step,
        )
        folder, captions, metadata = self.files.settings.parent, self.prompts.captions, self.files.metadata("")
        return write_grid(folder, list(videos), self.task.fps, captions, self.files.grid, metadata)


def begin(
    options: SampleOptions, trained: RunConfig, checkpoint: Path, model: VideoDiffusionModel, parent: Path | None = None
) -> SampleCall:
    """Check the options of a call together, read its input, and record its settings.

    Args:
        options: Options of the command.
        trained: Configuration of the run.
        checkpoint: The checkpoint that the model was loaded from.
        model: The model with sampler and guidance, of which the conditioner's options are set.
        parent: Folder in which the call gets a new numbered one; None for what the options say.

    Raises:
        ValueError: In one line, if an option is wrong or contradicts another.
    """
    set_options(options, trained, model)
    compression = model.encoder.compression
    block = block_size(compression, trained.clip.num_frames, options.block_frames, options.overlap)
    is_new = parent is not None or options.output is None
    parent = parent or options.output or folder_of_calls(options)
    make_output_folder(parent)  # fails before sampling, not after
    task = read_task(options, trained, model, block)
    check_size(model, task.size)
    task = replace(task, known=_with_pictures(options, model, task))
    blocks = plan_blocks(task.size.num_frames, block, task.known.indices)
    method = method_in_effect(options, model, blocks)
    _warn_of_levels_not_seen(method, model, blocks)
    training, sampling = time_shifts(model, task.size)
    if training != sampling:
        print(f"Time shift: {said_shift(model, task.size)}")
    captions = read_prompts(options.prompts, None if options.prompts_file is None else str(options.prompts_file))
    prompts = _prompts(captions, options, trained, model, task.size)
    asked = options_in_effect(options, captions, checkpoint, trained, model, task, block, method)
    read = what_was_read(asked)
    if options.settings is not None:
        earlier = Settings.read_file(options.settings, options.allow_own_code)
        earlier.warn_of_others(options.settings, asked, read)
    if options.overwrite:
        _remove_results(parent, asked)
    content = record(asked, read, task.fps, model.device)
    files = begin_call(new_folder(parent) if is_new else parent, prompts.captions, content)
    return SampleCall(options, model, prompts, task, blocks, method, files)


def _remove_results(folder: Path, asked: Mapping[str, Any]) -> None:
    """Remove the files that earlier calls have made.

    Raises:
        ConfigError: If this call needs one of them.
    """
    results = results_in(folder)
    needed = {Path(asked[key]).resolve(): key for key in READ_FILES if asked[key] is not None}
    for path in results:
        if path.resolve() in needed:
            key = needed[path.resolve()]
            raise ConfigError(f"overwrite=true: would remove {key}={asked[key]}; choose another folder by output=")
    for path in results:
        path.unlink(missing_ok=True)


def folder_of_calls(options: SampleOptions) -> Path:
    """Return the parent of the calls' folders: in the run's folder, or in the current one with ``settings=``."""
    if options.settings is not None:
        return Path("samples")
    return folder_for_results(run_folder(options.checkpoint), "samples")


def _warn_of_levels_not_seen(method: str | None, model: VideoDiffusionModel, blocks: Sequence[Block]) -> None:
    """Warn of known frames, or of combinations of noise levels, that did not occur in training."""
    levels, sampler = model.diffusion.frame_levels, model.sampler
    if isinstance(sampler, Staggered) and sampler.delay > 0 and not trained_on_any_levels(levels):
        _log.warning(
            "sampler=staggered: the model was not trained with levels of frames (diffusion/frame_levels=independent)"
        )
    has_none = not all(block.known for block in blocks)
    if has_none and isinstance(levels, KnownFramesClean) and levels.probability == 1:
        _log.warning("The model was trained on clips with clean frames alone, and was given none: image=FILE")
    if has_none and isinstance(model.conditioner, TakesKnownFrames):
        _log.warning("The model makes videos from known frames, and was given none: image=FILE, or task=extend")
    new = [block for block in blocks if block.known and not was_trained_on(model, block)]
    if new and method == "clean_frames":
        _log.warning(
            "method=clean_frames: the model was not trained on clips of which these frames are clean, up to %d latent"
            " frames in a block (diffusion/frame_levels=known_frames and its frames, or independent for any)",
            max(len(known_latents(model, block)) for block in new),
        )
    if new and isinstance(model.conditioner, TakesKnownFrames):
        _log.warning(
            "The model was trained on other known frames (model.conditioner.frames) than the %d of a block here, which"
            " follow from overlap and from the given pictures and videos",
            max(len(block.known) for block in new),
        )


def load_for_sampling(checkpoint: Path, options: SamplingOptions, trained: RunConfig) -> VideoDiffusionModel:
    """Load a trained model with the chosen sampler, guidance and device.

    Args:
        checkpoint: Folder of a checkpoint that is known to be complete.
        options: Options of the command.
        trained: Configuration of the run, with the default guidance scale.
    """
    device = options.find_device()
    model = load_with_guide(trained, checkpoint, options.ema, options.guide, options.allow_own_code)
    choose(model, options, trained)
    if not options.offload_idle_expert:
        return model.to(device)
    networks = [part for part in model.modules() if isinstance(part, TwoExperts)]  # of an autoguidance model, too
    if not networks:
        raise ConfigError("offload_idle_expert=true: the network does not consist of two experts")
    move_but_experts(model, device)
    for network in networks:
        OneOnDevice(network)
    return model


def choose(model: VideoDiffusionModel, options: SamplingOptions, trained: RunConfig) -> None:
    """Set the model's sampler and guidance to those of the options."""
    model.sampler = build(options.sampler, "sampler")
    model.guidance = build(guidance_in_effect(options, trained), "guidance")


def _check_network(model: Mapping[str, Any], trained: RunConfig) -> None:
    """Refuse a run whose network differs from that of ``model=NAME``."""
    asked, found = model["network"]["_target_"], trained.parts["model"]["network"]["_target_"]
    if found != asked:
        raise ConfigError(f"model: the checkpoint's network is a {found}, not a {asked}")


def set_options(options: SampleOptions, trained: RunConfig, model: VideoDiffusionModel) -> None:
    """Set the options of the model's conditioner that the user has chosen; the others stay as in the run."""
    present = model.conditioner.options
    if present is not None:
        told = {field.name: getattr(options, field.name, None) for field in fields(present)}
        model.conditioner.options = model_options(present, told, trained.clip.fps)


def _with_pictures(options: SampleOptions, model: VideoDiffusionModel, task: Task) -> Known:
    """Return what is known of the videos, with the pictures that are no condition of the model."""
    size = task.size
    first, last = (
        None if path is None else load_image(path, size.height, size.width, name)
        for name, path in (("image", options.image), ("last_image", options.last_image))
    )
    if first is not None:
        refuse_unless_first_frame(model, f"image={options.image}")
    first = None if "image" in model.conditioner.takes else first
    return with_pictures(model, task.known, size.num_frames, first, last)


def _prompts(
    captions: Sequence[str] | None,
    options: SampleOptions,
    trained: RunConfig,
    model: VideoDiffusionModel,
    size: ClipSize,
) -> Prompts:
    """Return the prompts of all videos, ``num_videos`` for each caption."""
    image = None
    if options.image is not None and "image" in model.conditioner.takes:
        image = load_image(options.image, size.height, size.width)
    names = trained.clip.label_names
    return conditions(model, captions, options.labels, image, names, options.num_videos, options.seed)
