"""From published weights to a configuration of this project, and to a model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vdm.assembly.model import VideoDiffusionModel
from vdm.config import ConfigError, build
from vdm.models.pretrained.diffusers_folder import local_folder
from vdm.models.pretrained.published import Published
from vdm.models.pretrained.stored import load


def open_published(
    model: Mapping[str, Any],
    name: str,
    components: str | None = None,
    variant: str | None = None,
    num_frames: int | None = None,
) -> Published:
    """Open published weights.

    Args:
        model: Configuration of a model of their family, whose ``readers`` read them.
        name: A pipeline's folder, its name on the hub, or a single file.
        components: With a single file: folder of a pipeline, or its name on the hub, for the parts around the network.
        variant: Of the files in a pipeline's folder.
        num_frames: Frames that the network of a single file was trained for, which the file does not say.

    Raises:
        ValueError: In one line, if they are not whole, or of another model.
    """
    readers = model["readers"]
    if not Path(name).is_file():
        folder = local_folder(name, variant)
        return build(readers["folder"], "model.readers.folder")(folder, _place(name, folder), variant)
    if readers["file"] is None:
        raise ValueError(f"{name}: models of this family are opened as a pipeline's folder")
    if components is None:
        raise ValueError(
            f"components: {name} is opened for its network; give the folder of a pipeline, or its name on the hub, with"
            " autoencoder and image encoder"
        )
    if variant is not None:
        raise ValueError(f"variant={variant}: a single file has none")
    folder = local_folder(components)  # found out now, not when the run is first used
    return build(readers["file"], "model.readers.file")(Path(name), _place(components, folder), num_frames)


def open_pretrained(config: Mapping[str, Any]) -> Published | None:
    """Open the weights that ``model.pretrained`` names, if it does; the empty text asks for a name.

    Raises:
        ConfigError: In one line that names the key.
    """
    name = config["model"].get("pretrained")
    if name is None:
        return None
    if name == "":
        raise ConfigError("model.pretrained: no value given; add model.pretrained=FOLDER_OR_HUB_NAME")
    # A single file says nothing of the parts around it: they are where the configuration has them anyway.
    components = config["encoder"].get("name_or_path") if Path(name).is_file() else None
    try:
        return open_published(config["model"], name, components, config["model"]["variant"])
    except ValueError as error:
        raise ConfigError(f"model.pretrained: {error}") from None


def load_pretrained(published: Published, model: VideoDiffusionModel, name: str) -> None:
    """Copy published weights, called ``name`` in messages, into a model's network, one at a time."""
    load(published.weights, model.network, name)


def configured(config: Mapping[str, Any], published: Published) -> dict[str, Any]:
    """Return a configuration with what the published weights say: sizes, schedule, places of the parts around them."""
    return merged(config, published.settings)


def merged(config: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``config`` with ``changes`` at their keys; a component that has a ``_target_`` there is replaced whole."""
    result = dict(config)
    for name, new in changes.items():
        old = config.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping) and "_target_" not in new:
            result[name] = merged(old, new)
        else:
            result[name] = new
    return result


def _place(name: str, folder: Path) -> str:
    return str(folder.resolve()) if Path(name).is_dir() else name
