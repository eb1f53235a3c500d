"""Weights in the names of Stability's single files."""

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.models.svd.peers import Sizes, diffusers_unet, our_unet
from vdm.models.pretrained.stability import PREFIX, network_options, stability_names
from vdm.models.pretrained.stored import StoredTensors, load
from vdm.models.svd.unet import SVDUNet

# In these files, heads are 64 wide and each added number has 256 sinusoids.
SIZES = Sizes((64, 128, 64), (1, 2, 1), 1, (0, 1), 1, 16, 256)


def published_shape() -> SVDUNet:
    with torch.device("meta"):
        return SVDUNet()


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        # As listed for svd.safetensors by readers of it, and as sgm's VideoUNet builds them.
        ("conv_in.weight", "input_blocks.0.0.weight"),
        ("time_embedding.linear_2.bias", "time_embed.2.bias"),
        ("add_embedding.linear_1.weight", "label_emb.0.0.weight"),
        ("down_blocks.0.resnets.0.spatial_res_block.norm1.weight", "input_blocks.1.0.in_layers.0.weight"),
        ("down_blocks.0.resnets.0.temporal_res_block.conv2.bias", "input_blocks.1.0.time_stack.out_layers.3.bias"),
        ("down_blocks.0.resnets.0.temporal_res_block.norm1.bias", "input_blocks.1.0.time_stack.in_layers.0.bias"),
        ("down_blocks.0.resnets.0.time_mixer.mix_factor", "input_blocks.1.0.time_mixer.mix_factor"),
        ("down_blocks.0.attentions.0.proj_in.weight", "input_blocks.1.1.proj_in.weight"),
        ("down_blocks.0.attentions.0.time_mixer.mix_factor", "input_blocks.1.1.time_mixer.mix_factor"),
        ("down_blocks.0.attentions.0.time_pos_embed.linear_2.bias", "input_blocks.1.1.time_pos_embed.2.bias"),
        (
            "down_blocks.0.attentions.0.temporal_transformer_blocks.0.attn1.to_out.0.bias",
            "input_blocks.1.1.time_stack.0.attn1.to_out.0.bias",
        ),
        ("down_blocks.1.resnets.0.spatial_res_block.conv_shortcut.bias", "input_blocks.4.0.skip_connection.bias"),
        ("down_blocks.2.downsamplers.0.conv.weight", "input_blocks.9.0.op.weight"),
        ("down_blocks.3.resnets.1.spatial_res_block.time_emb_proj.bias", "input_blocks.11.0.emb_layers.1.bias"),
        ("mid_block.attentions.0.norm.weight", "middle_block.1.norm.weight"),
        ("mid_block.resnets.1.spatial_res_block.conv1.weight", "middle_block.2.in_layers.2.weight"),
        ("up_blocks.0.upsamplers.0.conv.weight", "output_blocks.2.1.conv.weight"),
        ("up_blocks.1.upsamplers.0.conv.weight", "output_blocks.5.2.conv.weight"),
        ("up_blocks.2.upsamplers.0.conv.bias", "output_blocks.8.2.conv.bias"),
        (
            "up_blocks.3.attentions.2.transformer_blocks.0.ff.net.0.proj.weight",
            "output_blocks.11.1.transformer_blocks.0.ff.net.0.proj.weight",
        ),
        ("conv_norm_out.weight", "out.0.weight"),
        ("conv_out.bias", "out.2.bias"),
    ],
)
def test_names_are_those_of_the_published_file(ours: str, theirs: str) -> None:
    assert stability_names(published_shape())[ours] == PREFIX + theirs


def test_every_weight_has_a_name_of_its_own() -> None:
    names = stability_names(published_shape())

    assert len(set(names.values())) == len(names) == len(published_shape().state_dict())
    assert not any(
        re.search(r"res_block|_blocks\.\d+\.(resnets|attentions)|temporal_transf", n) for n in names.values()
    )


def test_weights_survive_the_way_there_and_back(tmp_path: Path) -> None:
    theirs = diffusers_unet(SIZES)
    weights = theirs.state_dict()
    names = stability_names(our_unet(SIZES))
    file = tmp_path / "svd.safetensors"
    save_file({names[name]: tensor for name, tensor in weights.items()}, file)

    stored = StoredTensors.open([file])
    ours = SVDUNet(**network_options(stored.shapes))
    load(stored.renamed({there: here for here, there in names.items()}), ours)

    assert ours.num_heads == SIZES.num_heads
    assert ours.state_dict().keys() == weights.keys()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in ours.state_dict().items())


def test_published_sizes_are_read_off_the_shapes() -> None:
    network = published_shape()
    names = stability_names(network)
    shapes = {names[name]: list(tensor.shape) for name, tensor in network.state_dict().items()}
    with torch.device("meta"):
        again = SVDUNet(**network_options(shapes | {"first_stage_model.decoder.conv_in.weight": [512, 4, 3, 3]}))

    assert {name: list(tensor.shape) for name, tensor in again.state_dict().items()} == {
        name: list(tensor.shape) for name, tensor in network.state_dict().items()
    }
    assert again.num_heads == network.num_heads


def test_another_network_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"^not a network of Stable Video Diffusion: model.diffusion_model.\S+ is missing"
    ):
        network_options({"model.diffusion_model.input_blocks.0.0.weight": [320, 8, 3, 3]})
