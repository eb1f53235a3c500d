"""``vdm export``: writes a run's weights for other software, or in this project's own format."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from vdm.checkpoints.latest import latest_checkpoint
from vdm.checkpoints.run_config import OWN_MODULES, RunConfig
from vdm.checkpoints.run_record import write_config
from vdm.checkpoints.weights import load_weights, saved_weights
from vdm.cli.export_card import facts_of, write_card
from vdm.cli.export_lora import of_network, write_lora
from vdm.cli.export_usage import of_file, of_own, of_pipeline
from vdm.cli.import_ import EXPORTED_WEIGHTS
from vdm.cli.options.export import ExportOptions
from vdm.cli.options.paths import check_new
from vdm.config import ConfigError, build
from vdm.config.foreign import check_foreign
from vdm.config.options import parse
from vdm.credentials import without_credentials
from vdm.files import appearing
from vdm.models.experts import HIGH
from vdm.models.lora import is_alpha
from vdm.models.pretrained.diffusers_folder import cached_folder, local_folder, pipeline_of, readme_of
from vdm.models.pretrained.model_card import licence_keys
from vdm.models.pretrained.stored import save_tensors

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def run(config: DictConfig) -> None:
    """Write the folder or file."""
    plain: Any = OmegaConf.to_container(config, resolve=True)
    options = parse(ExportOptions, plain)
    to, checkpoint = options.to, latest_checkpoint(options.checkpoint)
    check_new(to, "to")
    trained = RunConfig.read(checkpoint, allow_own_code=True)  # components are checked before they are built
    family = _family(trained, options)
    if options.lora:
        weights = of_network(_cast(saved_weights(checkpoint, options.ema), options), options, family)
        usage = _whole(to, lambda folder: _lora(folder, checkpoint, trained, weights, options, family))
    elif to.suffix == ".safetensors":
        if family is None or family["writers"]["file"] is None:
            raise ConfigError(f"to={to}: only Stable Video Diffusion and Wan have files of this kind; give a folder")
        weights = _of_network(_weights(checkpoint, options))
        write_file = build(family["writers"]["file"], "writers.file")
        write_file(to, _network(trained), weights, options.rest_of)
        usage = of_file(to, trained)
    else:
        weights = _weights(checkpoint, options)
        if family is None:
            usage = _whole(to, lambda folder: _own(folder, checkpoint, trained, weights, options))
        else:
            usage = _whole(to, lambda folder: _diffusers(folder, checkpoint, trained, weights, options, family))
    print(f"Wrote {len(weights)} weights to {to}. Use them by:\n\n{usage}")


def _family(trained: RunConfig, options: ExportOptions) -> dict[str, Any] | None:
    """Return the published family whose format is written; None for this project's own format."""
    network, wanted = trained.parts["model"]["network"], options.format
    target = str(network.get(HIGH, network).get("_target_"))  # of two experts, each is such a network
    families = {name: f for name, f in options.families.items() if f["run"]["model"]["network"]["_target_"] == target}
    has_parts = (options.components or trained.parts["encoder"].get("name_or_path")) is not None
    if wanted == "diffusers" and not families:
        raise ConfigError(f"format=diffusers: diffusers has no {target.rpartition('.')[2]}")
    is_file = options.to.suffix == ".safetensors"
    if not families or wanted == "own" or (wanted is None and not has_parts and not is_file):
        return None
    conditioner = trained.parts["model"]["conditioner"].get("_target_")
    fitting = [name for name, f in families.items() if f["run"]["model"]["conditioner"]["_target_"] == conditioner]
    pipeline = next(iter([*fitting, *families]))
    family = families[pipeline]
    return {**family, "pipeline": pipeline}


def _weights(checkpoint: Path, options: ExportOptions) -> dict[str, Tensor]:
    return _cast(load_weights(checkpoint, options.ema), options)


def _told(trained: RunConfig) -> dict[str, Any]:
    """Return the settings of the run that a family's writer needs, as checked plain values."""
    diffusion = trained.parts["diffusion"]
    for name in ("schedule", "parameterization"):
        check_foreign(diffusion.get(name), f"diffusion.{name}", OWN_MODULES)
    return {"diffusion": diffusion, "clip": asdict(trained.clip)}


def _cast(weights: dict[str, Tensor], options: ExportOptions) -> dict[str, Tensor]:
    if options.dtype is None:
        return weights
    dtype = DTYPES[options.dtype]
    return {name: w.to(dtype) if w.is_floating_point() and not is_alpha(name) else w for name, w in weights.items()}


def _network(trained: RunConfig) -> nn.Module:
    node = trained.parts["model"]["network"]
    check_foreign(node, "model.network", OWN_MODULES)
    with torch.device("meta"):
        return build(node, "model.network", OWN_MODULES)


def _of_network(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of the network; others are refused."""
    prefix = "model.network."
    others = [name for name in weights if not name.startswith(prefix)]
    if others:
        raise ConfigError(f"format=diffusers: has no place for {others[0]}; format=own has")
    return {name.removeprefix(prefix): tensor for name, tensor in weights.items()}


def _whole(folder: Path, write: Callable[[Path], str]) -> str:
    """Write a folder under a temporary name and rename it, so that it is complete or absent; return its usage."""
    with appearing(folder) as partial:
        partial.mkdir()
        return write(partial)


def _diffusers(
    folder: Path,
    checkpoint: Path,
    trained: RunConfig,
    weights: Mapping[str, Tensor],
    options: ExportOptions,
    family: Mapping[str, Any],
) -> str:
    """Write a folder that diffusers opens; return its usage."""
    encoder, card = trained.parts["encoder"], family["card"]
    name = options.components or encoder.get("name_or_path")
    if name is None:
        raise ConfigError(f"components: the run has no parts of a {family['pipeline']}; give such a pipeline's folder")
    variant = None if options.components else encoder.get("variant")
    components = local_folder(name, variant) if options.components else cached_folder(name)
    write_folder = build(family["writers"]["folder"], "writers.folder")
    write_folder(folder, _network(trained), _of_network(weights), _told(trained), components, variant)
    licence = licence_keys(readme_of(components))
    usage = of_pipeline(pipeline_of(folder), options.to, weights)
    front_matter = {"library_name": "diffusers", "pipeline_tag": card["pipeline_tag"], **licence}
    facts = facts_of(checkpoint, trained, weights, options.ema)
    write_card(folder, card["title"], usage, facts, card["licence"], front_matter)
    return usage


def _lora(
    folder: Path,
    checkpoint: Path,
    trained: RunConfig,
    weights: Mapping[str, Tensor],
    options: ExportOptions,
    family: Mapping[str, Any] | None,
) -> str:
    """Write LoRA weights and a model card; return their usage."""
    usage = write_lora(folder, weights, trained, options, family)
    title, notes = ("LoRA", "") if family is None else (f"LoRA of a {family['pipeline']}", family["card"]["licence"])
    facts = facts_of(checkpoint, trained, weights, options.ema)
    front_matter = {"library_name": "diffusers" if options.lora == "comfyui" else "peft"}
    write_card(folder, title, usage, facts, notes, front_matter)
    return usage


def _own(
    folder: Path, checkpoint: Path, trained: RunConfig, weights: Mapping[str, Tensor], options: ExportOptions
) -> str:
    """Write weights and configuration for ``vdm import``; return their usage."""
    save_tensors({name: tensor.contiguous() for name, tensor in weights.items()}, folder / EXPORTED_WEIGHTS)
    write_config(folder, without_credentials(trained.plain()))
    usage = of_own(options.to, trained)
    facts = facts_of(checkpoint, trained, weights, options.ema)
    write_card(folder, "A video diffusion model", usage, facts, front_matter={"library_name": "vdm"})
    return usage
