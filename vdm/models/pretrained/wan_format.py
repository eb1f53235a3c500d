"""Wan's pipelines as diffusers writes them: the parts of a folder, and the network's ``config.json``."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Interval

from vdm.models.component_config import Depth
from vdm.models.dit.embedders import NUM_SINUSOIDS
from vdm.models.dit.layers import EPS
from vdm.models.dit.transformer import Heads, SpaceTimeTransformer
from vdm.models.pretrained import wan_image
from vdm.models.pretrained.diffusers_folder import STEM, PipelineFolder
from vdm.outside import typed
from vdm.ranges import SizeOrZero, Width, WidthOrZero

FOLDER = PipelineFolder(
    "WanPipeline",
    {
        "transformer": ("diffusers", "WanTransformer3DModel"),
        "vae": ("diffusers", "AutoencoderKLWan"),
        "text_encoder": ("transformers", "UMT5EncoderModel"),
        "tokenizer": ("transformers", "T5TokenizerFast"),
        "scheduler": ("diffusers", "UniPCMultistepScheduler"),
    },
    {"vae": STEM, "text_encoder": "model"},
    network="transformer",
)
NUM_TEXT_TOKENS = 512
"""Length to which Wan pads text with zeros, in its training and by default in its pipelines."""


@dataclass(frozen=True)
class TransformerConfig:
    """The keys that are read from the network's ``config.json``, with the values that are supported."""

    num_layers: Depth
    num_attention_heads: Heads
    attention_head_dim: Heads
    ffn_dim: Width
    in_channels: Width
    text_dim: Width
    out_channels: Width | None = None
    patch_size: tuple[Literal[1], Width, Width] = (1, 2, 2)
    freq_dim: Literal[256] = 256
    cross_attn_norm: Literal[True] = True
    qk_norm: Literal["rms_norm_across_heads"] = "rms_norm_across_heads"
    eps: Annotated[float, Interval(ge=1e-6, le=1e-6)] = 1e-6
    image_dim: WidthOrZero | None = None
    added_kv_proj_dim: WidthOrZero | None = None
    pos_embed_seq_len: SizeOrZero | None = None


def network_options(config: Mapping[str, Any], source: object) -> dict[str, Any]:
    """Return the arguments of ``SpaceTimeTransformer`` that make the network of a ``config.json``.

    Raises:
        ValueError: If it describes a network of another class, or one of which there are no published weights.
    """
    FOLDER.check_network(config, source)
    transformer = typed(TransformerConfig, config, source)
    _, height, width = transformer.patch_size
    if height != width:
        raise ValueError(f"{source}: patch_size={list(transformer.patch_size)}: height and width must be equal")
    channels = transformer.out_channels or transformer.in_channels
    of_images = wan_image.network_options(
        source,
        transformer.in_channels,
        channels,
        transformer.image_dim,
        transformer.added_kv_proj_dim,
        transformer.pos_embed_seq_len,
        transformer.num_attention_heads * transformer.attention_head_dim,
    )
    return {
        "num_layers": transformer.num_layers,
        "num_heads": transformer.num_attention_heads,
        "head_channels": transformer.attention_head_dim,
        "hidden_channels": transformer.ffn_dim,
        "in_channels": channels,
        "patch_size": height,
        "text_channels": transformer.text_dim,
        "num_text_tokens": NUM_TEXT_TOKENS,
        **of_images,
    }


def network_config(network: SpaceTimeTransformer) -> dict[str, Any]:
    """Return the ``config.json`` from which diffusers builds the same network.

    Raises:
        ValueError: If diffusers has no such network.
    """
    if network.vector_conditioned or network.embed_frame is not None or network.num_text_tokens == 0:
        raise ValueError(
            "model.network: Wan's pipelines have no network with vector_conditioned=true, frame_embedding=true or"
            " num_text_tokens=0; format=own has"
        )
    return {
        "_class_name": FOLDER.network_class,
        "num_layers": len(network.blocks),
        "num_attention_heads": network.num_heads,
        "attention_head_dim": network.head_channels,
        "ffn_dim": network.hidden_channels,
        "out_channels": network.in_channels,
        "text_dim": network.text_channels,
        "patch_size": [1, network.patch_size, network.patch_size],
        "freq_dim": NUM_SINUSOIDS,
        "cross_attn_norm": True,
        "qk_norm": "rms_norm_across_heads",
        "eps": EPS,
        "rope_max_seq_len": 1024,
        **wan_image.network_config(network),
    }
