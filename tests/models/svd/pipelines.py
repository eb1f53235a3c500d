"""A whole small pipeline with random weights, saved as diffusers saves it."""

from pathlib import Path

import torch
from diffusers import AutoencoderKLTemporalDecoder, EulerDiscreteScheduler, StableVideoDiffusionPipeline
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

from tests.models.svd.peers import Sizes, diffusers_unet

SIZES = Sizes((64, 64), (1, 1), 1, (0,), 1, 16, 256)
"""Of the network: as Stability's files have it, with heads of 64 and 256 sinusoids a number."""
NUM_FRAMES = 4
LICENCE = "STABLE VIDEO DIFFUSION NON-COMMERCIAL COMMUNITY LICENSE AGREEMENT (as a test has it)\n"
# As published: stabilityai/stable-video-diffusion-img2vid-xt, scheduler/scheduler_config.json
SCHEDULER = {
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "interpolation_type": "linear",
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
    "sigma_max": 700.0,
    "sigma_min": 0.002,
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "timestep_type": "continuous",
    "use_karras_sigmas": True,
}


def autoencoder() -> AutoencoderKLTemporalDecoder:
    """Return an autoencoder of two levels: a latent is 2x2 pixels."""
    torch.manual_seed(1)
    return AutoencoderKLTemporalDecoder(
        block_out_channels=(32, 64), down_block_types=("DownEncoderBlock2D",) * 2, latent_channels=4
    ).eval()


def image_encoder() -> CLIPVisionModelWithProjection:
    """Return a CLIP image encoder of two layers for the usual 224x224 pixels."""
    torch.manual_seed(2)
    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=37,
            projection_dim=SIZES.context_channels,
            num_hidden_layers=2,
            num_attention_heads=4,
            image_size=224,
            patch_size=56,
        )
    ).eval()


def pipeline() -> StableVideoDiffusionPipeline:
    """Return diffusers' pipeline around all of it."""
    made = StableVideoDiffusionPipeline(
        vae=autoencoder(),
        image_encoder=image_encoder(),
        unet=diffusers_unet(SIZES),
        scheduler=EulerDiscreteScheduler(**SCHEDULER),
        feature_extractor=CLIPImageProcessor(),
    )
    made.set_progress_bar_config(disable=True)
    return made


def save_pipeline(folder: Path) -> Path:
    """Write the pipeline and a licence beside it."""
    pipeline().save_pretrained(folder)
    (folder / "LICENSE.md").write_text(LICENCE)
    return folder
