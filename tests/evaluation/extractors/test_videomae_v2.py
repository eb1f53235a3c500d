"""VideoMAE v2's published weights in transformers' network, against the published network's equations."""

import math
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from tests.evaluation.extractors.networks import batch, make_clips
from vdm.evaluation.extractors.preprocess import videomae_cdfvd
from vdm.evaluation.extractors.videomae_v2 import VideoMAEv2

WIDTH, HIDDEN, HEADS, PATCH, TUBELET = 8, 20, 2, 56, 2


def published() -> dict[str, Tensor]:
    """Return random weights by the names of the published checkpoint, for patches of 56x56 pixels."""
    generator = torch.Generator().manual_seed(0)
    shapes: dict[str, tuple[int, ...]] = {"patch_embed.proj.weight": (WIDTH, 3, TUBELET, PATCH, PATCH)}
    shapes |= {"patch_embed.proj.bias": (WIDTH,), "fc_norm.weight": (WIDTH,), "fc_norm.bias": (WIDTH,)}
    shapes |= {"head.weight": (5, WIDTH), "head.bias": (5,)}
    for block in ("blocks.0", "blocks.1"):
        for norm in ("norm1", "norm2"):
            shapes |= {f"{block}.{norm}.weight": (WIDTH,), f"{block}.{norm}.bias": (WIDTH,)}
        shapes |= {f"{block}.attn.q_bias": (WIDTH,), f"{block}.attn.v_bias": (WIDTH,)}
        shapes |= {f"{block}.attn.qkv.weight": (3 * WIDTH, WIDTH)}
        for layer, (outputs, inputs) in {
            "attn.proj": (WIDTH, WIDTH),
            "mlp.fc1": (HIDDEN, WIDTH),
            "mlp.fc2": (WIDTH, HIDDEN),
        }.items():
            shapes |= {f"{block}.{layer}.weight": (outputs, inputs), f"{block}.{layer}.bias": (outputs,)}
    return {name: 0.5 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def transcription(w: dict[str, Tensor], x: Tensor) -> Tensor:
    """Return the features of the published network, ``forward_features``: a ViT over tubelets with fixed positions."""
    tokens = F.conv3d(x, w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], stride=(TUBELET, PATCH, PATCH))
    tokens = tokens.flatten(2).transpose(1, 2)
    for place in range(tokens.shape[1]):
        for channel in range(WIDTH):
            angle = place / 10000 ** (2 * (channel // 2) / WIDTH)
            tokens[:, place, channel] += math.sin(angle) if channel % 2 == 0 else math.cos(angle)
    for block in ("blocks.0", "blocks.1"):
        h = F.layer_norm(tokens, (WIDTH,), w[f"{block}.norm1.weight"], w[f"{block}.norm1.bias"], 1e-6)
        bias = torch.cat([w[f"{block}.attn.q_bias"], torch.zeros(WIDTH), w[f"{block}.attn.v_bias"]])
        q, k, v = F.linear(h, w[f"{block}.attn.qkv.weight"], bias).chunk(3, -1)
        heads = []
        for head in range(HEADS):
            part = slice(head * WIDTH // HEADS, (head + 1) * WIDTH // HEADS)
            scores = q[..., part] @ k[..., part].transpose(1, 2) / math.sqrt(WIDTH / HEADS)
            heads.append(scores.softmax(-1) @ v[..., part])
        attended = torch.cat(heads, -1)
        tokens = tokens + F.linear(attended, w[f"{block}.attn.proj.weight"], w[f"{block}.attn.proj.bias"])
        h = F.layer_norm(tokens, (WIDTH,), w[f"{block}.norm2.weight"], w[f"{block}.norm2.bias"], 1e-6)
        h = F.gelu(F.linear(h, w[f"{block}.mlp.fc1.weight"], w[f"{block}.mlp.fc1.bias"]))
        tokens = tokens + F.linear(h, w[f"{block}.mlp.fc2.weight"], w[f"{block}.mlp.fc2.bias"])
    return F.layer_norm(tokens.mean(1), (WIDTH,), w["fc_norm.weight"], w["fc_norm.bias"], 1e-6)


@pytest.mark.parametrize("form", ["module.pth", "plain.pth", "weights.safetensors"])
def test_features_are_those_of_the_published_network(tmp_path: Path, form: str) -> None:
    weights, path = published(), tmp_path / form
    if form.endswith(".safetensors"):
        save_file(weights, path)
    else:
        torch.save({"module": weights} if form == "module.pth" else weights, path)
    clips = make_clips(3)
    extractor = VideoMAEv2(str(path), num_heads=HEADS, batch_size=2)
    features = extractor.describe(clips)
    assert features.shape == (3, 1, WIDTH)
    torch.testing.assert_close(
        features[:, 0], transcription(weights, videomae_cdfvd(batch(clips))), rtol=1e-4, atol=1e-4
    )


class Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_other_files_are_one_line_and_run_nothing(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    torch.save({"module": Trap(ran)}, tmp_path / "trap.pth")
    (tmp_path / "pickle.pth").write_bytes(pickle.dumps(Trap(ran)))
    (tmp_path / "text.safetensors").write_text("no weights")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pth")
    lacking = published()
    del lacking["blocks.1.mlp.fc2.bias"]
    torch.save(lacking, tmp_path / "lacking.pth")
    torch.save(published(), tmp_path / "whole.pth")
    for name, reason in {
        "trap.pth": "holds no tensors that can be read without running code",
        "pickle.pth": "holds no tensors that can be read without running code",
        "text.safetensors": "holds no tensors that can be read without running code",
        "list.pth": "holds no mapping of names to tensors",
        "other.pth": "not the weights of a VideoMAE v2 classifier: .*patch_embed",
        "lacking.pth": "not the weights of a VideoMAE v2 classifier: .*layer.1.output.dense.bias",
        "none.pth": "no such file",
        "whole.pth": "must divide the width .* is 8",
    }.items():
        with pytest.raises(ValueError, match=reason) as caught:
            VideoMAEv2(str(tmp_path / name), num_heads=3 if name == "whole.pth" else HEADS)
        assert "\n" not in str(caught.value)
        assert not ran.exists()
    with pytest.raises(ValueError, match=r"^sha256: .*whole\.pth has SHA-256"):
        VideoMAEv2(str(tmp_path / "whole.pth"), sha256="0" * 64)


def test_it_takes_16_frames(tmp_path: Path) -> None:
    torch.save(published(), tmp_path / "whole.pth")
    with pytest.raises(ValueError, match=r"^clips have 12 frames; VideoMAE v2 takes 16$"):
        VideoMAEv2(str(tmp_path / "whole.pth"), num_heads=HEADS).describe(make_clips(1, 12))
