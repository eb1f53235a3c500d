"""``vdm import``: makes a run from published weights, or from an export of ``vdm export``."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from vdm.assembly.build_model import build_recorded
from vdm.assembly.pretrained import configured, merged, open_published
from vdm.checkpoints.folder import write_folder
from vdm.checkpoints.layout import CONFIG_NAME, checkpoint_folder
from vdm.checkpoints.pieces import Piece
from vdm.checkpoints.run_config import RunConfig
from vdm.checkpoints.run_record import record_run
from vdm.checkpoints.snapshot import STATE, WEIGHTS, Snapshot
from vdm.cli.next_step import command, say_next
from vdm.cli.options.import_ import ImportOptions
from vdm.cli.options.paths import check_new
from vdm.config import ConfigError
from vdm.config.options import parse
from vdm.files import appearing
from vdm.models.pretrained.diffusers_folder import local_folder, pipeline_of
from vdm.models.pretrained.stored import StoredTensors, check_names
from vdm.outside import read_json

EXPORTED_WEIGHTS = "model.safetensors"
"""File of the weights in an export in this project's own format, beside the configuration."""


def run(config: DictConfig) -> None:
    """Write the run's folder."""
    plain: Any = OmegaConf.to_container(config, resolve=True)
    options = parse(ImportOptions, plain)
    to, source = options.to, Path(options.source)
    check_new(to, "to")
    if (source / CONFIG_NAME).is_file():
        run_config, weights = _own(source, options.allow_own_code)
    else:
        run_config, weights = _published(options)
    _write(to, run_config, weights)
    print(f"Wrote {len(weights)} weights to {to}")
    say_next(command("vdm sample", checkpoint=to), command("vdm train", data__path="SHARDS", init_from=to))


def _own(folder: Path, allow_own_code: bool) -> tuple[dict[str, Any], StoredTensors]:
    """Open an export of ``vdm export``, and check that its weights fit its configuration."""
    if not (folder / EXPORTED_WEIGHTS).is_file():
        raise ConfigError(
            f"from={folder}: not an export, which has a {EXPORTED_WEIGHTS}, but a run, which needs no import:"
            f" give it as checkpoint={folder}"
        )
    run, weights = RunConfig.read(folder, allow_own_code), StoredTensors.open([folder / EXPORTED_WEIGHTS])
    named = weights.renamed({name: name.removeprefix("model.") for name in weights})
    try:
        model = build_recorded(run, named.shapes)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"from={folder}: {error}") from None
    check_names(named, model, folder)
    return run.plain(), weights


def _published(options: ImportOptions) -> tuple[dict[str, Any], StoredTensors]:
    """Return the configuration of a run with published weights, and the weights."""
    name, components = options.source, options.components
    clip = {name: value for name, value in asdict(options.clip).items() if value is not None}
    if components is not None and not Path(name).is_file():
        raise ConfigError(f"components={components}: a pipeline's folder has its own")
    family = _family(options)
    published = open_published(family["model"], name, components, options.variant, options.clip.num_frames)
    config = merged(configured(family, published), published.of_import)
    wishes: dict[str, Any] = {"clip": {**clip, "label_names": []}}
    if options.guidance_scale is not None:
        scale = options.guidance_scale
        wishes |= {"guidance_scale": scale, "guidance": {"scale": scale}}
    weights = published.weights.renamed({name: f"model.network.{name}" for name in published.weights})
    return merged(config, wishes), weights


def _family(options: ImportOptions) -> dict[str, Any]:
    """Return the configuration of runs of the family to which the source belongs.

    A single file has the network alone; the folder of the other components tells the family.
    """
    name, families = options.source, options.families
    if Path(name).is_file():
        families = {pipeline: family for pipeline, family in families.items() if _reads_files(family)}
        if options.components is None:  # which ``open_published`` refuses
            return next(iter(families.values()))["run"]
    folder = local_folder(options.components or name, options.variant)
    pipeline = pipeline_of(folder)
    if pipeline not in families:
        raise ConfigError(f"{folder}: holds a {pipeline}, not a {' or '.join(families)}")
    for family in families.values():
        key = (family.get("also_reads") or {}).get(pipeline)
        if key is not None and read_json(folder / "model_index.json").get(key) is True:
            return family["run"]
    return families[pipeline]["run"]


def _reads_files(family: Mapping[str, Any]) -> bool:
    return family["run"]["model"]["readers"]["file"] is not None


def _write(run: Path, config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
    """Write a run with one checkpoint at step 0; the run is complete or absent."""
    pieces = {WEIGHTS: {name: Piece.whole(tensor) for name, tensor in weights.items()}, STATE: {}}

    def write(folder: Path) -> None:
        Snapshot(pieces, {}).write(folder)

    with appearing(run) as partial:
        write_folder(checkpoint_folder(partial, 0), write)
        record_run(partial, config)
