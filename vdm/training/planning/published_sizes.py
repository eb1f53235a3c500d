"""Sizes of published autoencoders and encoders of texts and images, for plans without them and without network."""

from typing import Any

_UMT5_XXL = {
    "model_type": "umt5",
    "d_ff": 10240,
    "d_kv": 64,
    "d_model": 4096,
    "num_heads": 64,
    "num_layers": 24,
    "vocab_size": 256384,
}
_CLIP_H = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_attention_heads": 16,
    "num_hidden_layers": 32,
    "patch_size": 14,
    "projection_dim": 1024,
}
PUBLISHED_SIZES: dict[str, dict[str, dict[str, Any]]] = {
    "stabilityai/stable-video-diffusion-img2vid": {
        "vae": {
            "block_out_channels": [128, 256, 512, 512],
            "down_block_types": ["DownEncoderBlock2D"] * 4,
            "latent_channels": 4,
            "layers_per_block": 2,
        },
        "image_encoder": _CLIP_H,
        "feature_extractor": {"image_mean": [0.5] * 3, "image_std": [0.5] * 3},  # no memory depends on it
    },
    "Wan-AI/Wan2.1-T2V-1.3B-Diffusers": {"text_encoder": _UMT5_XXL, "vae": {}},  # diffusers' defaults
    "Wan-AI/Wan2.2-TI2V-5B-Diffusers": {
        "text_encoder": _UMT5_XXL,
        "vae": {
            "base_dim": 160,
            "decoder_base_dim": 256,
            "z_dim": 48,
            "is_residual": True,
            "in_channels": 12,
            "out_channels": 12,
            "patch_size": 2,
            "latents_mean": [0.0] * 48,  # no memory depends on it
            "latents_std": [1.0] * 48,
            "scale_factor_spatial": 16,
        },
    },
}
PUBLISHED_SIZES["stabilityai/stable-video-diffusion-img2vid-xt"] = PUBLISHED_SIZES[
    "stabilityai/stable-video-diffusion-img2vid"
]
PUBLISHED_SIZES["Wan-AI/Wan2.2-I2V-A14B-Diffusers"] = PUBLISHED_SIZES["Wan-AI/Wan2.1-T2V-1.3B-Diffusers"]
for _name in ("I2V-14B-480P", "I2V-14B-720P", "FLF2V-14B-720P"):
    PUBLISHED_SIZES[f"Wan-AI/Wan2.1-{_name}-Diffusers"] = {
        **PUBLISHED_SIZES["Wan-AI/Wan2.1-T2V-1.3B-Diffusers"],
        "image_encoder": _CLIP_H,
        "image_processor": {
            "crop_size": {"height": 224, "width": 224},
            "image_mean": [0.48145466, 0.4578275, 0.40821073],
            "image_std": [0.26862954, 0.26130258, 0.27577711],
            "size": {"shortest_edge": 224},
        },
    }
PUBLISHED_SIZES["Wan-AI/Wan2.1-T2V-14B-Diffusers"] = PUBLISHED_SIZES["Wan-AI/Wan2.1-T2V-1.3B-Diffusers"]
"""Configuration of each component, by the pipeline's name on the hub and the component's subfolder."""
