"""VideoMAE v2 as its authors publish it, the network of the content-debiased FVD."""

import re
import warnings
from collections.abc import Iterator, Mapping
from io import BufferedReader
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from safetensors.torch import load
from torch import Tensor, nn

from vdm.evaluation.extractors.batches import NetworkExtractor, Video, check_frames
from vdm.evaluation.extractors.checksums import file_checksum
from vdm.evaluation.extractors.preprocess import videomae_cdfvd
from vdm.extras import needs_extra
from vdm.ranges import Location, Sha256, Size, Width
from vdm.regular_files import open_regular

_FRAMES = 16
_SIZE = 224
_NAMES = {
    "patch_embed.proj": "videomae.embeddings.patch_embeddings.projection",
    "fc_norm": "fc_norm",
    "head": "classifier",
}
_NAMES_IN_BLOCK = {
    "norm1": "layernorm_before",
    "attn.proj": "attention.output.dense",
    "norm2": "layernorm_after",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}


class VideoMAEv2(NetworkExtractor):
    """VideoMAE v2 (Wang et al. 2023) with its published weights, prepared and read out as cd-fvd does.

    Ge et al. 2024, "On the Content Bias in Fréchet Video Distance", measure FVD with ``vit_g_hybrid_pt_1200e_ssv2_ft``:
    frames from 0 to 1, resized to 224x224 without antialiasing, and the normalized mean over tokens before the
    classifier, 1408 numbers. The weights are loaded into transformers' network, which computes the same.

    Args:
        path: The published ``.pth``, of which only tensors are read, or the same tensors as ``.safetensors``.
        sha256: The SHA-256 that it must have; None if any will do.
        num_heads: Attention heads, which the weights don't tell; 16 of ViT-g.
        batch_size: Clips in a batch.
    """

    is_of_fvd = True

    def __init__(
        self, path: Location, sha256: Sha256 | None = None, num_heads: Width = 16, batch_size: Size = 8
    ) -> None:
        tensors, checksum = _read(path, sha256)
        network = _network(tensors, path, num_heads)
        super().__init__(network, checksum, batch_size)
        self.encoder, self.normalize = network.videomae, network.fc_norm

    def prepare(self, video: Video) -> Float[Tensor, "b 3 16 224 224"]:
        """Return pixels by the rule of cd-fvd."""
        check_frames(video, video.shape[2] == _FRAMES, f"VideoMAE v2 takes {_FRAMES}")
        return videomae_cdfvd(video)

    def features(self, pixels: Float[Tensor, "b 3 16 h w"]) -> Float[Tensor, "b 1 d"]:
        """Return the features of clips of 16 frames."""
        tokens = self.encoder(pixel_values=rearrange(pixels, "b c t h w -> b t c h w")).last_hidden_state
        return self.normalize(tokens.mean(1, keepdim=True))


def _read(path: str, sha256: str | None) -> tuple[dict[str, Tensor], str]:
    """Return the tensors of a file by their published names, and the file's SHA-256."""
    try:
        with open_regular(path) as file:
            checksum = file_checksum(file, path, sha256)
            content = _content(file, path)
    except FileNotFoundError:
        raise ValueError(f"path: {path}: no such file") from None
    except OSError as error:
        raise ValueError(f"path: {path}: can't be read: {error.strerror or error}") from None
    for key in ("model", "module"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not all(isinstance(values, Tensor) for values in content.values()):
        raise ValueError(f"path: {path}: holds no mapping of names to tensors")
    return {str(name): values for name, values in content.items()}, checksum


def _content(file: BufferedReader, path: str) -> Any:
    try:
        if path.endswith(".safetensors"):
            return load(file.read())
        return torch.load(file, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # damaged files make torch raise errors of many kinds
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"path: {path}: holds no tensors that can be read without running code: {reason}") from None


def _network(tensors: dict[str, Tensor], path: str, num_heads: int) -> Any:
    """Return transformers' network with published weights; its sizes are those of the weights."""
    with needs_extra("evaluation", "VideoMAE v2"):
        from transformers import VideoMAEConfig, VideoMAEForVideoClassification
    try:
        width, _, tubelet, patch, _ = tensors["patch_embed.proj.weight"].shape
        hidden = len(tensors["blocks.0.mlp.fc1.weight"])
        classes = len(tensors["head.weight"])
        has_bias = "blocks.0.attn.q_bias" in tensors
    except (KeyError, ValueError) as error:
        raise ValueError(f"path: {path}: not the weights of a VideoMAE v2 classifier: {error}") from None
    if width % num_heads:
        raise ValueError(f"num_heads={num_heads}: must divide the width of {path}, which is {width}")
    depth = 1 + max(int(found[1]) for name in tensors if (found := re.match(r"blocks\.(\d{1,3})\.", name)))
    config = VideoMAEConfig(
        image_size=_SIZE,
        patch_size=patch,
        num_frames=_FRAMES,
        tubelet_size=tubelet,
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=num_heads,
        intermediate_size=hidden,
        layer_norm_eps=1e-6,
        qv_bias=has_bias,
        use_mean_pooling=True,
    )
    config.num_labels = classes
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network: nn.Module = VideoMAEForVideoClassification(config)
    try:
        network.load_state_dict(dict(_renamed(tensors)), assign=True)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"path: {path}: not the weights of a VideoMAE v2 classifier: {reason}") from None
    return network.float()


def _renamed(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Yield published weights by the names that transformers gives them."""
    for name, values in tensors.items():
        found = re.fullmatch(r"blocks\.(\d{1,3})\.(.+)", name)
        if found is None:
            part, _, kind = name.rpartition(".")
            yield f"{_NAMES.get(part, part)}.{kind}", values
            continue
        block, inner = f"videomae.encoder.layer.{found[1]}", found[2]
        attention = f"{block}.attention.attention"
        if inner == "attn.qkv.weight":
            for part, rows in zip(("query", "key", "value"), values.chunk(3), strict=True):
                yield f"{attention}.{part}.weight", rows
        elif inner in ("attn.q_bias", "attn.v_bias"):
            yield f"{attention}.{'query' if inner == 'attn.q_bias' else 'value'}.bias", values
        else:
            part, _, kind = inner.rpartition(".")
            yield f"{block}.{_NAMES_IN_BLOCK.get(part, part)}.{kind}", values
