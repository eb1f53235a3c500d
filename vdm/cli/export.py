"""``vdm export``: gives a run's weights away, for others' software or for this project's."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import save_file
from torch import Tensor

from vdm.checkpoints.runs import CONFIG_NAME, latest_checkpoint, load_config, load_weights, run_folder
from vdm.cli.import_ import EXPORTED_WEIGHTS
from vdm.config import ConfigError, build
from vdm.models.pretrained.model_card import LICENCE_NOTE, licence_keys, model_card
from vdm.models.pretrained.svd import local_folder, write_file, write_folder
from vdm.models.svd.unet import SVDUNet

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}

_SVD = f"{SVDUNet.__module__}.{SVDUNet.__qualname__}"


def run(config: DictConfig) -> None:
    """Write the folder or file."""
    options: Any = OmegaConf.to_container(config)
    to, checkpoint = Path(options["to"]), latest_checkpoint(Path(options["checkpoint"]))
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise ConfigError(f"to={to}: exists already")
    trained = load_config(checkpoint)
    is_svd, is_file = trained["model"]["network"]["_target_"] == _SVD, to.suffix == ".safetensors"
    if is_file and not is_svd:
        raise ConfigError(f"to={to}: only Stable Video Diffusion has files of this kind; give a folder")
    weights = _weights(checkpoint, options)
    if is_file:
        write_file(to, _network(trained), _of_network(weights), options["rest_of"] and Path(options["rest_of"]))
    else:
        _whole(to, lambda folder: (_svd if is_svd else _own)(folder, checkpoint, trained, weights, options))
    print(f"Wrote {len(weights)} weights to {to}")


def _weights(checkpoint: Path, options: Mapping[str, Any]) -> dict[str, Tensor]:
    dtype = options["dtype"]
    if dtype is not None and dtype not in DTYPES:
        raise ConfigError(f"dtype={dtype}: must be {', '.join(DTYPES)} or null")
    weights = load_weights(checkpoint, options["ema"])
    if dtype is None:
        return weights
    return {name: w.to(DTYPES[dtype]) if w.is_floating_point() else w for name, w in weights.items()}


def _network(trained: Mapping[str, Any]) -> SVDUNet:
    with torch.device("meta"):
        return build(trained["model"]["network"], "model.network", ("vdm.models",))


def _of_network(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    prefix = "model.network."
    return {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}


def _whole(folder: Path, write: Callable[[Path], None]) -> None:
    """Write a folder beside its place and rename it, so that it is whole or not there."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        write(partial)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    partial.replace(folder)


def _svd(
    folder: Path, checkpoint: Path, trained: dict[str, Any], weights: Mapping[str, Tensor], options: Mapping[str, Any]
) -> None:
    """Write a folder that diffusers opens."""
    encoder = trained["encoder"]
    name = options["components"] or encoder.get("name_or_path")
    if name is None:
        raise ConfigError("components: the run has no autoencoder of Stable Video Diffusion; give a pipeline's folder")
    variant = None if options["components"] else encoder.get("variant")
    components = local_folder(name, variant)
    write_folder(folder, _network(trained), _of_network(weights), trained["clip"]["num_frames"], components, variant)
    readme = components / "README.md"
    licence = licence_keys(readme.read_text(encoding="utf-8")) if readme.is_file() else {}
    _write_card(
        folder,
        checkpoint,
        trained,
        "Stable Video Diffusion, tuned",
        f"from diffusers import StableVideoDiffusionPipeline\n\n"
        f'pipeline = StableVideoDiffusionPipeline.from_pretrained("{options["to"]}")',
        LICENCE_NOTE,
        {"library_name": "diffusers", "pipeline_tag": "image-to-video", **licence},
    )


def _own(
    folder: Path, checkpoint: Path, trained: dict[str, Any], weights: Mapping[str, Tensor], options: Mapping[str, Any]
) -> None:
    """Write weights and configuration, which ``vdm import`` makes a run of."""
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / EXPORTED_WEIGHTS)
    (folder / CONFIG_NAME).write_text(OmegaConf.to_yaml(OmegaConf.create(trained)), encoding="utf-8")
    usage = f"vdm import from={options['to']} to=runs/imported\nvdm sample checkpoint=runs/imported"
    _write_card(folder, checkpoint, trained, "A video diffusion model", usage)


def _write_card(
    folder: Path,
    checkpoint: Path,
    trained: Mapping[str, Any],
    title: str,
    usage: str,
    notes: str = "",
    front_matter: Mapping[str, str] | None = None,
) -> None:
    results = run_folder(checkpoint) / "evaluation" / "results.json"
    metrics = json.loads(results.read_text(encoding="utf-8")) if results.is_file() else {}
    numbers = {k: float(v) for k, v in metrics.items() if isinstance(v, int | float) and not isinstance(v, bool)}
    clip = {f"clip {name}": value for name, value in (trained.get("clip") or {}).items()}
    data = {"set": trained["data"]["path"]} if "path" in (trained.get("data") or {}) else {}
    config = OmegaConf.to_yaml(OmegaConf.create(dict(trained)))
    card = model_card(title, usage, config, {**data, **clip}, numbers, notes, front_matter)
    (folder / "README.md").write_text(card, encoding="utf-8")
