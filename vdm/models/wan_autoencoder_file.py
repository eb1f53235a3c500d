"""Wan's autoencoders as their authors save them: ``Wan2.1_VAE.pth`` and ``Wan2.2_VAE.pth``."""

import re
from pathlib import Path
from typing import Any

from torch import Tensor

from vdm.models.pickled_tensors import filled, pickled_tensors, shape_of

_RESNETS = 2
"""Residual blocks of a level of the encoder; the decoder has one more."""
_MULTIPLES = (1, 2, 4, 4)
"""Widths of the levels, relative to the first."""
_ENDS = {"conv_in": "conv1", "norm_out": "head.0", "conv_out": "head.2"}
_MIDDLE = {"mid_block.resnets.0": "middle.0", "mid_block.attentions.0": "middle.1", "mid_block.resnets.1": "middle.2"}
_IN_RESNET = {
    "norm1": "residual.0",
    "conv1": "residual.2",
    "norm2": "residual.3",
    "conv2": "residual.6",
    "conv_shortcut": "shortcut",
}
# Of Wan 2.2, as its authors' code has them; those of Wan 2.1 are the defaults of diffusers.
_MEAN = (
    *(-0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557, -0.1382, 0.0542, 0.2813, 0.0891),
    *(0.1570, -0.0098, 0.0375, -0.1825, -0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502),
    *(-0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.1230, -0.0313, -0.1649, 0.0117, 0.0723),
    *(-0.2839, -0.2083, -0.0520, 0.3748, 0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667),
)
_STD = (
    *(0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013, 0.8158, 1.0344, 0.5894, 1.0901),
    *(0.6885, 0.6165, 0.8454, 0.4978, 0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659),
    *(0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093, 0.5709, 0.6065, 0.6415, 0.4944),
    *(0.5726, 1.2042, 0.5458, 1.6887, 0.3971, 1.0600, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744),
)


def load_autoencoder(file: Path) -> Any:
    """Return diffusers' ``AutoencoderKLWan`` with the weights of a file.

    Raises:
        ValueError: In one line, which does not name the file, if it can't be read without running code, or holds
            another model.
    """
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

    tensors = pickled_tensors(file)
    try:
        options = autoencoder_options(tensors)
    except ValueError as error:
        raise ValueError(f"not an autoencoder of Wan: {error}") from None
    is_residual = options.get("is_residual", False)
    return filled(lambda: AutoencoderKLWan(**options), tensors, lambda name: _authors_name(name, is_residual))


def autoencoder_options(tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Return the arguments of ``AutoencoderKLWan`` for the tensors of a file.

    Raises:
        ValueError: If it is neither that of Wan 2.1 nor that of Wan 2.2.
    """
    width, decoder_width = (shape_of(tensors, f"{half}.conv1.weight", 5)[0] for half in ("encoder", "decoder"))
    z_dim, is_residual = (
        shape_of(tensors, "conv2.weight", 5)[0],
        any(".downsamples.0.downsamples." in n for n in tensors),
    )
    if not 1 <= width <= 1024 or not 1 <= decoder_width <= 4096 or decoder_width % _MULTIPLES[-1]:
        raise ValueError(f"its widths are {width} and {decoder_width}")
    if z_dim != (48 if is_residual else 16):
        raise ValueError(f"it has {z_dim} channels, but that of Wan 2.1 has 16 and that of Wan 2.2 has 48")
    options: dict[str, Any] = {
        "base_dim": width,
        "decoder_base_dim": decoder_width // _MULTIPLES[-1],
        "z_dim": z_dim,
        "dim_mult": list(_MULTIPLES),
        "num_res_blocks": _RESNETS,
        "temperal_downsample": [False, True, True],
    }
    if not is_residual:
        return options
    pixels = {"in_channels": 12, "out_channels": 12, "patch_size": 2, "scale_factor_spatial": 16}
    return {**options, **pixels, "is_residual": True, "latents_mean": list(_MEAN), "latents_std": list(_STD)}


def authors_names(module: Any) -> dict[str, str]:
    """Map the name of each weight of an ``AutoencoderKLWan`` to its name in the authors' file."""
    is_residual = bool(module.config.is_residual)
    return {name: _authors_name(name, is_residual) for name in module.state_dict()}


def _authors_name(name: str, is_residual: bool) -> str:
    if name.startswith(("quant_conv.", "post_quant_conv.")):
        return name.replace("post_quant_conv", "conv2").replace("quant_conv", "conv1")
    half, _, rest = name.partition(".")
    for table in (_ENDS, _MIDDLE):
        for ours, theirs in table.items():
            if rest.startswith(f"{ours}."):
                return f"{half}.{theirs}.{_in_block(rest.removeprefix(f'{ours}.'))}"
    place = re.fullmatch(
        r"(down|up)_blocks\.(\d+)\.(?:(resnets|upsamplers|downsampler|upsampler)\.)?(?:(\d+)\.)?(.+)", rest
    )
    assert place is not None, name
    direction, level, kind, number, inner = place.groups()
    group = f"{direction}samples"
    resnets = _RESNETS if direction == "down" else _RESNETS + 1
    index = int(number) if kind == "resnets" else resnets  # what changes the resolution stands behind the blocks
    if is_residual:
        return f"{half}.{group}.{level}.{group}.{index}.{_in_block(inner)}"
    # In Wan 2.1, blocks of all levels are numbered in one list; diffusers does the same for the encoder.
    flat = int(level) if kind is None else int(level) * (resnets + 1) + index
    return f"{half}.{group}.{flat}.{_in_block(inner)}"


def _in_block(inner: str) -> str:
    layer, _, kind = inner.partition(".")
    return f"{_IN_RESNET[layer]}.{kind}" if layer in _IN_RESNET else inner
