"""A small whole model with random weights, as configuration and as run, that the tests of generation share."""

import copy
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from torch import Tensor

from tests.models.networks import random_input, randomized
from vdm.assembly.build_model import build_model
from vdm.assembly.model import VideoDiffusionModel
from vdm.checkpoints.layout import CONFIG_NAME, checkpoint_folder
from vdm.checkpoints.snapshot import save_weights

CONFIG: dict[str, Any] = {
    "encoder": {"_target_": "vdm.models.autoencoder.PixelAutoencoder"},
    "model": {
        "network": {
            "_target_": "vdm.models.space_time_unet.SpaceTimeUNet",
            "channels": [8, 16],
            "num_blocks": 1,
            "attention_levels": [1],
            "temporal_levels": [1],
            "head_channels": 8,
            "patch_size": 2,
        },
        "conditioner": {
            "_target_": "vdm.models.embedding_conditioner.EmbeddingConditioner",
            "text_encoder": {
                "_target_": "vdm.models.text_encoders.ByteTransformer",
                "channels": 8,
                "num_layers": 1,
                "head_channels": 8,
                "max_bytes": 32,
            },
            "num_classes": 3,
            "class_channels": 8,
            "image": True,
        },
    },
    "diffusion": {
        "_target_": "vdm.diffusion.gaussian.GaussianDiffusion",
        "schedule": {"_target_": "vdm.diffusion.schedules.cosine.Cosine"},
        "parameterization": {"_target_": "vdm.diffusion.parameterizations.V"},
        "noise_levels": {"_target_": "vdm.diffusion.noise_levels.Uniform"},
        "loss_weight": {"_target_": "vdm.diffusion.loss_weights.Simple"},
        "clip_denoised": 1.0,
    },
    "sampler": {"_target_": "vdm.diffusion.samplers.ddim.DDIM", "num_steps": 3},
    "guidance": {"_target_": "vdm.diffusion.guidance.Extrapolation", "scale": 2.0},
}


def config(**changes: object) -> dict[str, Any]:
    """Return the configuration, changed at dotted keys (with ``__`` for dots)."""
    changed = copy.deepcopy(CONFIG)
    for key, value in changes.items():
        *path, last = key.split("__")
        node = changed
        for part in path:
            node = node[part]
        node[last] = value
    return changed


def small_model(**changes: object) -> VideoDiffusionModel:
    """Return the model with random weights."""
    model = build_model(config(**changes))
    randomized(model)
    return model


def sampling_noise(num_clips: int = 2) -> Tensor:
    """Return noise for clips of 4 frames of 8x8 pixels; it is the same at every call."""
    return random_input("sampling", num_clips, 3, 4, 8, 8)


def save_config(run: Path, **changes: object) -> None:
    """Write the configuration of a run alone."""
    run.mkdir(exist_ok=True)
    (run / CONFIG_NAME).write_text(OmegaConf.to_yaml(OmegaConf.create(config(**changes))))


def save_run(run: Path, model: VideoDiffusionModel, ema: dict[str, Tensor] | None = None, **changes: object) -> Path:
    """Write the folder of a run with one checkpoint, as training does."""
    save_config(run, **changes)
    weights = {f"model.{name}": weight for name, weight in model.state_dict().items()}
    averages = None if ema is None else {f"model.{name}": weight for name, weight in ema.items()}
    save_weights(checkpoint_folder(run, 7), weights, averages)
    return run
