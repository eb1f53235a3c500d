"""``vdm sample``: videos from prompts with a trained model."""

from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from vdm.checkpoints.runs import load_config, run_folder
from vdm.config import ConfigError, build
from vdm.generation.build import load_model
from vdm.generation.generate import ClipSize, generate
from vdm.generation.model import VideoDiffusionModel
from vdm.generation.requests import load_image, read_prompts, resolve_labels
from vdm.generation.video_files import file_name, write_grid, write_mp4
from vdm.types import Prompts


def run(config: DictConfig) -> None:
    """Write an mp4 for each video, ``grid.mp4`` and ``grid.png``."""
    options: Any = OmegaConf.to_container(config)
    checkpoint = Path(options["checkpoint"])
    trained = load_config(checkpoint)
    model = load_for_sampling(checkpoint, options, trained)

    size = clip_size(options, trained)
    prompts = _prompts(options, trained, model, size)
    num_batches = -(-len(prompts) // options["batch_size"])
    with tqdm(total=num_batches * model.sampler.num_steps, desc="sampling", unit="step") as bar:
        videos = generate(
            model,
            prompts,
            size,
            options["seed"],
            options["batch_size"],
            options["negative"],
            bar.update,
        )

    folder = Path(options["output"]) if options["output"] else run_folder(checkpoint) / "samples" / "prompts"
    folder.mkdir(parents=True, exist_ok=True)
    fps = options["fps"] or trained["clip"]["fps"]
    for index, (video, caption) in enumerate(zip(videos, prompts.captions, strict=True)):
        write_mp4(folder / file_name(index, caption), video, fps)
    mp4, png = write_grid(folder, list(videos), fps)
    print(f"Wrote {len(videos)} videos to {folder}, all of them in {mp4} and {png}")


def load_for_sampling(checkpoint: Path, options: dict[str, Any], trained: dict[str, Any]) -> VideoDiffusionModel:
    """Return a trained model with the sampler and guidance asked for, on the device asked for.

    Args:
        checkpoint: Folder of a run or of a checkpoint.
        options: Configuration with ``sampler``, ``guidance``, ``ema``, ``device`` and ``allow_own_code``.
        trained: Configuration of the run, whose guidance scale holds where none is given.
    """
    guidance = dict(options["guidance"])
    if guidance.get("scale", 0) is None:
        guidance["scale"] = trained["guidance_scale"]
    model = load_model(checkpoint, options["ema"], options["allow_own_code"])
    model.sampler = build(options["sampler"], "sampler")
    model.guidance = build(guidance, "guidance")
    return model.to(device_of(options["device"]))


def device_of(name: str) -> torch.device:
    """Return the device called ``name``; ``auto`` is the first accelerator, or else the CPU.

    Raises:
        ConfigError: If there is no such device.
    """
    if name == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        torch.empty(0, device=name)
        return torch.device(name)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device={name}: {str(error).splitlines()[0]}") from error


def clip_size(options: dict[str, Any], trained: dict[str, Any]) -> ClipSize:
    """Return the size asked for, by default that of the clips in training."""
    names = ("num_frames", "height", "width")
    sizes = {name: trained["clip"][name] if options[name] is None else options[name] for name in names}
    for name, value in sizes.items():
        if not isinstance(value, int) or value < 1:
            raise ConfigError(f"{name}={value}: must be a whole number, at least 1")
    return ClipSize(**sizes)


def _prompts(options: dict[str, Any], trained: dict[str, Any], model: VideoDiffusionModel, size: ClipSize) -> Prompts:
    """Return what to make videos of, ``num_videos`` for each prompt."""
    captions = read_prompts(options["prompts"], options["prompts_file"])
    labels = resolve_labels(options["labels"], trained["clip"]["label_names"], model.conditioner.num_classes)
    if captions is None:
        captions = [""] * (len(labels) if labels else 1)
    if labels is not None and len(labels) == 1:
        labels = labels * len(captions)
    if labels is not None and len(labels) != len(captions):
        raise ConfigError(f"labels={options['labels']}: {len(labels)} labels for {len(captions)} prompts")
    if any(captions) and model.conditioner.text_encoder is None:
        raise ConfigError("prompts: the model was trained without text (text_encoder=none)")
    repeats = options["num_videos"]
    if not isinstance(repeats, int) or repeats < 1:
        raise ConfigError(f"num_videos={repeats}: must be a whole number, at least 1")
    image = None
    if options["image"] is not None:
        if not model.conditioner.uses_image:
            raise ConfigError(f"image={options['image']}: the model was trained without first frames (image=false)")
        image = load_image(Path(options["image"]), size.height, size.width)
        image = image.expand(len(captions) * repeats, -1, -1, -1)
    captions = [caption for caption in captions for _ in range(repeats)]
    labels = None if labels is None else [label for label in labels for _ in range(repeats)]
    return model.prompts(captions, labels, image)
