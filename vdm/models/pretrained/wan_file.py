"""Reading and writing Wan as its authors and ComfyUI save it.

A folder of the authors holds the network as one safetensors file or several, autoencoder and text encoder as ``.pth``
files, and the tokenizer. ComfyUI has the network alone, in one file.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from vdm.files import appearing
from vdm.models.dit.transformer import SpaceTimeTransformer
from vdm.models.experts import TwoExperts
from vdm.models.pickled_tensors import pickled_tensors
from vdm.models.pretrained import flow_schedulers, wan, wan_names
from vdm.models.pretrained.diffusers_folder import AUTHORS_TEXT_ENCODER, cached_folder, is_of_authors, weight_files
from vdm.models.pretrained.published import Published
from vdm.models.pretrained.stored import StoredTensors, save_tensors
from vdm.models.pretrained.wan_format import FOLDER, network_config, network_options
from vdm.models.pretrained.wan_image import format_of
from vdm.models.wan_autoencoder_file import autoencoder_options
from vdm.models.wan_text_encoder_file import text_encoder_options
from vdm.ranges import Location, Name, Size

_AUTOENCODERS = {16: "Wan2.1_VAE.pth", 48: "Wan2.2_VAE.pth"}
"""File of the autoencoder, by its number of channels."""
_TOKENIZER = "google/umt5-xxl"
_SHIFT = 5.0
"""Time shift in the authors' code for text to video of Wan 2.1, and for TI2V-5B; their folders name none."""


def open_folder(folder: Path, name: Location, variant: Name | None = None) -> Published:
    """Open a folder of Wan's authors, or a pipeline's folder as diffusers writes it; see ``wan.open_folder``.

    Raises:
        ValueError: If it holds another model, a file is missing, or components don't fit each other.
    """
    if not is_of_authors(folder):
        return wan.open_folder(folder, name, variant)
    weights, options = read_network(weight_files(folder, variant), folder)
    return _with_authors_components(weights, options, folder, folder, name)


def open_file(file: Path, components: Location, num_frames: Size | None = None) -> Published:
    """Open the network in one of the authors' files.

    Args:
        file: The file.
        components: Folder of a pipeline, its name on the hub, or a folder of the authors, that provides autoencoder,
            text encoder and scheduler.
        num_frames: Number of frames of a clip, which is not in the file. None for that of the pipeline.

    Raises:
        ValueError: If it is incomplete, not a safetensors file, or holds another model, or a component does not fit it.
    """
    if file.suffix != ".safetensors":
        raise ValueError(f"{file}: not a safetensors file; a pickle (.pth, .pt, .bin) can run code when it is read")
    folder = cached_folder(components)
    variant = None if is_of_authors(folder) else format_of(folder, FOLDER).check_around(folder)
    weights, options = read_network([file], file)
    if is_of_authors(folder):
        published = _with_authors_components(weights, options, file, folder, components)
    else:
        published = wan.with_components(weights, options, file, folder, components, variant)
    if num_frames is None:
        return published
    clip = {**published.settings["clip"], "num_frames": num_frames}
    return replace(published, settings={**published.settings, "clip": clip})


def _with_authors_components(
    weights: StoredTensors, options: Mapping[str, Any], source: Path, folder: Path, name: Location
) -> Published:
    """Return a network and the settings of a run with autoencoder and text encoder of the authors' folder."""
    channels = options["in_channels"]
    if options.get("image_channels"):
        raise ValueError(f"{source}: image to video: give the pipeline's folder as diffusers saves it")
    if channels not in _AUTOENCODERS:
        raise ValueError(f"{source}: has latents of {channels} channels, and Wan's autoencoders have 16 or 48")
    autoencoder, text_encoder = folder / _AUTOENCODERS[channels], folder / AUTHORS_TEXT_ENCODER
    if not (folder / _TOKENIZER).is_dir():
        raise ValueError(f"{folder / _TOKENIZER}: no such folder: the tokenizer")
    for file, sizes, size, wanted in (
        (autoencoder, autoencoder_options, "z_dim", channels),
        (text_encoder, text_encoder_options, "d_model", options["text_channels"]),
    ):
        try:
            found = sizes(pickled_tensors(file))[size]
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from None
        if found != wanted:
            raise ValueError(f"{file}: {size} is {found}, but the network needs {wanted}")
    places = {"name_or_path": name, "variant": None}
    settings = {
        **flow_schedulers.settings({**wan.SCHEDULER, "flow_shift": _SHIFT}, folder),
        "clip": wan.FIRST_FRAME_CLIP if channels == 48 else {},
    }
    return wan.published(
        weights,
        options,
        source,
        {**places, "subfolder": autoencoder.name},
        {**places, "subfolder": text_encoder.name, "tokenizer": _TOKENIZER},
        settings,
        {},
        wan.FIRST_FRAME_CLEAN if channels == 48 else {},
    )


def read_network(files: list[Path], source: Path) -> tuple[StoredTensors, dict[str, Any]]:
    """Return the weights in the authors' files by the names of this project, and the arguments that make the network.

    Args:
        files: The file, or all its shards.
        source: The file, or their folder, for messages.

    Raises:
        ValueError: If they are not whole safetensors files, or hold another model.
    """
    stored = StoredTensors.open(files)
    try:
        config, names = wan_names.network_config(stored.shapes), wan_names.our_names(stored)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None
    return stored.renamed(names), network_options(config, source)


def write_file(
    file: Path, network: SpaceTimeTransformer | TwoExperts, weights: Mapping[str, Tensor], rest_of: Path | None = None
) -> None:
    """Write the network as a file of the authors, which ComfyUI reads too.

    Args:
        file: The file.
        network: The network, possibly on the meta device.
        weights: Its weights.
        rest_of: Not allowed: these files hold nothing else.

    Raises:
        ValueError: If Wan has no such network.
    """
    if rest_of is not None:
        raise ValueError(f"rest_of={rest_of}: Wan's files hold the network alone")
    if isinstance(network, TwoExperts):
        raise ValueError(
            f"to={file}: the network consists of two experts, and Wan's files hold one: export to a folder"
        )
    network_config(network)  # refuses networks of another kind
    names = wan_names.wan_names(weights)
    if network.head_channels != wan_names.HEAD_CHANNELS:
        raise ValueError(
            f"model.network.head_channels={network.head_channels}: Wan's files are of networks with"
            f" {wan_names.HEAD_CHANNELS}; export to a folder"
        )
    with appearing(file) as partial:
        save_tensors({names[name]: tensor.contiguous() for name, tensor in weights.items()}, partial, {"format": "pt"})
