"""Usage of exported weights: complete code or commands, for the terminal and the model card."""

import json
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vdm.checkpoints.run_config import OWN_MODULES, RunConfig
from vdm.cli.next_step import command
from vdm.config import ConfigError
from vdm.config.foreign import check_foreign
from vdm.models.experts import LOW

_SECOND = ", load_into_transformer_2=True"
"""Further argument of diffusers' ``load_lora_weights`` for the expert for low noise levels."""


def of_pipeline(pipeline: str, folder: Path, weights: Mapping[str, Tensor]) -> str:
    """Return Python that opens a pipeline of diffusers.

    Its other components may have another precision than the exported network; all get that of the network.
    """
    return "\n".join(
        [
            "import torch",
            f"from diffusers import {pipeline}",
            "",
            f"pipeline = {_opened(pipeline, str(folder), weights.values())}",
        ]
    )


def of_lora(
    family: tuple[str, str] | None,
    folder: Path,
    weights: Mapping[str, Tensor],
    trained: RunConfig,
    of_experts: Iterable[str] = ("",),
) -> str:
    """Return Python that merges LoRA weights into the model that training started from.

    Args:
        family: Class of the pipeline in diffusers, and name of the network in it; None for a model of no such family.
        folder: Folder of the LoRA weights.
        weights: The LoRA weights.
        trained: Configuration of the run.
        of_experts: The experts that have LoRA weights; one empty name for a single network.
    """
    merged = f"PeftModel.from_pretrained({{}}, {_text(folder)}).merge_and_unload()"
    if family is None:
        lines = ["import vdm", "from peft import PeftModel", ""]
        lines += [f"pipe = vdm.load_model({_text(trained.started_from or 'RUN')})"]
        return "\n".join([*lines, f"pipe.model.network = {merged.format('pipe.model.network')}"])
    (pipeline, network), encoder = family, trained.parts["encoder"]
    started_from = trained.started_from
    # A single file has only the network, and diffusers opens pipelines.
    base = encoder["name_or_path"] if started_from is None or Path(started_from).is_file() else started_from
    if "" not in of_experts:
        lines = ["import torch", f"from diffusers import {pipeline}", ""]
        lines += [f"pipeline = {_opened(pipeline, base, weights.values(), encoder.get('variant'))}"]
        return "\n".join([*lines, *(_loaded(folder, expert) for expert in of_experts)])
    lines = ["import torch", f"from diffusers import {pipeline}", "from peft import PeftModel", ""]
    lines += [f"pipeline = {_opened(pipeline, base, weights.values(), encoder.get('variant'))}"]
    return "\n".join([*lines, f"pipeline.{network} = {merged.format(f'pipeline.{network}')}"])


def lora_file(expert: str) -> str:
    """Return the name of the file that diffusers loads: of one of two experts, or of a network by an empty name."""
    return f"pytorch_lora_weights{f'_{expert}' if expert else ''}.safetensors"


def _loaded(folder: Path, expert: str) -> str:
    told = f'weight_name="{lora_file(expert)}", adapter_name="{expert}"{_SECOND if expert == LOW else ""}'
    return f"pipeline.load_lora_weights({_text(folder)}, {told})"


def of_comfyui(file: Path, expert: str = "") -> str:
    """Return how a LoRA file for ComfyUI is used, there and in diffusers; ``expert`` is that of a file for one."""
    loaded = f"pipeline.load_lora_weights({_text(file)}{_SECOND if expert == LOW else ''})"
    return f"cp {shlex.quote(str(file))} ComfyUI/models/loras/\n# in diffusers: {loaded}"


def of_own(folder: Path, trained: RunConfig) -> str:
    """Return commands that import an export in this project's own format, and sample from it."""
    allowed = {"allow_own_code": "true"} if _has_own_code(trained) else {}
    run = Path("runs") / folder.resolve().name
    return "\n".join(
        [command("vdm import", from_=folder, to=run, **allowed), command("vdm sample", checkpoint=run, **allowed)]
    )


def of_file(file: Path, trained: RunConfig) -> str:
    """Return the command that imports a single file, such as Stability's."""
    components = trained.parts["encoder"].get("name_or_path") or "PIPELINE"
    return command("vdm import", from_=file, components=components, to=Path("runs") / file.stem)


def _opened(pipeline: str, name: str, weights: Iterable[Tensor], variant: str | None = None) -> str:
    dtypes = {tensor.dtype for tensor in weights if tensor.is_floating_point()}
    dtype = dtypes.pop() if len(dtypes) == 1 else torch.float32
    chosen = "" if variant is None else f"variant={_text(variant)}, "
    return f"{pipeline}.from_pretrained({_text(name)}, {chosen}dtype={dtype})"


def _text(value: object) -> str:
    return json.dumps(str(value), ensure_ascii=False)


def _has_own_code(trained: RunConfig) -> bool:
    def is_own(key: str, node: Any) -> bool:
        try:
            check_foreign(node, key, OWN_MODULES)
        except ConfigError:
            return True
        return False

    return trained.data_module is not None or any(is_own(key, node) for key, node in trained.parts.items())
