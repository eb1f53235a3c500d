"""Tiny T5 and CLIP text encoders with tokenizers, saved as transformers saves them; nothing is downloaded."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast, T5Config, T5EncoderModel

WORDS = ["<pad>", "</s>", "<unk>", "<s>", *["a", "red", "dog", "cat", "runs", "jumps", "over", "the", "fence"]]


def save_tokenizer(folder: Path) -> None:
    """Write a tokenizer of a few words, which ends each caption with ``</s>``."""
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)


def save_t5(folder: Path) -> Path:
    """Write a T5 encoder of width 16."""
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=len(WORDS), d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, pad_token_id=0, eos_token_id=1
    )
    T5EncoderModel(config).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def save_clip(folder: Path) -> Path:
    """Write a CLIP text encoder of width 24, for captions of up to 12 tokens."""
    torch.manual_seed(0)
    config = CLIPTextConfig(
        vocab_size=len(WORDS),
        hidden_size=24,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=12,
        pad_token_id=0,
        bos_token_id=3,
        eos_token_id=1,
    )
    CLIPTextModel(config).save_pretrained(folder)
    save_tokenizer(folder)
    return folder
