"""Text encoders: an interface, a small one that is trained, and pretrained ones."""

import hashlib
import html
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from vdm.models.component_config import check_files
from vdm.models.frozen import Frozen, loaded
from vdm.models.wan_text_encoder_file import load_text_encoder
from vdm.ranges import Location, Name, NameOrNothing, NumLayers, Size, Width


class EncodedText(NamedTuple):
    """Embedded captions; a tuple, since DeepSpeed finds the tensors of a module's output only in tuples.

    Args:
        tokens: Embeddings of the tokens, padded to the longest caption.
        mask: True for tokens, False for padding.
        pooled: One embedding a caption.
    """

    tokens: Float[Tensor, "b l d"]
    mask: Bool[Tensor, "b l"]
    pooled: Float[Tensor, "b d"]


class TextEncoder(Protocol):
    """Embeds captions with width ``channels``; the empty caption means "no condition"."""

    channels: int

    def __call__(self, captions: Sequence[str]) -> EncodedText:
        """Embed captions."""
        ...


def masked_mean(tokens: Float[Tensor, "b l d"], mask: Bool[Tensor, "b l"]) -> Float[Tensor, "b d"]:
    """Return the mean over the tokens that are not padding."""
    weight = mask[..., None].to(tokens.dtype)
    return (tokens * weight).sum(1) / weight.sum(1).clamp(min=1)


class ByteTransformer(nn.Module):
    """A small transformer over the UTF-8 bytes of a caption, trained with the network, so that nothing is downloaded.

    To each byte a hashed embedding of its word is added (Pagnoni et al. 2024, "Byte Latent Transformer", section
    3.2.1), and words enter the pooled embedding directly. Different words thus differ from the first step on. Without
    this, captions of one data set, which share most of their bytes, would have nearly the same embedding, and the
    network would take hundreds of steps to learn from it.

    Args:
        channels: Width.
        num_layers: Number of layers.
        head_channels: Width of an attention head; divides ``channels``.
        max_bytes: Captions are cut after this many bytes.
        num_word_buckets: Rows of the word embedding table. Words that share a row differ in their bytes alone.
    """

    _START = 256
    _PADDING = 257

    def __init__(
        self,
        channels: Width = 128,
        num_layers: NumLayers = 2,
        head_channels: Width = 32,
        max_bytes: Width = 256,
        num_word_buckets: Size = 8192,
    ) -> None:
        super().__init__()
        if head_channels < 1 or channels < 1 or channels % head_channels:
            raise ValueError(f"head_channels must divide channels, but {head_channels} does not divide {channels}")
        for name, value in (("max_bytes", max_bytes), ("num_word_buckets", num_word_buckets)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, but is {value}")
        self.channels, self.max_bytes, self.num_word_buckets = channels, max_bytes, num_word_buckets
        self.embed = nn.Embedding(258, channels)
        # The last row is for bytes outside words, such as spaces.
        self.embed_word = nn.Embedding(num_word_buckets + 1, channels)
        nn.init.normal_(self.embed_word.weight, std=2.0)
        self.position = nn.Parameter(0.02 * torch.randn(max_bytes + 1, channels))
        layer = nn.TransformerEncoderLayer(
            channels, channels // head_channels, 4 * channels, 0.0, "gelu", batch_first=True, norm_first=True
        )
        # Nested tensors, the fast path of inference, would give other results than training.
        self.layers = nn.TransformerEncoder(layer, num_layers, nn.LayerNorm(channels), enable_nested_tensor=False)

    def forward(self, captions: Sequence[str]) -> EncodedText:
        """Embed captions."""
        cut = [caption.encode(errors="surrogatepass")[: self.max_bytes] for caption in captions]
        text = self._padded([[self._START, *caption] for caption in cut], self._PADDING)
        words = self._padded(
            [[self.num_word_buckets, *self._words_by_byte(caption)] for caption in cut], self.num_word_buckets
        )
        mask = text != self._PADDING
        tokens = self.embed(text) + self.embed_word(words) + self.position[: text.shape[1]]
        tokens = self.layers(tokens, src_key_padding_mask=~mask)
        said = self._padded([self._words(caption) for caption in cut], self.num_word_buckets)
        is_word = said != self.num_word_buckets
        # The sum of the word embeddings divided by the root of their number: its size does not depend on the length.
        of_words = masked_mean(self.embed_word(said), is_word) * is_word.sum(1, keepdim=True).sqrt()
        return EncodedText(tokens, mask, masked_mean(tokens, mask) + of_words)

    def _words(self, caption: bytes) -> list[int]:
        """Return the row of each word."""
        return [self._row(word) for word in caption.split()]

    def _words_by_byte(self, caption: bytes) -> list[int]:
        """Return the row of the word of each byte."""
        return [row for word in re.findall(rb"\S+|\s", caption) for row in [self._row(word)] * len(word)]

    def _row(self, word: bytes) -> int:
        if word.isspace():
            return self.num_word_buckets
        return int.from_bytes(hashlib.blake2b(word, digest_size=8).digest(), "little") % self.num_word_buckets

    def _padded(self, rows: list[list[int]], padding: int) -> Int[Tensor, "b l"]:
        length = max(1, *map(len, rows))
        padded = torch.tensor([row + [padding] * (length - len(row)) for row in rows])
        return padded.to(self.position.device, non_blocking=True)


def clean_caption(caption: str) -> str:
    """Return a caption with the characters that HTML entities stand for, and with single spaces.

    diffusers' ``WanPipeline`` does the same; if ftfy is installed, it also repairs wrongly decoded characters.
    """
    # Python counts the separators among control characters as white space, and the pipeline does not.
    return re.sub(r"[^\S\x1c-\x1f]+", " ", html.unescape(html.unescape(caption)).strip()).strip()


_VOCABULARIES = ("tokenizer.json", "spiece.model", "vocab.json")


class PretrainedTextEncoder(Frozen):
    """A frozen T5, UMT5 or CLIP text encoder from transformers; its weights are not part of checkpoints.

    Args:
        name_or_path: Folder saved by transformers, or a name on the hub.
        max_tokens: Captions are cut after this many tokens.
        subfolder: The encoder's folder in it, as in the folder of a pipeline. Or a file of Wan's authors in it:
            ``models_t5_umt5-xxl-enc-bf16.pth``.
        tokenizer: The tokenizer's folder in it.
        variant: Variant of the weights in the file names, e.g. ``fp16``. Computation is in fp32 in any case.
        filled: Whether every caption is padded to ``max_tokens`` and the padding is attended to, as in the training of
            Stable Diffusion. Otherwise padding is masked.
        cleaned: Whether captions are cleaned first, as Wan's are: see ``clean_caption``.
    """

    def __init__(
        self,
        name_or_path: Location,
        max_tokens: Size = 77,
        subfolder: NameOrNothing = "",
        tokenizer: NameOrNothing = "",
        variant: Name | None = None,
        filled: bool = False,
        cleaned: bool = False,
    ) -> None:
        model, self.tokenizer = _load_pretrained(name_or_path, subfolder, tokenizer, variant)
        super().__init__(model)
        self.channels: int = self.frozen.config.hidden_size
        longest = getattr(self.frozen.config, "max_position_embeddings", max_tokens)
        if not 1 <= max_tokens <= longest:
            raise ValueError(f"max_tokens={max_tokens}: {name_or_path} takes at most {longest} tokens")
        self.max_tokens, self.filled, self.cleaned = max_tokens, filled, cleaned

    def identity(self) -> dict[str, Any]:
        """Return the properties that determine the embeddings; see ``Frozen``."""
        vocabulary = json.dumps(self.tokenizer.get_vocab(), sort_keys=True).encode()
        tokenizer = hashlib.blake2b(vocabulary, digest_size=16).hexdigest()
        settings = {"max_tokens": self.max_tokens, "filled": self.filled} | ({"cleaned": True} if self.cleaned else {})
        return {**super().identity(), "tokenizer": tokenizer, **settings}

    @torch.no_grad()
    def forward(self, captions: Sequence[str]) -> EncodedText:
        """Embed captions."""
        encoded = self.tokenizer(
            [clean_caption(caption) for caption in captions] if self.cleaned else list(captions),
            padding="max_length" if self.filled else "longest",
            truncation=True,
            max_length=self.max_tokens,
            return_tensors="pt",
        ).to(next(self.frozen.parameters()).device)
        real = encoded["attention_mask"].bool()
        mask = torch.ones_like(real) if self.filled else real
        with self.full_precision():
            tokens = self.frozen(input_ids=encoded["input_ids"], attention_mask=mask.long()).last_hidden_state
        return EncodedText(tokens, mask, masked_mean(tokens, real))


def _load_pretrained(name_or_path: str, subfolder: str, tokenizer: str, variant: str | None) -> tuple[Any, Any]:
    """Return the encoder and its tokenizer."""
    try:
        from transformers import AutoConfig, AutoTokenizer, CLIPTextModel, T5EncoderModel, UMT5EncoderModel
    except ImportError:
        raise ValueError(
            "name_or_path: pretrained text encoders need transformers; install the extra 'pretrained'"
        ) from None
    clip = {"clip": CLIPTextModel, "clip_text_model": CLIPTextModel}
    classes = {"t5": T5EncoderModel, "umt5": UMT5EncoderModel, **clip}
    folder = Path(name_or_path) / tokenizer
    if folder.is_dir() and not any((folder / name).is_file() for name in _VOCABULARIES):
        # transformers would silently make a tokenizer with an empty vocabulary.
        raise ValueError(f"name_or_path: {folder} holds no tokenizer: none of {', '.join(_VOCABULARIES)}")

    if folder.is_dir():
        check_files(folder)

    def load() -> tuple[Any, Any]:
        # Without trust_remote_code=False, transformers would ask on the terminal whether to run code of the folder.
        words = AutoTokenizer.from_pretrained(name_or_path, subfolder=tokenizer, trust_remote_code=False)
        file = Path(name_or_path) / subfolder
        return (load_text_encoder(file) if file.suffix == ".pth" else load_encoder()), words

    def load_encoder() -> Any:
        kind = AutoConfig.from_pretrained(name_or_path, subfolder=subfolder, trust_remote_code=False).model_type
        if kind not in classes:
            raise ValueError(f"it holds a model of type {kind}; allowed are T5, UMT5 and CLIP")
        options: dict[str, Any] = {"subfolder": subfolder, "variant": variant, "dtype": torch.float32}
        return classes[kind].from_pretrained(name_or_path, use_safetensors=True, **options)

    return loaded(load, name_or_path, subfolder)


def no_text() -> None:
    """Return None, the text encoder of a model without text."""
