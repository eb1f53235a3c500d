"""A whole small text-to-video pipeline with random weights, saved as diffusers saves it."""

import json
import string
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, TextToVideoSDPipeline
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from tests.models.modelscope.peers import Sizes, diffusers_unet

SIZES = Sizes((32, 64), 1, (0,), 16, 24)
MAX_TOKENS = 12
LICENCE = "Attribution-NonCommercial 4.0 International (as a test has it)\n"
# As published: ali-vilab/text-to-video-ms-1.7b, scheduler/scheduler_config.json
SCHEDULER = {
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "trained_betas": None,
}


def autoencoder() -> AutoencoderKL:
    """Return an autoencoder of two levels: a latent is 2x2 pixels."""
    torch.manual_seed(1)
    return AutoencoderKL(
        block_out_channels=(32, 64),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
    ).eval()


def text_encoder() -> CLIPTextModel:
    """Return a CLIP text encoder of two layers."""
    torch.manual_seed(2)
    config = CLIPTextConfig(
        vocab_size=2 + 2 * len(string.ascii_lowercase),
        hidden_size=SIZES.text_channels,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=MAX_TOKENS,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    return CLIPTextModel(config).eval()


def tokenizer(folder: Path) -> CLIPTokenizer:
    """Return a CLIP tokenizer to which every letter is a token; its vocabulary lies in ``folder``."""
    letters = [*string.ascii_lowercase, *(f"{letter}</w>" for letter in string.ascii_lowercase)]
    words = ["<|startoftext|>", "<|endoftext|>", *letters]
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer.from_pretrained(folder, model_max_length=MAX_TOKENS)


def pipeline(folder: Path, **scheduler: object) -> TextToVideoSDPipeline:
    """Return diffusers' pipeline around all of it; ``folder`` is for the vocabulary."""
    made = TextToVideoSDPipeline(
        vae=autoencoder(),
        text_encoder=text_encoder(),
        tokenizer=tokenizer(folder),
        unet=diffusers_unet(SIZES),
        scheduler=DDIMScheduler(**{**SCHEDULER, **scheduler}),
    )
    made.set_progress_bar_config(disable=True)
    return made


def save_pipeline(folder: Path, **scheduler: object) -> Path:
    """Write the pipeline and a licence beside it."""
    pipeline(folder.with_name(f"{folder.name} vocabulary"), **scheduler).save_pretrained(folder)
    (folder / "LICENSE.md").write_text(LICENCE)
    return folder
