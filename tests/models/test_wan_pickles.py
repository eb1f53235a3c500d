"""Autoencoder and text encoder of Wan as its authors save them."""

import math
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLWan
from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers
from torch import Tensor
from torch.nn import functional as F

from tests.models.dit.pipelines import text_encoder, tokenizer
from vdm.models.diffusers_autoencoders import WanAutoencoder
from vdm.models.text_encoders import PretrainedTextEncoder
from vdm.models.wan_autoencoder_file import authors_names, autoencoder_options
from vdm.models.wan_text_encoder_file import authors_name as name_in_text_encoder

NARROW = {"base_dim": 4, "dim_mult": [1, 2, 4, 4], "temperal_downsample": [False, True, True]}
LATER = {
    **{"base_dim": 160, "decoder_base_dim": 256, "z_dim": 48, "is_residual": True, "in_channels": 12},
    **{"out_channels": 12, "patch_size": 2, "latents_mean": [0.0] * 48, "latents_std": [1.0] * 48},
}


def as_authors(module: AutoencoderKLWan) -> dict[str, Tensor]:
    names = authors_names(module)
    return {names[name]: tensor for name, tensor in module.state_dict().items()}


def test_names_of_the_autoencoder_of_wan_2_1_are_those_that_diffusers_converts() -> None:
    with torch.device("meta"):
        published = AutoencoderKLWan()
    own, names = published.state_dict(), authors_names(published)
    theirs = {names[name]: tensor for name, tensor in own.items()}
    converted = convert_wan_vae_to_diffusers(theirs)
    assert len(theirs) == len(own)
    assert converted.keys() == own.keys()
    assert all(converted[name] is own[name] for name in own)
    assert autoencoder_options(theirs).items() <= {**published.config, "decoder_base_dim": 96}.items()


def test_names_of_the_autoencoder_of_wan_2_2_are_those_of_its_authors() -> None:
    with torch.device("meta"):
        published = AutoencoderKLWan(**LATER)
    theirs = as_authors(published)
    assert len(theirs) == len(published.state_dict())
    # As wan/modules/vae2_2.py builds them: residual blocks, then what changes the resolution.
    for name, shape in {
        "conv1.weight": [96, 96, 1, 1, 1],
        "encoder.conv1.weight": [160, 12, 3, 3, 3],
        "encoder.downsamples.0.downsamples.1.residual.6.bias": [160],
        "encoder.downsamples.0.downsamples.2.resample.1.weight": [160, 160, 3, 3],
        "encoder.downsamples.1.downsamples.0.shortcut.weight": [320, 160, 1, 1, 1],
        "encoder.downsamples.2.downsamples.2.time_conv.bias": [640],
        "encoder.downsamples.3.downsamples.1.residual.3.gamma": [640, 1, 1, 1],
        "encoder.middle.1.to_qkv.weight": [1920, 640, 1, 1],
        "encoder.head.2.weight": [96, 640, 3, 3, 3],
        "decoder.middle.2.residual.2.weight": [1024, 1024, 3, 3, 3],
        "decoder.upsamples.1.upsamples.2.residual.0.gamma": [1024, 1, 1, 1],
        "decoder.upsamples.1.upsamples.3.time_conv.weight": [2048, 1024, 3, 1, 1],
        "decoder.upsamples.2.upsamples.3.resample.1.weight": [512, 512, 3, 3],
        "decoder.upsamples.3.upsamples.0.shortcut.weight": [256, 512, 1, 1, 1],
        "decoder.head.0.gamma": [256, 1, 1, 1],
    }.items():
        assert list(theirs[name].shape) == shape, name
    options = autoencoder_options(theirs)
    assert {name: options[name] for name in LATER if not name.startswith("latents")} == {
        name: value for name, value in LATER.items() if not name.startswith("latents")
    }
    assert len(options["latents_mean"]) == len(options["latents_std"]) == 48


@pytest.mark.parametrize("options", [NARROW, {**LATER, "base_dim": 4, "decoder_base_dim": 4}], ids=["2.1", "2.2"])
def test_an_autoencoder_of_the_authors_encodes_and_decodes_like_that_of_diffusers(
    options: dict[str, Any], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    expected = AutoencoderKLWan(**options).eval()
    torch.save({name: tensor.bfloat16() for name, tensor in as_authors(expected).items()}, tmp_path / "VAE.pth")
    expected = expected.bfloat16().float()
    loaded = WanAutoencoder(str(tmp_path), "VAE.pth")
    assert loaded.compression.pixels == (16 if "is_residual" in options else 8)

    video = torch.randint(0, 256, (1, 3, 5, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        latents = expected.encode(video / 127.5 - 1).latent_dist.mode()
        torch.testing.assert_close(loaded.encode(video) * loaded.std + loaded.mean, latents, rtol=1e-4, atol=1e-5)
    assert {tensor.dtype for tensor in loaded.frozen.state_dict().values()} == {torch.float32}


def encoded_by_authors(weights: dict[str, Tensor], ids: Tensor, mask: Tensor, heads: int) -> Tensor:
    """The encoder of wan/modules/t5.py, written down anew from its formulas."""

    def normed(x: Tensor, name: str) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * weights[f"{name}.weight"]

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ weights[f"{name}.weight"].T

    def bucket(distance: int) -> int:
        far = (
            8 + int(math.log(max(abs(distance), 1) / 8) / math.log(128 / 8) * 8)
            if abs(distance) >= 8
            else abs(distance)
        )
        return min(far, 15) + (16 if distance > 0 else 0)

    x, length = weights["token_embedding.weight"][ids], ids.shape[1]
    buckets = torch.tensor([[bucket(key - query) for key in range(length)] for query in range(length)])
    for block in range(2):
        own = f"blocks.{block}"
        h = normed(x, f"{own}.norm1")
        q, k, v = (linear(h, f"{own}.attn.{part}").unflatten(-1, (heads, -1)) for part in "qkv")
        scores = torch.einsum("binc,bjnc->bnij", q, k)
        scores = scores + weights[f"{own}.pos_embedding.embedding.weight"][buckets].permute(2, 0, 1)
        scores = scores.masked_fill(mask[:, None, None] == 0, torch.finfo(torch.float32).min)
        x = x + linear(torch.einsum("bnij,bjnc->binc", scores.softmax(-1), v).flatten(2), f"{own}.attn.o")
        h = normed(x, f"{own}.norm2")
        gate = F.gelu(linear(h, f"{own}.ffn.gate.0"), approximate="tanh")
        x = x + linear(linear(h, f"{own}.ffn.fc1") * gate, f"{own}.ffn.fc2")
    return normed(x, "norm")


def save_text_encoder(folder: Path) -> dict[str, Tensor]:
    weights = {name_in_text_encoder(name): tensor for name, tensor in text_encoder().state_dict().items()}
    torch.save(weights, folder / "t5.pth")
    tokenizer().save_pretrained(folder / "google" / "umt5-xxl")
    return weights


def test_a_text_encoder_of_the_authors_encodes_as_their_formulas_do(tmp_path: Path) -> None:
    weights = save_text_encoder(tmp_path)
    loaded = PretrainedTextEncoder(str(tmp_path), 32, subfolder="t5.pth", tokenizer="google/umt5-xxl")
    captions = ["a red dog runs and a cat runs", "cat"]
    found = loaded(captions)
    words = tokenizer()(captions, padding="longest", return_tensors="pt")
    assert words.input_ids.shape[1] > 8, "far distances"
    expected = encoded_by_authors(weights, words.input_ids, words.attention_mask, heads=2)
    torch.testing.assert_close(
        found.tokens * found.mask[..., None], expected * found.mask[..., None], rtol=1e-5, atol=1e-5
    )
    assert loaded.frozen.shared.weight is loaded.frozen.encoder.embed_tokens.weight


class RunsCode:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("ran"),))


def damages() -> dict[str, tuple[Any, str]]:
    weights = as_authors(AutoencoderKLWan(**NARROW))
    first = next(iter(weights))
    return {
        "code": (RunsCode(), "can't be read without running code: Unsupported global: GLOBAL "),
        "list": ([1], "holds no mapping of names to tensors"),
        "sparse": ({"x": torch.eye(2).to_sparse()}, "holds no mapping of names to tensors"),
        "other": ({"x": torch.zeros(1)}, "not an autoencoder of Wan: encoder.conv1.weight is missing"),
        "missing": (
            {k: v for k, v in weights.items() if k != "decoder.head.0.gamma"},
            "decoder.head.0.gamma is missing",
        ),
        "shape": (
            {**weights, "decoder.head.0.gamma": torch.zeros(3, 1, 1, 1)},
            "decoder.head.0.gamma has shape [3, 1, 1, 1], but [4, 1, 1, 1]",
        ),
        "unknown": ({**weights, "x": weights[first]}, "x is not a weight of this model"),
        "channels": (
            {**weights, "conv2.weight": torch.zeros(17, 16, 1, 1, 1)},
            "not an autoencoder of Wan: it has 17 channels, but",
        ),
    }


@pytest.mark.parametrize("name", damages())
def test_other_files_are_refused_in_one_line_and_run_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    content, message = damages()[name]
    if name == "code":
        Path("VAE.pth").write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, "VAE.pth")
    with pytest.raises(ValueError, match=f"^name_or_path: can't load .*{re.escape(message)}") as refused:
        WanAutoencoder(str(tmp_path), "VAE.pth")
    assert "\n" not in str(refused.value)
    assert not Path("ran").exists()


def test_damaged_and_missing_files_are_refused_in_one_line(tmp_path: Path) -> None:
    save_text_encoder(tmp_path)
    content = (tmp_path / "t5.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(content[: len(content) // 2])
    (tmp_path / "empty.pth").write_bytes(b"")
    for file, message in (
        ("cut.pth", "can't be read without running code: "),
        ("empty.pth", "can't be read without running code: "),
        ("none.pth", "not a regular file"),
    ):
        with pytest.raises(ValueError, match=message) as refused:
            PretrainedTextEncoder(str(tmp_path), 32, subfolder=file, tokenizer="google/umt5-xxl")
        assert "\n" not in str(refused.value)
