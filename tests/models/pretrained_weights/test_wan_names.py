"""Weights in the names of Wan's authors; diffusers' own conversion of such files is the judge."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import WanTransformer3DModel
from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers
from safetensors.torch import save_file
from torch import Tensor

from tests.models.dit.peers import Sizes, diffusers_transformer
from tests.models.dit.test_published_sizes import ALL, LARGE, OF_IMAGE, OF_TOKENS, SMALL, TI2V_5B
from vdm.models.dit.transformer import SpaceTimeTransformer
from vdm.models.pretrained.stored import check_names
from vdm.models.pretrained.wan_file import read_network, write_file
from vdm.models.pretrained.wan_names import HEAD_CHANNELS, PREFIX, network_config, our_names, wan_names

POSITIONS = "img_emb.emb_pos"
"""Of FLF2V alone; the conversion of single files in diffusers does not know it, its script for folders does."""
PUBLISHED = {
    "T2V-1.3B": SMALL,
    "T2V-14B": LARGE,
    "I2V-14B": {**LARGE, **OF_TOKENS},
    "FLF2V-14B": {**LARGE, **OF_TOKENS, "pos_embed_seq_len": 514},
    "I2V-A14B": {**LARGE, **OF_IMAGE},
    "TI2V-5B": TI2V_5B,
}


def of_diffusers(config: dict[str, Any]) -> dict[str, Tensor]:
    with torch.device("meta"):
        return WanTransformer3DModel.from_config({**ALL, **config}).state_dict()


def shapes(tensors: dict[str, Tensor]) -> dict[str, list[int]]:
    return {name: list(tensor.shape) for name, tensor in tensors.items()}


@pytest.mark.parametrize("config", PUBLISHED.values(), ids=PUBLISHED)
def test_names_of_published_sizes_are_those_that_diffusers_converts(config: dict[str, Any]) -> None:
    weights = of_diffusers(config)
    names = wan_names(weights)
    theirs = {names[name]: tensor for name, tensor in weights.items()}
    assert len(theirs) == len(weights)
    assert our_names(theirs) == {name: ours for ours, name in names.items()}

    expected = shapes(weights)
    if theirs.pop(POSITIONS, None) is not None:
        assert expected.pop("condition_embedder.image_embedder.pos_embed") == [1, 514, 1280]
    converted = convert_wan_transformer_to_diffusers(dict(theirs))
    assert shapes(converted) == expected
    assert all(converted[name] is theirs[names[name]] for name in converted)


@pytest.mark.parametrize("prefix", ["", PREFIX], ids=["authors", "ComfyUI"])
@pytest.mark.parametrize("config", PUBLISHED.values(), ids=PUBLISHED)
def test_published_sizes_are_read_off_the_shapes(config: dict[str, Any], prefix: str) -> None:
    weights = of_diffusers(config)
    names = wan_names(weights)
    found = network_config({prefix + names[name]: shape for name, shape in shapes(weights).items()})

    assert {key: value for key, value in found.items() if key in config} == config
    assert shapes(of_diffusers(found)) == shapes(weights)


def test_norms_of_attention_to_text_change_their_number() -> None:
    assert wan_names(["blocks.3.norm2.weight"]) == {"blocks.3.norm2.weight": "blocks.3.norm3.weight"}


# In these files, heads are 128 wide.
SIZES = Sizes(num_heads=1, head_channels=HEAD_CHANNELS, num_text_tokens=512)


def test_weights_survive_the_way_there_and_back(tmp_path: Path) -> None:
    weights = diffusers_transformer(SIZES).state_dict()
    file = tmp_path / "wan.safetensors"
    with torch.device("meta"):
        network = SpaceTimeTransformer(2, 1, HEAD_CHANNELS, 40, 4, text_channels=24, num_text_tokens=512)
    write_file(file, network, weights)
    stored, options = read_network([file], file)
    again = WanTransformer3DModel.from_single_file(
        file, config=str(saved_config(tmp_path)), low_cpu_mem_usage=False
    ).state_dict()

    assert stored.keys() == weights.keys() == again.keys()
    assert all(torch.equal(stored[name], weights[name]) and torch.equal(again[name], weights[name]) for name in stored)
    ours = SpaceTimeTransformer(**options)
    assert shapes(ours.state_dict()) == shapes(weights)


def saved_config(folder: Path) -> Path:
    diffusers_transformer(SIZES).save_config(folder / "config")
    return folder / "config"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("head.head.weight"), "not a network of Wan: head.head.weight is missing"),
        (lambda w: w.update({"blocks.0.attn1.to_q.weight": torch.zeros(1)}), "its names are those of diffusers: give"),
        (
            lambda w: w.update({"patch_embedding.weight": torch.zeros(3)}),
            "not a network of Wan: its weights have other",
        ),
        (
            lambda w: w.update({"patch_embedding.weight": torch.zeros(100, 4, 1, 2, 2)}),
            "not a network of Wan: its width of 100",
        ),
        (lambda w: w.update({PREFIX + "head.head.bias": torch.zeros(1)}), "proj_out.bias is there under two names"),
        (lambda w: w.update({"text_embedding.0.weight": torch.zeros(0, 9**9)}), "text_dim=387420489 is not allowed"),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path: Path, change: Any, message: str) -> None:
    file = tmp_path / "x.safetensors"
    weights = diffusers_transformer(SIZES).state_dict()
    named = {theirs: weights[ours] for ours, theirs in wan_names(weights).items()}
    change(named)
    save_file(named, file)
    with pytest.raises(ValueError, match=re.escape(message)) as refused:
        read_network([file], file)
    assert str(refused.value).startswith(f"{file}: ")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["scaled_fp8", "blocks.0.self_attn.q.scale_weight", "blocks.1.ffn.0.weight"])
def test_weights_in_eight_bits_are_refused(tmp_path: Path, name: str) -> None:
    file = tmp_path / "x.safetensors"
    weights = diffusers_transformer(SIZES).state_dict()
    named = {theirs: weights[ours] for ours, theirs in wan_names(weights).items()}
    save_file(named | {name: named.get(name, torch.ones(1)).to(torch.float8_e4m3fn)}, file)
    stored, options = read_network([file], file)
    with pytest.raises(ValueError, match=r"^x: \S+: weights in eight bits \(fp8\) can't be trained; take the model in"):
        check_names(stored, SpaceTimeTransformer(**options), "x")
