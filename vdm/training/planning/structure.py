"""Models of their full size without memory: built, but with no weights allocated, loaded or downloaded."""

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import patch

from torch._subclasses.fake_tensor import FakeTensorMode

_PUBLISHED: dict[str, dict[str, dict[str, Any]]] = {
    "stabilityai/stable-video-diffusion-img2vid": {
        "vae": {
            "block_out_channels": [128, 256, 512, 512],
            "down_block_types": ["DownEncoderBlock2D"] * 4,
            "latent_channels": 4,
            "layers_per_block": 2,
        },
        "image_encoder": {
            "hidden_size": 1280,
            "intermediate_size": 5120,
            "num_attention_heads": 16,
            "num_hidden_layers": 32,
            "patch_size": 14,
            "projection_dim": 1024,
        },
        "feature_extractor": {"image_mean": [0.5] * 3, "image_std": [0.5] * 3},  # no memory depends on it
    },
    "Wan-AI/Wan2.1-T2V-1.3B-Diffusers": {"vae": {}},  # diffusers' defaults
    "Wan-AI/Wan2.2-TI2V-5B-Diffusers": {
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
        }
    },
}
_PUBLISHED["stabilityai/stable-video-diffusion-img2vid-xt"] = _PUBLISHED["stabilityai/stable-video-diffusion-img2vid"]
"""Sizes of published parts, for machines without them and without network."""


@contextmanager
def no_memory(mode: FakeTensorMode) -> Iterator[None]:
    """Have tensors that are made in this context know shape, type and device, and hold nothing.

    They are PyTorch's meta tensors that pretend to lie on the CPU, so that each operation chooses the kernel, and so
    makes the intermediate results, that it would for real.

    Args:
        mode: The same one for all that is to work together, made with ``allow_non_fake_inputs=True``.
    """
    with warnings.catch_warnings(), mode:
        warnings.filterwarnings("ignore", "Accessing the data pointer of FakeTensor", UserWarning)  # copying a module
        yield


@contextmanager
def pretrained_by_configuration() -> Iterator[None]:
    """Make ``from_pretrained`` of diffusers and transformers read configurations, and no weights."""

    def diffusers_model(cls: Any, name: str, subfolder: str | None = None, **options: Any) -> Any:
        published = _published(name, subfolder)
        return cls.from_config(cls.load_config(name, subfolder=subfolder) if published is None else published)

    def transformers_model(cls: Any, name: str, subfolder: str = "", **options: Any) -> Any:
        published = _published(name, subfolder)
        config = cls.config_class
        return cls(config.from_pretrained(name, subfolder=subfolder) if published is None else config(**published))

    with ExitStack() as patches:
        for module, owner, method, replacement in (
            ("diffusers.models.modeling_utils", "ModelMixin", "from_pretrained", diffusers_model),
            ("transformers.modeling_utils", "PreTrainedModel", "from_pretrained", transformers_model),
            ("transformers.image_processing_base", "ImageProcessingMixin", "get_image_processor_dict", _statistics),
        ):
            if find_spec(module.partition(".")[0]) is not None:  # else whatever needs it says so
                library_class = getattr(import_module(module), owner)
                patches.enter_context(patch.object(library_class, method, classmethod(replacement)))
        yield


def _statistics(cls: Any, name: str, subfolder: str = "", **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    published = _published(name, subfolder)
    if published is None:
        raise OSError(f"{name} is not on this machine, and its sizes are not known here")
    return published, {}


def _published(name: str, subfolder: str | None) -> dict[str, Any] | None:
    return None if Path(name).is_dir() else _PUBLISHED.get(name, {}).get(subfolder or "")
