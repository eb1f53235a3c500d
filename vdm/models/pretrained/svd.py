"""Stable Video Diffusion as it is published: a pipeline's folder, or Stability's single file."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from vdm.models.pretrained import diffusers_folder, stability
from vdm.models.pretrained.diffusers_folder import PIPELINE, STEM, read_json, weight_files
from vdm.models.pretrained.stored import StoredTensors, check_names
from vdm.models.svd.unet import SVDUNet

_WEIGHTS_OF = {"vae": STEM, "image_encoder": "model"}
"""Components with weights, and the beginning of their files' names."""
_COMPONENTS = {
    "unet": ("diffusers", diffusers_folder.UNET),
    "vae": ("diffusers", "AutoencoderKLTemporalDecoder"),
    "image_encoder": ("transformers", "CLIPVisionModelWithProjection"),
    "feature_extractor": ("transformers", "CLIPImageProcessor"),
    "scheduler": ("diffusers", "EulerDiscreteScheduler"),
}
_SCHEDULER = {
    "_class_name": "EulerDiscreteScheduler",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "interpolation_type": "linear",
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
    "sigma_max": 700.0,
    "sigma_min": 0.002,
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "timestep_type": "continuous",
    "use_karras_sigmas": True,
}
"""As published with img2vid and img2vid-xt; for folders that come without one."""


@dataclass(frozen=True)
class PublishedSVD:
    """A published network and where the parts around it are.

    Args:
        network: Arguments of ``SVDUNet``.
        weights: Its weights, by our names.
        num_frames: Frames that it was trained for.
        components: Folder of a pipeline, or its name on the hub, with autoencoder and image encoder.
        variant: Of the components' files.
    """

    network: dict[str, Any]
    weights: StoredTensors
    num_frames: int
    components: str
    variant: str | None


def open_folder(folder: Path, name: str, variant: str | None = None) -> PublishedSVD:
    """Open a pipeline's folder as diffusers writes it.

    Args:
        folder: The folder.
        name: What the folder is to be called later: its path, or the name on the hub of which it is a copy.
        variant: As in the files' names, e.g. ``fp16``.

    Raises:
        ValueError: If it is another pipeline's, something is missing, or the weights are not those of the network that
            its configuration describes.
    """
    index = read_json(folder / "model_index.json")
    if index.get("_class_name") != PIPELINE:
        raise ValueError(f"{folder}: holds a {index.get('_class_name', 'pipeline of unknown kind')}, not a {PIPELINE}")
    for component in _COMPONENTS:
        if component != "scheduler" and not (folder / component).is_dir():
            raise ValueError(f"{folder}: the component {component} is missing")
    config_file = folder / "unet" / "config.json"
    config = read_json(config_file)
    options = diffusers_folder.network_options(config, config_file)
    weights = StoredTensors.open(weight_files(folder / "unet", variant))
    check_names(weights, _on_meta(options), folder / "unet")
    return PublishedSVD(options, weights, config.get("num_frames", 14), name, variant)


def open_file(file: Path, components: str, num_frames: int | None = None) -> PublishedSVD:
    """Open one of Stability's single files.

    Args:
        file: The file.
        components: Folder of a pipeline, or its name on the hub, from which autoencoder and image encoder are taken.
        num_frames: Frames that the network was trained for, which the file does not say; by default 25 if its name
            has "xt" in it, and 14 if not, as published.

    Raises:
        ValueError: If it is not whole, not a safetensors file, or of another model.
    """
    if file.suffix != ".safetensors":
        raise ValueError(f"{file}: not a safetensors file; a pickle (.ckpt, .bin) can run code when it is read")
    stored = StoredTensors.open([file])
    try:
        options = stability.network_options(stored.shapes)
        network = _on_meta(options)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    ours = {there: here for here, there in stability.stability_names(network).items()}
    # A weight that ours has no name for keeps its own, and is reported by it.
    names = {name: ours.get(name, name) for name in stored if name.startswith(stability.PREFIX)}
    weights = stored.renamed(names)
    check_names(weights, network, file)
    return PublishedSVD(options, weights, num_frames or (25 if "xt" in file.stem else 14), components, None)


def write_file(file: Path, network: SVDUNet, weights: Mapping[str, Tensor], rest_of: Path | None = None) -> None:
    """Write one of Stability's single files.

    Args:
        file: The file.
        network: The network, possibly on the meta device.
        weights: Its weights.
        rest_of: Such a file, from which all that is not the network's is taken over: autoencoder and image encoder.

    Raises:
        ValueError: If ``rest_of`` can't be read.
    """
    names = stability.stability_names(network)
    rest = StoredTensors.open([rest_of] if rest_of else [])
    kept = {name: rest[name] for name in rest if not name.startswith(stability.PREFIX)}
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.partial")
    save_file({**kept, **{names[name]: weights[name].contiguous() for name in names}}, partial, {"format": "pt"})
    partial.replace(file)


def write_folder(
    folder: Path,
    network: SVDUNet,
    weights: Mapping[str, Tensor],
    num_frames: int,
    components: Path,
    variant: str | None,
) -> None:
    """Write what ``diffusers.StableVideoDiffusionPipeline.from_pretrained`` opens.

    Args:
        folder: An empty folder.
        network: The network, possibly on the meta device.
        weights: Its weights.
        num_frames: Frames that it was trained for.
        components: Folder of the pipeline from which the other components are taken.
        variant: Of their files; here they get the usual names.

    Raises:
        ValueError: If a component is missing there.
    """
    for name in ("vae", "image_encoder", "feature_extractor"):
        if not (components / name).is_dir():
            raise ValueError(f"{components}: the component {name} is missing")
        _copy_component(components / name, folder / name, _WEIGHTS_OF.get(name), variant)
    scheduler = components / "scheduler" / "scheduler_config.json"
    _write_json(folder / "scheduler" / scheduler.name, read_json(scheduler) if scheduler.is_file() else _SCHEDULER)
    sample_size = None
    if (components / "unet" / "config.json").is_file():
        sample_size = read_json(components / "unet" / "config.json").get("sample_size")
    config = diffusers_folder.network_config(network, num_frames, sample_size)
    _write_json(folder / "unet" / "config.json", config)
    tensors = {name: tensor.contiguous() for name, tensor in weights.items()}
    save_file(tensors, folder / "unet" / f"{STEM}.safetensors", {"format": "pt"})
    _write_json(folder / "model_index.json", {"_class_name": PIPELINE, **{k: list(v) for k, v in _COMPONENTS.items()}})
    for licence in sorted(
        path for path in components.iterdir() if path.name.upper().startswith(("LICENSE", "LICENCE"))
    ):
        shutil.copyfile(licence, folder / licence.name)


def local_folder(name_or_path: str, variant: str | None = None) -> Path:
    """Return a folder on this machine: the one of this path, or a copy of what the hub has under this name.

    Raises:
        ValueError: If there is neither.
    """
    if Path(name_or_path).is_dir():
        return Path(name_or_path)
    if name_or_path.count("/") != 1 or name_or_path.startswith((".", "/")):
        raise ValueError(f"{name_or_path}: no such folder or file, nor a name on the hub, which is OWNER/MODEL")
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise ValueError(f"{name_or_path}: needs huggingface_hub; install the extra 'pretrained'") from None
    weights = [f"*.{variant}.safetensors", f"*.{variant}-*.safetensors"] if variant else ["*.safetensors"]
    patterns = [f"*/{pattern}" for pattern in weights]  # those at the top are Stability's single files
    try:
        return Path(snapshot_download(name_or_path, allow_patterns=["*.json", "LICENSE*", "README.md", *patterns]))
    except Exception as error:  # of many kinds: no connection, no such name, no access
        raise ValueError(f"{name_or_path}: can't be had from the hub: {' '.join(str(error).split())[:300]}") from None


def _on_meta(options: Mapping[str, Any]) -> SVDUNet:
    with torch.device("meta"):
        return SVDUNet(**options)


def _copy_component(source: Path, target: Path, stem: str | None, variant: str | None) -> None:
    """Copy a component: its JSON files, and its weights under the names that they have without a variant."""
    target.mkdir()
    for path in sorted(source.glob("*.json")):
        if ".index." not in path.name:
            shutil.copyfile(path, target / path.name)
    if stem is None:
        return
    files = weight_files(source, variant, stem)
    if len(files) == 1:
        shutil.copyfile(files[0], target / f"{stem}.safetensors")
        return
    for path in files:
        shutil.copyfile(path, target / path.name)
    tensors = StoredTensors.open(files)
    weight_map = {name: tensors.file(name).name for name in tensors}
    _write_json(target / f"{stem}.safetensors.index.json", {"metadata": {}, "weight_map": weight_map})


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
