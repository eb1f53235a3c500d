"""LoRA weights, as ``vdm export`` writes them: for peft and diffusers, or for ComfyUI."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from vdm.checkpoints.run_config import RunConfig
from vdm.cli.export_usage import lora_file, of_comfyui, of_lora
from vdm.cli.options.export import ExportOptions
from vdm.config import ConfigError, build
from vdm.models.experts import lora_of_experts
from vdm.models.lora import adapted_outside, adapter, additions
from vdm.models.pretrained.lora_files import METADATA
from vdm.models.pretrained.stored import save_tensors

_NETWORK = "model.network."


def of_network(
    weights: Mapping[str, Tensor], options: ExportOptions, family: Mapping[str, Any] | None
) -> dict[str, Tensor]:
    """Return the LoRA weights of the network by their names in it.

    Args:
        weights: All weights of a checkpoint.
        options: Options of the command.
        family: The published family of the network; None for one of no such family.

    Raises:
        ConfigError: If there are none, or they can't be written as the options say.
    """
    wish = f"lora={str(options.lora).lower()}"
    if (other := adapted_outside(weights, _NETWORK)) is not None:
        raise ConfigError(f"{wish}: has no place for the LoRA of {other}; without {wish} it is merged")
    found = adapter(weights, _NETWORK)
    if not found:
        raise ConfigError(f"{wish}: the run has no LoRA (tune=lora)")
    if options.to.suffix:
        raise ConfigError(f"to={options.to}: must be a folder")
    if options.lora == "comfyui" and _comfyui(family) is None:
        raise ConfigError("lora=comfyui: ComfyUI knows no LoRA for this network: of those here, it knows Wan's")
    return found


def write_lora(
    folder: Path,
    weights: Mapping[str, Tensor],
    trained: RunConfig,
    options: ExportOptions,
    family: Mapping[str, Any] | None,
) -> str:
    """Write LoRA weights into a folder; return their usage.

    Args:
        folder: The folder, under whatever name while it is written.
        weights: The weights, by their names in the network.
        trained: Configuration of the run.
        options: Options of the command.
        family: The published family of the network; None for one of no such family.
    """
    of_experts = lora_of_experts(weights)
    if options.lora == "comfyui":
        files = {
            expert: f"{options.to.resolve().name}{f'_{expert}' if expert else ''}.safetensors" for expert in of_experts
        }
        for expert, of_expert in of_experts.items():
            tensors = build(_comfyui(family), "writers.comfyui_lora")(additions(of_expert))
            save_tensors(tensors, folder / files[expert], {"format": "pt"})
        return "\n".join(of_comfyui(options.to / file, expert) for expert, file in files.items())
    network = "unet" if family is None else family["network"]
    settings = _settings(weights)
    (folder / "adapter_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    _save(folder / "adapter_model.safetensors", weights, "base_model.model.", {})
    for expert, of_expert in of_experts.items():
        own = {f"{network}.{name}": value for name, value in _settings(of_expert).items()}
        metadata = {METADATA: json.dumps(own, indent=2, sort_keys=True)}
        _save(folder / lora_file(expert), of_expert, f"{network}.", metadata)
    pipeline = None if family is None else (family["pipeline"], network)
    return of_lora(pipeline, options.to, weights, trained, of_experts)


def _save(file: Path, weights: Mapping[str, Tensor], prefix: str, metadata: Mapping[str, str]) -> None:
    tensors: dict[str, Tensor] = {}
    for layer, addition in additions(weights).items():
        tensors[f"{prefix}{layer}.lora_A.weight"] = addition.down.contiguous()
        tensors[f"{prefix}{layer}.lora_B.weight"] = addition.up.contiguous()
    save_tensors(tensors, file, {"format": "pt", **metadata})


def _settings(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the arguments of peft's ``LoraConfig``; all layers of a run have one rank and one alpha."""
    layers = additions(weights)
    one = next(iter(layers.values()))
    return {
        "peft_type": "LORA",
        "r": one.rank,
        "lora_alpha": one.alpha,
        "target_modules": sorted(layers),
        "bias": "none",
    }


def _comfyui(family: Mapping[str, Any] | None) -> Any:
    return None if family is None else family["writers"].get("comfyui_lora")
