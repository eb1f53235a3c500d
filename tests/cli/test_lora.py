"""What tune=lora trained, given away by ``vdm export``: alone and merged, the same in diffusers."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableVideoDiffusionPipeline, UNetSpatioTemporalConditionModel
from diffusers.loaders.peft import PeftAdapterMixin
from peft import PeftModel

from tests.cli.conftest import RunVdm
from tests.data.shard_sets import write_set
from tests.models.svd.peers import Inputs
from tests.models.svd.pipelines import save_pipeline
from tests.training.runs import configuration, train
from tests.training.test_svd import finetuning
from vdm.assembly.model import VideoDiffusionModel
from vdm.checkpoints.weights import load_weights, saved_weights


class WithAdapters(UNetSpatioTemporalConditionModel, PeftAdapterMixin):
    """diffusers' network with what its other networks load LoRA files by, which in 0.42 this one has not."""


@pytest.mark.filterwarnings("ignore::UserWarning:peft")
def test_exported_lora_gives_the_same_in_diffusers_and_merged(
    tmp_path: Path,
    run_vdm: RunVdm,
) -> None:
    shards, published = (
        write_set(tmp_path / "shards", {"train": (5,), "validation": (2,)}),
        save_pipeline(tmp_path / "svd"),
    )
    config = finetuning(shards, published, "tune=lora", "tune.rank=2", "trainer.max_steps=2", "optimizer.lr=0.05")
    train(tmp_path / "run", config)
    assert run_vdm("export", "checkpoint=run", "to=lora", "lora=true")[0] == 0
    assert run_vdm("export", "checkpoint=run", "to=whole")[0] == 0
    assert run_vdm("export", "checkpoint=run", "to=lora.safetensors", "lora=true")[0] == 2
    card = (tmp_path / "lora" / "README.md").read_text()
    assert "licence" in card
    space: dict[str, Any] = {}
    exec(card.split("```")[1], space)  # the usage snippet of the model card

    inputs = Inputs.random(2, 3)
    base = StableVideoDiffusionPipeline.from_pretrained(published, low_cpu_mem_usage=False).unet
    merged = StableVideoDiffusionPipeline.from_pretrained(tmp_path / "whole", low_cpu_mem_usage=False).unet
    by_diffusers = copy.deepcopy(base)
    by_diffusers.__class__ = WithAdapters
    file = {"prefix": "unet", "weight_name": "pytorch_lora_weights.safetensors", "low_cpu_mem_usage": False}
    by_diffusers.load_lora_adapter(str(tmp_path / "lora"), **file)
    by_peft = PeftModel.from_pretrained(copy.deepcopy(base), tmp_path / "lora")
    outputs = []
    with torch.no_grad():
        for network in (base, merged, by_diffusers, by_peft, space["pipeline"].unet):
            outputs.append(inputs.of_diffusers(network))
        ours = VideoDiffusionModel.from_checkpoint(tmp_path / "run").network
        mine = inputs.of_ours(ours)
    assert (outputs[0] - mine).abs().max() > 1e-3, "it has learned something"
    for output in outputs[1:]:
        torch.testing.assert_close(output, mine, rtol=1e-4, atol=1e-5)
    assert not any("lora_" in name for name in load_weights(tmp_path / "run"))
    assert any("lora_" in name for name in saved_weights(tmp_path / "run"))


def test_adapter_that_the_format_has_no_place_for_is_named_and_not_left_out(tmp_path: Path, run_vdm: RunVdm) -> None:
    shards = write_set(tmp_path / "shards", {"train": (4,), "validation": (2,)})
    layers = "tune.layers=[network.*.to_*,*.text_encoder.*.linear1]"
    train(tmp_path / "run", configuration(shards, "tune=lora", layers, "trainer.max_steps=1"))
    code, err = run_vdm("export", "checkpoint=run", "to=lora", "lora=true")
    assert code == 2
    assert err.startswith(
        "lora=true: has no place for the LoRA of model.conditioner.text_encoder.layers.layers.0.linear1"
    )
    assert not (tmp_path / "lora").exists()
