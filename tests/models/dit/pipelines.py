"""A whole small Wan pipeline with random weights, saved as diffusers saves it."""

import string
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
    WanImageToVideoPipeline,
    WanPipeline,
)
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    T5Tokenizer,
    UMT5Config,
    UMT5EncoderModel,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from tests.models.dit.peers import Sizes, diffusers_transformer
from tests.models.wan import autoencoder

SIZES = Sizes(text_channels=16)
IMAGE_WIDTH = 12
"""Width of image tokens."""
LICENCE = "Apache License, Version 2.0 (as a test has it)\n"
# As published: Wan-AI/Wan2.1-T2V-1.3B-Diffusers, scheduler/scheduler_config.json
SCHEDULER = {
    "final_sigmas_type": "zero",
    "flow_shift": 3.0,
    "lower_order_final": True,
    "num_train_timesteps": 1000,
    "predict_x0": True,
    "prediction_type": "flow_prediction",
    "solver_order": 2,
    "solver_type": "bh2",
    "use_flow_sigmas": True,
}


def tokenizer() -> T5Tokenizer:
    """Return a tokenizer of a few words and of letters, which ends each caption with ``</s>``."""
    special = [(piece, 0.0) for piece in ("<pad>", "</s>", "<unk>")]
    words = [(f"▁{word}", -2.0) for word in ("a", "red", "dog", "cat", "runs", "")]
    return T5Tokenizer(vocab=[*special, *words, *((letter, -8.0) for letter in string.ascii_lowercase)], extra_ids=0)


def text_encoder() -> UMT5EncoderModel:
    """Return a UMT5 encoder of two layers."""
    torch.manual_seed(2)
    width = SIZES.text_channels
    sizes = {"d_model": width, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
    return UMT5EncoderModel(UMT5Config(vocab_size=len(tokenizer()), **sizes)).eval()


SCHEDULERS: dict[str, Any] = {
    "unipc": UniPCMultistepScheduler,
    "dpm": DPMSolverMultistepScheduler,
    "euler": FlowMatchEulerDiscreteScheduler,
}


def pipeline(
    kind: str = "unipc", expand_timesteps: bool = False, boundary: float | None = None, **scheduler: object
) -> WanPipeline:
    """Return diffusers' pipeline around all of it.

    TI2V-5B has ``expand_timesteps``: a timestep for each token. A14B has a boundary, and a second network.
    """
    own = {"euler": {}, "dpm": {"flow_shift": 3.0, "prediction_type": "flow_prediction", "use_flow_sigmas": True}}
    made = WanPipeline(
        tokenizer=tokenizer(),
        text_encoder=text_encoder(),
        vae=autoencoder(),
        transformer=diffusers_transformer(SIZES),
        scheduler=SCHEDULERS[kind](**own.get(kind, SCHEDULER) | scheduler),
        expand_timesteps=expand_timesteps,
        boundary_ratio=boundary,
        transformer_2=None if boundary is None else diffusers_transformer(SIZES, seed=1),
    )
    made.set_progress_bar_config(disable=True)
    return made


KINDS = {
    "I2V": {"image_token_channels": IMAGE_WIDTH},
    "FLF2V": {"image_token_channels": IMAGE_WIDTH, "num_image_tokens": 2 * 17},
    "A14B": {},
}
"""Of each kind of image-to-video model, how it is told the image tokens of pictures."""


def image_encoder() -> CLIPVisionModel:
    """Return a CLIP of three layers for pictures of 16x16 pixels, of which it makes 17 tokens."""
    torch.manual_seed(3)
    sizes = {"hidden_size": IMAGE_WIDTH, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
    return CLIPVisionModel(CLIPVisionConfig(image_size=16, patch_size=4, **sizes)).eval()


def image_pipeline(kind: str) -> WanImageToVideoPipeline:
    """Return diffusers' image-to-video pipeline of one of ``KINDS``, or ``TI2V``, whose first frame is in its place."""
    is_told = (
        {} if kind == "TI2V" else {"image_conditioned": True, "image_channels": 4 + SIZES.in_channels, **KINDS[kind]}
    )
    sizes = replace(SIZES, **is_told)
    has_tokens = "image_token_channels" in is_told
    square = {"height": 16, "width": 16}
    made = WanImageToVideoPipeline(
        tokenizer=tokenizer(),
        text_encoder=text_encoder(),
        vae=autoencoder(),
        transformer=diffusers_transformer(sizes),
        scheduler=UniPCMultistepScheduler(**SCHEDULER),
        image_encoder=image_encoder() if has_tokens else None,
        image_processor=CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size=square) if has_tokens else None,
        expand_timesteps=kind == "TI2V",
        boundary_ratio=0.9 if kind == "A14B" else None,
        transformer_2=diffusers_transformer(sizes, seed=1) if kind == "A14B" else None,
    )
    made.set_progress_bar_config(disable=True)
    return made


def save_pipeline(folder: Path, **options: Any) -> Path:
    """Write the pipeline and a licence beside it."""
    pipeline(**options).save_pretrained(folder)
    (folder / "LICENSE.txt").write_text(LICENCE)
    return folder
