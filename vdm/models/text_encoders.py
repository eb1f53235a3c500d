"""Text encoders behind one interface: captions in, token embeddings out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


@dataclass(frozen=True)
class EncodedText:
    """Embedded captions.

    Args:
        tokens: One embedding a token, padded to the longest caption.
        mask: True where a token is real.
        pooled: One embedding a caption.
    """

    tokens: Float[Tensor, "b l d"]
    mask: Bool[Tensor, "b l"]
    pooled: Float[Tensor, "b d"]


class TextEncoder(Protocol):
    """Turns captions into embeddings of width ``channels``; the empty caption stands for "no condition"."""

    channels: int

    def __call__(self, captions: Sequence[str]) -> EncodedText:
        """Embed captions."""
        ...


def masked_mean(tokens: Float[Tensor, "b l d"], mask: Bool[Tensor, "b l"]) -> Float[Tensor, "b d"]:
    """Return the mean over real tokens."""
    weight = mask[..., None].to(tokens.dtype)
    return (tokens * weight).sum(1) / weight.sum(1).clamp(min=1)


class ByteTransformer(nn.Module):
    """A small transformer over the UTF-8 bytes of a caption, trained along with the network: nothing to download.

    Args:
        channels: Width.
        num_layers: Depth.
        head_channels: Width of an attention head; divides ``channels``.
        max_bytes: Captions are cut after this many bytes.
    """

    _START = 256
    _PADDING = 257

    def __init__(self, channels: int = 128, num_layers: int = 2, head_channels: int = 32, max_bytes: int = 256) -> None:
        super().__init__()
        if min(channels, head_channels) < 1 or channels % head_channels:
            raise ValueError(f"head_channels must divide channels, but {head_channels} does not divide {channels}")
        if max_bytes < 1:
            raise ValueError(f"max_bytes must be at least 1, but is {max_bytes}")
        self.channels, self.max_bytes = channels, max_bytes
        self.embed = nn.Embedding(258, channels)
        self.position = nn.Parameter(0.02 * torch.randn(max_bytes + 1, channels))
        nn.init.normal_(self.embed.weight, std=0.02)
        layer = nn.TransformerEncoderLayer(
            channels, channels // head_channels, 4 * channels, 0.0, "gelu", batch_first=True, norm_first=True
        )
        # Nested tensors, the fast path of inference, would give other numbers than training does.
        self.layers = nn.TransformerEncoder(layer, num_layers, nn.LayerNorm(channels), enable_nested_tensor=False)

    def forward(self, captions: Sequence[str]) -> EncodedText:
        """Embed captions."""
        rows = [[self._START, *caption.encode(errors="surrogatepass")[: self.max_bytes]] for caption in captions]
        length = max(map(len, rows))
        padded = torch.tensor([row + [self._PADDING] * (length - len(row)) for row in rows])
        padded = padded.to(self.position.device, non_blocking=True)
        mask = padded != self._PADDING
        tokens = self.layers(self.embed(padded) + self.position[:length], src_key_padding_mask=~mask)
        return EncodedText(tokens, mask, masked_mean(tokens, mask))


_VOCABULARIES = ("tokenizer.json", "spiece.model", "vocab.json")


class PretrainedTextEncoder(nn.Module):
    """A frozen T5 or CLIP text encoder from transformers; its weights are not part of checkpoints.

    Args:
        name_or_path: Folder saved by transformers, or a name on the hub.
        max_tokens: Captions are cut after this many tokens.
    """

    def __init__(self, name_or_path: str, max_tokens: int = 77) -> None:
        super().__init__()
        self.frozen, self.tokenizer = _load_pretrained(name_or_path)
        self.channels: int = self.frozen.config.hidden_size
        longest = getattr(self.frozen.config, "max_position_embeddings", max_tokens)
        if not 1 <= max_tokens <= longest:
            raise ValueError(f"max_tokens={max_tokens}: {name_or_path} takes at most {longest} tokens")
        self.frozen.requires_grad_(False).eval()
        self.max_tokens = max_tokens
        # The weights stay where they came from: neither saved with a checkpoint nor asked for when one is loaded.
        self.register_state_dict_post_hook(_drop_frozen)
        self.register_load_state_dict_post_hook(_forgive_frozen)

    def train(self, mode: bool = True) -> "PretrainedTextEncoder":
        """Stay in evaluation mode: the encoder is frozen."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, captions: Sequence[str]) -> EncodedText:
        """Embed captions."""
        encoded = self.tokenizer(
            list(captions), padding=True, truncation=True, max_length=self.max_tokens, return_tensors="pt"
        ).to(next(self.frozen.parameters()).device)
        mask = encoded["attention_mask"].bool()
        tokens = self.frozen(input_ids=encoded["input_ids"], attention_mask=mask.long()).last_hidden_state.float()
        return EncodedText(tokens, mask, masked_mean(tokens, mask))


def _load_pretrained(name_or_path: str) -> tuple[Any, Any]:
    """Return the encoder and its tokenizer."""
    try:
        from transformers import AutoConfig, AutoTokenizer, CLIPTextModel, T5EncoderModel
    except ImportError:
        raise ValueError(
            "name_or_path: pretrained text encoders need transformers; install the extra 'pretrained'"
        ) from None
    classes = {"t5": T5EncoderModel, "clip": CLIPTextModel, "clip_text_model": CLIPTextModel}
    folder = Path(name_or_path)
    if folder.is_dir() and not any((folder / name).is_file() for name in _VOCABULARIES):
        # transformers would make up a tokenizer to which every word is unknown.
        raise ValueError(f"name_or_path: {name_or_path} holds no tokenizer: none of {', '.join(_VOCABULARIES)}")
    try:
        kind = AutoConfig.from_pretrained(name_or_path).model_type
        if kind not in classes:
            raise ValueError(f"it holds a model of type {kind}; allowed are T5 and CLIP")
        model = classes[kind].from_pretrained(name_or_path, use_safetensors=True)
        tokenizer = AutoTokenizer.from_pretrained(name_or_path)
    except (OSError, ValueError) as error:
        raise ValueError(f"name_or_path: can't load {name_or_path}: {str(error).splitlines()[0]}") from None
    return model, tokenizer


def _drop_frozen(module: nn.Module, state: dict[str, Tensor], prefix: str, metadata: object) -> None:
    for name in [name for name in state if name.startswith(f"{prefix}frozen.")]:
        del state[name]


def _forgive_frozen(module: nn.Module, keys: Any) -> None:
    own = {f"frozen.{name}" for name, _ in module.get_submodule("frozen").named_parameters()}
    own |= {f"frozen.{name}" for name, _ in module.get_submodule("frozen").named_buffers()}
    missing = keys.missing_keys
    missing[:] = [name for name in missing if f"frozen.{name.rpartition('frozen.')[2]}" not in own]


def no_text() -> None:
    """Stand for a model without text."""
