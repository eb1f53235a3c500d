"""CLIP scores: do frames show what the caption says, or what the true frames show?"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from einops import rearrange, reduce
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from vdm.evaluation.base import EvaluatedClip, Features
from vdm.evaluation.extractors.batches import in_batches, stacked
from vdm.evaluation.extractors.checksums import weights_checksum
from vdm.evaluation.extractors.pairs import compare_frames
from vdm.evaluation.extractors.transformers_models import (
    file_checksums,
    files_of_network,
    load_transformer,
    read_pixel_rule,
)
from vdm.models.component_config import check_files
from vdm.models.frozen import loaded
from vdm.ranges import Location, Size

_VOCABULARIES = ("tokenizer.json", "vocab.json")
_TOKENIZER = (*_VOCABULARIES, "merges.txt", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
"""Files that a tokenizer may consist of."""


class ClipText:
    """CLIP-T: cosine of the embeddings of the caption and of a frame, averaged over frames; -1 to 1.

    Radford et al. 2021, "CLIP"; as a score of videos Wu et al. 2021, "GODIVA" (CLIPSIM). Captions are cut after the
    network's number of tokens.

    Args:
        name_or_path: Folder saved by transformers with its tokenizer, or a name on the hub.
        batch_size: Clips in a batch; all their frames are computed at once.
    """

    def __init__(self, name_or_path: Location, batch_size: Size = 4) -> None:
        self.embedder = _FrameEmbedder(name_or_path)
        self.tokenizer = _tokenizer(name_or_path)
        self.checksum: str | None = self.embedder.checksum
        self.files: Mapping[str, str] = self.embedder.files | file_checksums(name_or_path, _TOKENIZER)
        self.batch_size = batch_size

    def to(self, device: torch.device) -> Self:
        """Move the network to a device."""
        self.embedder.to(device)
        return self

    def describe(self, clips: Sequence[EvaluatedClip]) -> Features:
        """Return the score of each clip with its caption.

        Raises:
            ValueError: In one line, if a clip has no caption.
        """
        for clip in clips:
            if not clip.caption:
                raise ValueError(f"{clip.key}: has no caption to compare its frames with")
        return in_batches(self._scores, clips, self.batch_size)

    def _scores(self, clips: Sequence[EvaluatedClip]) -> Float[Tensor, "b 1 1"]:
        network, device = self.embedder.network, self.embedder.device
        tokens = self.tokenizer(
            [clip.caption for clip in clips],
            padding="max_length",
            truncation=True,
            max_length=network.config.text_config.max_position_embeddings,
            return_tensors="pt",
        ).to(device)
        text = network.get_text_features(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
        frames = self.embedder(rearrange(stacked(clips).to(device), "b c t h w -> (b t) c h w"))
        frames = rearrange(frames, "(b t) d -> b t d", b=len(clips))
        cosines = torch.einsum("b t d, b d -> b t", frames, F.normalize(text.pooler_output, dim=-1))
        return reduce(cosines, "b t -> b 1 1", "mean")


class ClipVideo:
    """CLIP-V: cosine of the embeddings of a frame and of the true frame, averaged over frames; -1 to 1.

    Args:
        name_or_path: Folder saved by transformers, or a name on the hub.
        batch_size: Clips in a batch; all their frames are computed at once.
    """

    def __init__(self, name_or_path: Location, batch_size: Size = 4) -> None:
        self.embedder = _FrameEmbedder(name_or_path)
        self.checksum: str | None = self.embedder.checksum
        self.files: Mapping[str, str] = self.embedder.files
        self.batch_size = batch_size

    def to(self, device: torch.device) -> Self:
        """Move the network to a device."""
        self.embedder.to(device)
        return self

    def compare(self, clips: Sequence[EvaluatedClip], truth: Sequence[EvaluatedClip]) -> Features:
        """Return the score of each clip; see ``PairExtractor``."""
        return compare_frames(self._cosines, clips, truth, self.batch_size, self.embedder.device)

    def _cosines(self, frames: UInt8[Tensor, "n c h w"], truth: UInt8[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
        return (self.embedder(frames) * self.embedder(truth)).sum(-1)


class _FrameEmbedder:
    """CLIP's embeddings of frames, of length 1."""

    def __init__(self, name_or_path: str) -> None:
        self.network: Any = load_transformer(name_or_path, ("CLIPModel",), "CLIP scores").eval()
        self.rule, self.files = read_pixel_rule(name_or_path), files_of_network(name_or_path)
        self.checksum = weights_checksum(self.network.state_dict())
        self.device = torch.device("cpu")

    def to(self, device: torch.device) -> None:
        self.network.to(device)
        self.device = device

    def __call__(self, frames: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        pixels = rearrange(self.rule.apply(frames[:, :, None]), "n c 1 h w -> n c h w")
        return F.normalize(self.network.get_image_features(pixel_values=pixels).pooler_output, dim=-1)


def _tokenizer(name_or_path: str) -> Any:
    from transformers import AutoTokenizer

    folder = Path(name_or_path)
    if folder.is_dir():
        check_files(folder)
        if not any((folder / name).is_file() for name in _VOCABULARIES):
            # transformers would silently make a tokenizer with an empty vocabulary.
            raise ValueError(f"name_or_path: {folder} holds no tokenizer: none of {', '.join(_VOCABULARIES)}")
    return loaded(lambda: AutoTokenizer.from_pretrained(name_or_path, trust_remote_code=False), name_or_path, "")
