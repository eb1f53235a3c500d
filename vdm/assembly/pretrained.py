"""Published weights, opened as a configuration of this project and loaded into a model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vdm.assembly.model import VideoDiffusionModel
from vdm.config import ConfigError, build
from vdm.models.pretrained.diffusers_folder import local_folder
from vdm.models.pretrained.published import Published
from vdm.models.pretrained.stored import StoredTensors, check_names


def open_published(
    model: Mapping[str, Any],
    name: str,
    components: str | None = None,
    variant: str | None = None,
    num_frames: int | None = None,
) -> Published:
    """Open published weights.

    Args:
        model: Configuration of a model of the family, whose ``readers`` read the weights.
        name: Folder of a pipeline, its name on the hub, or a single file.
        components: With a single file: folder of a pipeline, or its name on the hub, for the components around the
            network.
        variant: Variant of the files in a pipeline's folder.
        num_frames: With a single file: frames of a clip in training, which the file does not contain.

    Raises:
        ValueError: In one line, if the weights are incomplete or belong to another model.
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
            " the other components"
        )
    if variant is not None:
        raise ValueError(f"variant={variant}: a single file has none")
    folder = local_folder(components)  # a mistake is found now, not when the run is first used
    return build(readers["file"], "model.readers.file")(Path(name), _place(components, folder), num_frames)


def open_pretrained(config: Mapping[str, Any]) -> Published | None:
    """Open the weights that ``model.pretrained`` names; None if it is null. An empty text is a missing value.

    Raises:
        ConfigError: In one line that names the key.
    """
    name = config["model"].get("pretrained")
    if name is None:
        return None
    if name == "":
        raise ConfigError("model.pretrained: no value given; add model.pretrained=FOLDER_OR_HUB_NAME")
    # A single file has no components around the network; the configuration says where they are.
    components = config["encoder"].get("name_or_path") if Path(name).is_file() else None
    try:
        return open_published(config["model"], name, components, config["model"]["variant"])
    except ValueError as error:
        raise ConfigError(f"model.pretrained: {error}") from None


def weights_of(published: Published, model: VideoDiffusionModel, name: str) -> StoredTensors:
    """Return published weights of a model's network, named as in a checkpoint; messages call them ``name``.

    Raises:
        ValueError: If they are not exactly those of the network; the message names the first difference.
    """
    check_names(published.weights, model.network, name)
    return published.weights.renamed({weight: f"model.network.{weight}" for weight in published.weights})


def configured(config: Mapping[str, Any], published: Published) -> dict[str, Any]:
    """Return a configuration with the settings of published weights: sizes, schedule, folders of further components."""
    return merged(config, published.settings)


def merged(config: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Merge ``changes`` into ``config``; a component with a ``_target_`` replaces the former one as a whole."""
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
