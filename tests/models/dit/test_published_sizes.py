"""Published networks of Wan at their full size, on the meta device: names and shapes of all weights."""

from typing import Any

import pytest
import torch
from diffusers import WanTransformer3DModel

from tests.cli.calling import composed
from vdm.config import build
from vdm.models.clip_tokens import ClipTokenEncoder
from vdm.models.dit.transformer import SpaceTimeTransformer
from vdm.models.experts import EXPERTS, TwoExperts
from vdm.models.pretrained.wan_format import network_config, network_options
from vdm.models.text_encoders import PretrainedTextEncoder
from vdm.training.planning.structure import pretrained_by_configuration

# As published in transformer/config.json of the repositories below, without the values that are diffusers' defaults.
SMALL = {"num_layers": 30, "num_attention_heads": 12, "ffn_dim": 8960, "in_channels": 16, "out_channels": 16}
LARGE = {"num_layers": 40, "num_attention_heads": 40, "ffn_dim": 13824, "in_channels": 16, "out_channels": 16}
TI2V_5B = {"num_layers": 30, "num_attention_heads": 24, "ffn_dim": 14336, "in_channels": 48, "out_channels": 48}
OF_IMAGE = {"in_channels": 36}
OF_TOKENS = {**OF_IMAGE, "image_dim": 1280, "added_kv_proj_dim": 5120}
ALL = {"attention_head_dim": 128, "text_dim": 4096, "patch_size": [1, 2, 2]}
# By the name of our model: the published configuration, and its number of weights.
TEXT_TO_VIDEO = {
    "wan_1_3b": (SMALL, 1_418_996_800),
    "wan_14b": (LARGE, 14_288_491_584),
    "wan22_ti2v_5b": (TI2V_5B, 4_999_787_712),
}


def shapes(network: torch.nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in network.state_dict().items()}


def published(config: dict[str, Any]) -> WanTransformer3DModel:
    with torch.device("meta"):
        return WanTransformer3DModel.from_config({**ALL, **config})


# The same of image to video, and the options of ``model=wan_i2v_14b`` that differ.
IMAGE_TO_VIDEO: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "I2V": ({**LARGE, **OF_TOKENS}, {}),
    "FLF2V": ({**LARGE, **OF_TOKENS, "pos_embed_seq_len": 514}, {"num_image_tokens": 514}),
    "one of I2V-A14B": ({**LARGE, **OF_IMAGE}, {"image_token_channels": 0}),
}


@pytest.mark.parametrize("name", TEXT_TO_VIDEO)
def test_models_of_published_sizes_have_the_keys_and_shapes_of_diffusers(name: str) -> None:
    config, num_weights = TEXT_TO_VIDEO[name]
    options = network_options({"_class_name": "WanTransformer3DModel", **ALL, **config}, "config.json")
    chosen = composed("train", f"model={name}", "text_encoder=wan", "encoder=wan", "diffusion=wan")["model"]["network"]
    assert {key: value for key, value in options.items() if key in chosen} == {
        key: value for key, value in chosen.items() if key not in ("_target_", "vector_conditioned")
    }
    with torch.device("meta"):
        network = SpaceTimeTransformer(**options)

    theirs = published(config)
    assert shapes(network) == shapes(theirs)
    assert sum(weight.numel() for weight in network.parameters()) == num_weights
    assert shapes(published(network_config(network))) == shapes(theirs)


@pytest.mark.parametrize(
    ("model", "config", "boundary"),
    [("wan22_a14b", LARGE, 0.875), ("wan22_i2v_a14b", {**LARGE, **OF_IMAGE}, 0.9)],
)
def test_both_experts_of_a14b_have_the_keys_and_shapes_of_diffusers(
    model: str, config: dict[str, Any], boundary: float
) -> None:
    options = (f"model={model}", "text_encoder=wan", "encoder=wan", "diffusion=wan")
    chosen = composed("train", *options)["model"]["network"]
    with torch.device("meta"):
        experts = [build(chosen[name], name, defaults={"in_channels": 16, "text_channels": 4096}) for name in EXPERTS]
        network = TwoExperts(*experts, boundary=chosen["boundary"])
    assert network.boundary == boundary
    for expert in experts:
        assert shapes(expert) == shapes(published(config))


@pytest.mark.parametrize(("config", "differing"), IMAGE_TO_VIDEO.values(), ids=IMAGE_TO_VIDEO)
def test_networks_of_image_to_video_have_the_keys_and_shapes_of_diffusers(
    config: dict[str, Any], differing: dict[str, Any]
) -> None:
    options = network_options({"_class_name": "WanTransformer3DModel", **ALL, **config}, "config.json")
    chosen = composed("train", "model=wan_i2v_14b", "text_encoder=wan", "encoder=wan", "diffusion=wan")["model"]
    assert {key: value for key, value in options.items() if key in chosen["network"]} == {
        **{k: value for k, value in chosen["network"].items() if k not in ("_target_", "vector_conditioned")},
        **differing,
    }
    with torch.device("meta"):
        network = SpaceTimeTransformer(**options)

    theirs = published(config)
    assert shapes(network) == shapes(theirs)
    assert shapes(published(network_config(network))) == shapes(theirs)


def test_the_published_image_encoder_is_planned_without_its_files() -> None:
    with torch.device("meta"), pretrained_by_configuration():
        encoder = ClipTokenEncoder("Wan-AI/Wan2.1-I2V-14B-480P-Diffusers")
    assert (encoder.channels, encoder.num_tokens) == (1280, 257)
    assert sum(weight.numel() for weight in encoder.frozen.parameters()) == 630_766_080  # CLIP ViT-H/14's, unprojected


def test_the_published_text_encoder_is_planned_without_its_files() -> None:
    with torch.device("meta"), pretrained_by_configuration():
        encoder = PretrainedTextEncoder(
            "Wan-AI/Wan2.1-T2V-14B-Diffusers", 512, subfolder="text_encoder", tokenizer="tokenizer"
        )
    assert encoder.channels == 4096
    assert sum(weight.numel() for weight in encoder.frozen.parameters()) == 5_680_910_336  # google/umt5-xxl's encoder
