"""``vdm import``: makes a run of weights that others, or ``vdm export``, have published."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from vdm.checkpoints.folder import write_folder
from vdm.checkpoints.pieces import Piece
from vdm.checkpoints.runs import CONFIG_NAME, checkpoint_folder, load_config, record_run
from vdm.checkpoints.snapshot import STATE, WEIGHTS, Snapshot
from vdm.config import ConfigError
from vdm.models.pretrained.stored import StoredTensors
from vdm.models.pretrained.svd import PublishedSVD, local_folder, open_file, open_folder

EXPORTED_WEIGHTS = "model.safetensors"
"""In a folder of this project's own format, beside the configuration."""

_OWN_KEYS = ("from", "to", "variant", "components")


def run(config: DictConfig) -> None:
    """Write the run's folder."""
    options: Any = OmegaConf.to_container(config)
    to = Path(options["to"])
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise ConfigError(f"to={to}: exists already")
    source = Path(options["from"])
    if (source / CONFIG_NAME).is_file():
        run_config, weights = _own(source)
    else:
        published = _published(options)
        run_config = _config_of_run(options, published)
        weights = published.weights.renamed({name: f"model.network.{name}" for name in published.weights})
    _write(to, run_config, weights)
    print(f"Wrote {len(weights)} weights to {to}. Try them with: vdm sample checkpoint={to}")


def _own(folder: Path) -> tuple[dict[str, Any], StoredTensors]:
    """Open what ``vdm export`` wrote."""
    if not (folder / EXPORTED_WEIGHTS).is_file():
        raise ConfigError(f"from={folder}: a run's folder needs no import, and an export has a {EXPORTED_WEIGHTS}")
    return load_config(folder), StoredTensors.open([folder / EXPORTED_WEIGHTS])


def _published(options: Mapping[str, Any]) -> PublishedSVD:
    name, variant, components = options["from"], options["variant"], options["components"]
    if Path(name).is_file():
        if components is None:
            raise ConfigError(
                f"components: {name} is opened for its network; give the folder of a pipeline, or its name on the hub,"
                " with autoencoder and image encoder"
            )
        if variant is not None:
            raise ConfigError(f"variant={variant}: a single file has none")
        # Found out now, not when the run is first used.
        folder = local_folder(components)
        place = str(folder.resolve()) if Path(components).is_dir() else components
        return open_file(Path(name), place, options["clip"]["num_frames"])
    if components is not None:
        raise ConfigError(f"components={components}: a pipeline's folder has its own")
    folder = local_folder(name, variant)
    return open_folder(folder, str(folder.resolve()) if Path(name).is_dir() else name, variant)


def _config_of_run(options: Mapping[str, Any], published: PublishedSVD) -> dict[str, Any]:
    """Return the configuration with the network's sizes, and with the places of the parts around it."""
    config = {name: value for name, value in options.items() if name not in _OWN_KEYS}
    places = {"name_or_path": published.components, "variant": published.variant}
    conditioner = config["model"]["conditioner"]
    conditioner = {**conditioner, "image_encoder": {**conditioner["image_encoder"], **places}}
    network = {**config["model"]["network"], **published.network}
    num_frames = config["clip"]["num_frames"] or published.num_frames
    return {
        **config,
        "encoder": {**config["encoder"], **places},
        "model": {**config["model"], "network": network, "conditioner": conditioner},
        "clip": {**config["clip"], "num_frames": num_frames, "label_names": []},
    }


def _write(run: Path, config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
    """Write a run with one checkpoint, after no steps; its configuration comes last, so that it is whole or no run."""
    pieces = {WEIGHTS: {name: Piece.whole(tensor) for name, tensor in weights.items()}, STATE: {}}

    def write(folder: Path) -> None:
        Snapshot(pieces, {}).write(folder)

    write_folder(checkpoint_folder(run, 0), write)
    record_run(run, config)
