"""Components in folders that diffusers wrote."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import UNetSpatioTemporalConditionModel

from tests.models.svd.peers import Sizes, diffusers_unet, our_unet
from vdm.models.pretrained.diffusers_folder import read_json, weight_files
from vdm.models.pretrained.stored import StoredTensors, load
from vdm.models.pretrained.svd import network_config, network_options
from vdm.models.svd.unet import SVDUNet

SIZES = Sizes()


def loaded(folder: Path, variant: str | None = None) -> SVDUNet:
    config = folder / "config.json"
    network = SVDUNet(**network_options(read_json(config), config))
    load(StoredTensors.open(weight_files(folder, variant)), network)
    return network


@pytest.mark.parametrize(
    ("options", "files"),
    [
        ({}, 1),
        ({"max_shard_size": "200KB"}, 6),
        ({"variant": "fp16"}, 1),
        ({"variant": "fp16", "max_shard_size": "200KB"}, 6),
    ],
    ids=["one file", "shards", "variant", "shards of a variant"],
)
def test_every_way_diffusers_saves_is_loaded(tmp_path: Path, options: dict[str, str], files: int) -> None:
    theirs = diffusers_unet(SIZES)
    theirs.save_pretrained(tmp_path, **options)
    ours = loaded(tmp_path, options.get("variant"))

    assert len(weight_files(tmp_path, options.get("variant"))) >= files
    assert all(torch.equal(tensor, theirs.state_dict()[name]) for name, tensor in ours.state_dict().items())


def test_half_precision_is_loaded_into_full(tmp_path: Path) -> None:
    theirs = diffusers_unet(SIZES).half()
    theirs.save_pretrained(tmp_path, variant="fp16")
    ours = loaded(tmp_path)

    assert {tensor.dtype for tensor in ours.state_dict().values()} == {torch.float32}
    assert all(torch.equal(tensor.half(), theirs.state_dict()[name]) for name, tensor in ours.state_dict().items())


def test_variants_are_chosen_by_name(tmp_path: Path) -> None:
    network = diffusers_unet(SIZES)
    for variant in ("fp16", "bf16"):
        network.save_pretrained(tmp_path, variant=variant)
    with pytest.raises(ValueError, match=r"choose variant=bf16 or variant=fp16$"):
        weight_files(tmp_path)
    assert weight_files(tmp_path, "bf16")[0].name == "diffusion_pytorch_model.bf16.safetensors"
    with pytest.raises(ValueError, match=r"^variant=fp8: .* holds bf16, fp16$"):
        weight_files(tmp_path, "fp8")
    network.save_pretrained(tmp_path)
    assert weight_files(tmp_path)[0].name == "diffusion_pytorch_model.safetensors"


def test_pickles_are_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "diffusion_pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ValueError, match=r"diffusion_pytorch_model.bin: a pickle can run code when it is read"):
        weight_files(tmp_path)


def test_a_folder_without_weights_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no diffusion_pytorch_model.safetensors$"):
        weight_files(tmp_path)


def test_shards_lie_beside_their_list(tmp_path: Path) -> None:
    index = tmp_path / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "../other/secret.safetensors"}}))
    with pytest.raises(ValueError, match=r"\.\./other/secret.safetensors is not the name of a safetensors file beside"):
        weight_files(tmp_path)


@pytest.mark.parametrize(
    "sizes", [SIZES, Sizes((64, 32), (4, 2), 2, (0, 1), 2, 24, 16)], ids=["one attending level", "all attending"]
)
def test_configurations_are_the_same_both_ways(tmp_path: Path, sizes: Sizes) -> None:
    theirs = diffusers_unet(sizes)
    theirs.save_pretrained(tmp_path)
    saved = read_json(tmp_path / "config.json")
    written = {**network_config(our_unet(sizes), num_frames=4), "sample_size": 8}

    assert our_unet(sizes).state_dict().keys() == SVDUNet(**network_options(saved, "config")).state_dict().keys()
    assert {name: value for name, value in saved.items() if not name.startswith("_")} == {
        name: value for name, value in written.items() if not name.startswith("_")
    }
    again = UNetSpatioTemporalConditionModel.from_config(written)
    assert {n: t.shape for n, t in again.state_dict().items()} == {n: t.shape for n, t in theirs.state_dict().items()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_class_name": "UNet2DConditionModel"}, "config: holds a UNet2DConditionModel, not a UNetSpatioTempor"),
        ({"layers_per_block": [1, 2]}, r"config: layers_per_block=\[1, 2\]: must be the same at every level"),
        ({"in_channels": 9}, "config: networks whose way up differs"),
        ({"block_out_channels": None}, "config: block_out_channels=None is not allowed"),
        ({"block_out_channels": [{"_target_": "os.system"}]}, r"config: block_out_channels\.0={.*} is not allowed"),
        ({"layers_per_block": 10**7}, "config: layers_per_block=10000000 is not allowed"),
        ({"layers_per_block": "2"}, "config: layers_per_block='2' is not allowed"),
    ],
    ids=str,
)
def test_other_networks_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        network_options({**network_config(our_unet(SIZES), 4), **change}, "config")
