"""Reading and writing the network of Wan as its authors and ComfyUI save it: one safetensors file, and nothing else."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from vdm.files import appearing
from vdm.models.dit.transformer import SpaceTimeTransformer
from vdm.models.pretrained import wan_names
from vdm.models.pretrained.diffusers_folder import cached_folder
from vdm.models.pretrained.published import Published
from vdm.models.pretrained.stored import StoredTensors, save_tensors
from vdm.models.pretrained.wan import FOLDER, network_config, network_options, with_components
from vdm.models.pretrained.wan_image import format_of
from vdm.ranges import Location, Size


def open_file(file: Path, components: Location, num_frames: Size | None = None) -> Published:
    """Open the network in one of the authors' files.

    Args:
        file: The file.
        components: Folder of a pipeline, or its name on the hub, that provides autoencoder, text encoder and scheduler.
        num_frames: Number of frames of a clip, which is not in the file. None for that of the pipeline.

    Raises:
        ValueError: If it is incomplete, not a safetensors file, or holds another model, or a component does not fit it.
    """
    if file.suffix != ".safetensors":
        raise ValueError(f"{file}: not a safetensors file; a pickle (.pth, .pt, .bin) can run code when it is read")
    folder = cached_folder(components)
    variant = format_of(folder, FOLDER).check_around(folder)
    weights, options = read_network([file], file)
    published = with_components(weights, options, file, folder, components, variant)
    if num_frames is None:
        return published
    clip = {**published.settings["clip"], "num_frames": num_frames}
    return replace(published, settings={**published.settings, "clip": clip})


def read_network(files: list[Path], source: Path) -> tuple[StoredTensors, dict[str, object]]:
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
    file: Path, network: SpaceTimeTransformer, weights: Mapping[str, Tensor], rest_of: Path | None = None
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
    network_config(network)  # refuses networks of another kind
    names = wan_names.wan_names(weights)
    if network.head_channels != wan_names.HEAD_CHANNELS:
        raise ValueError(
            f"model.network.head_channels={network.head_channels}: Wan's files are of networks with"
            f" {wan_names.HEAD_CHANNELS}; export to a folder"
        )
    with appearing(file) as partial:
        save_tensors({names[name]: tensor.contiguous() for name, tensor in weights.items()}, partial, {"format": "pt"})
