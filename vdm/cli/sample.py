"""``vdm sample``: videos from prompts, and from other videos, with a trained model."""

import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from jaxtyping import UInt8
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from tqdm import tqdm

from vdm.assembly.load import load_guide, load_recorded
from vdm.assembly.model import VideoDiffusionModel
from vdm.checkpoints.run_config import RunConfig
from vdm.checkpoints.runs import folder_for_results, run_folder
from vdm.cli.options.sample import SampleOptions
from vdm.cli.options.sampling import SamplingOptions
from vdm.cli.sample_task import observation_method, read_task
from vdm.config import ConfigError, build
from vdm.config.options import parse
from vdm.diffusion.frame_levels import trained_on_any_levels, trained_on_clean_frames
from vdm.diffusion.samplers.staggered import Staggered
from vdm.generation.blocks import Block, block_size, plan_blocks
from vdm.generation.canvas import known_latents
from vdm.generation.conditions import conditions, model_options, refuse_unless_taken
from vdm.generation.generate import check_size, count_steps, generate
from vdm.generation.requests import load_image, read_prompts
from vdm.generation.video_files import file_name, write_grid, write_mp4
from vdm.prompts import Prompts
from vdm.types import ClipSize

_log = logging.getLogger(__name__)


def run(config: DictConfig) -> None:
    """Write an mp4 for each video as soon as it is made, then ``grid.mp4`` and ``grid.png``."""
    plain: Any = OmegaConf.to_container(config, resolve=True)
    options = parse(SampleOptions.completed(plain), plain)
    checkpoint = options.checkpoint
    trained = RunConfig.read(checkpoint, options.allow_own_code)
    if options.model is not None:
        _check_network(options.model, trained)
    model = load_for_sampling(checkpoint, options, trained)
    _set_options(options, trained, model)

    folder = options.output or _default_folder(checkpoint, options.task)
    make_output_folder(folder)  # before anything is made that it could not take
    compression = model.encoder.compression
    block = block_size(compression, trained.clip.num_frames, options.block_frames, options.overlap)
    task = read_task(options, trained, model, block)
    check_size(model, task.size)
    blocks = plan_blocks(task.size.num_frames, block, task.known.indices)
    _warn_of_levels_not_seen(options, model, blocks)
    prompts = _prompts(options, trained, model, task.size)
    paths = (folder / file_name(index, caption) for index, caption in enumerate(prompts.captions))

    def write(batch: UInt8[Tensor, "b c t h w"]) -> None:
        for video, path in zip(batch, paths, strict=False):  # the batch is through first
            write_mp4(path, video, task.fps)

    total = count_steps(model, len(prompts), options.batch_size, len(blocks))
    with tqdm(total=total, desc="sampling", unit="step") as bar:
        videos = generate(
            model,
            prompts,
            task.size,
            options.seed,
            options.batch_size,
            options.negative,
            bar.update,
            task.known,
            blocks,
            observation_method(options),
            write,
        )
    mp4, png = write_grid(folder, list(videos), task.fps, prompts.captions)
    print(f"Wrote {len(videos)} videos to {folder}, all of them in {mp4} and {png}")


def _warn_of_levels_not_seen(options: SampleOptions, model: VideoDiffusionModel, blocks: Sequence[Block]) -> None:
    """Say where frames will have noise levels together that they never had in training."""
    levels, sampler = model.diffusion.frame_levels, model.sampler
    if isinstance(sampler, Staggered) and sampler.delay > 0 and not trained_on_any_levels(levels):
        _log.warning(
            "sampler=staggered: the model was not trained with levels of frames (diffusion/frame_levels=independent)"
        )
    if options.method != "clean_frames":
        return
    given = [known_latents(model, block) for block in blocks if block.known]
    if not all(trained_on_clean_frames(levels, clean) for clean in given):
        _log.warning(
            "method=clean_frames: the model was not trained on clips of which so many frames are clean, up to %d latent"
            " frames in a block (diffusion/frame_levels=clean_prefix and its max_frames for first frames, independent"
            " for any)",
            max(map(len, given)),
        )


def make_output_folder(folder: Path) -> None:
    """Make a folder for results, if it is not there.

    Raises:
        ConfigError: If nothing can be written into it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(f"output={folder}: can't be written to: {error.strerror}") from None


def _default_folder(checkpoint: Path, task: str | None) -> Path:
    return folder_for_results(run_folder(checkpoint), "samples", task or "prompts")


def load_for_sampling(checkpoint: Path, options: SamplingOptions, trained: RunConfig) -> VideoDiffusionModel:
    """Return a trained model with the sampler and guidance asked for, on the device asked for.

    Args:
        checkpoint: Folder of a run or of a checkpoint.
        options: What the command was told.
        trained: Configuration of the run, whose guidance scale holds where none is given.
    """
    device = options.find_device()
    guidance = dict(options.guidance)
    if guidance.get("scale", 0) is None:
        guidance["scale"] = trained.guidance_scale
    model = load_recorded(trained, checkpoint, options.ema)
    model.sampler = build(options.sampler, "sampler")
    model.guidance = build(guidance, "guidance")
    if options.guide is not None:
        model.guide = load_guide(model, options.guide, options.ema, options.allow_own_code)
    # Reconstruction guidance runs gradients back to the latents; those of weights would cost memory.
    return model.requires_grad_(False).to(device)


def _check_network(model: Mapping[str, Any], trained: RunConfig) -> None:
    """Refuse a run whose network is another than that of ``model=NAME``."""
    asked, found = model["network"]["_target_"], trained.parts["model"]["network"]["_target_"]
    if found != asked:
        raise ConfigError(f"model: the checkpoint's network is a {found}, not a {asked}")


def _set_options(options: SampleOptions, trained: RunConfig, model: VideoDiffusionModel) -> None:
    """Tell the model's conditioner the numbers asked for; the others stay as in the run, but for the clips' speed."""
    present = model.conditioner.options
    if present is not None:
        told = {field.name: getattr(options, field.name, None) for field in fields(present)}
        model.conditioner.options = model_options(present, told, trained.clip.fps)


def _prompts(options: SampleOptions, trained: RunConfig, model: VideoDiffusionModel, size: ClipSize) -> Prompts:
    """Return what to make videos of, ``num_videos`` for each prompt."""
    captions = read_prompts(options.prompts, None if options.prompts_file is None else str(options.prompts_file))
    image = None
    if options.image is not None:
        refuse_unless_taken(model, "image", f"image={options.image}")
        image = load_image(options.image, size.height, size.width)
    names = trained.clip.label_names
    return conditions(model, captions, options.labels, image, names, options.num_videos, options.seed)
