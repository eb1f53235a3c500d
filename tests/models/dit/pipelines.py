"""A whole small Wan pipeline with random weights, saved as diffusers saves it."""

import string
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
    WanPipeline,
)
from transformers import T5Tokenizer, UMT5Config, UMT5EncoderModel

from tests.models.dit.peers import Sizes, diffusers_transformer
from tests.models.wan import autoencoder

SIZES = Sizes(text_channels=16)
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


def pipeline(kind: str = "unipc", expand_timesteps: bool = False, **scheduler: object) -> WanPipeline:
    """Return diffusers' pipeline around all of it; TI2V-5B has ``expand_timesteps``: a timestep for each token."""
    own = {"euler": {}, "dpm": {"flow_shift": 3.0, "prediction_type": "flow_prediction", "use_flow_sigmas": True}}
    made = WanPipeline(
        tokenizer=tokenizer(),
        text_encoder=text_encoder(),
        vae=autoencoder(),
        transformer=diffusers_transformer(SIZES),
        scheduler=SCHEDULERS[kind](**own.get(kind, SCHEDULER) | scheduler),
        expand_timesteps=expand_timesteps,
    )
    made.set_progress_bar_config(disable=True)
    return made


def save_pipeline(folder: Path, **options: Any) -> Path:
    """Write the pipeline and a licence beside it."""
    pipeline(**options).save_pretrained(folder)
    (folder / "LICENSE.txt").write_text(LICENCE)
    return folder
