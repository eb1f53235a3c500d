"""The keys that are read from the ``config.json`` of published models' components, with their allowed ranges."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Interval, Len

from vdm.outside import read_json, typed
from vdm.ranges import MAX_LEVELS, Width

Depth = Annotated[int, Interval(ge=1, le=100)]
"""Layers in a row."""
Levels = Len(1, MAX_LEVELS)
"""One entry for each level of resolution."""
WidthPerLevel = Annotated[tuple[Width, ...], Levels]
DepthPerLevel = Annotated[tuple[Depth, ...], Levels]
NamePerLevel = Annotated[tuple[str, ...], Levels]


@dataclass(frozen=True)
class LevelsConfig:
    """The keys that are read from the ``config.json`` of every U-Net of diffusers."""

    block_out_channels: WidthPerLevel
    down_block_types: NamePerLevel
    up_block_types: NamePerLevel
    in_channels: Width
    layers_per_block: Depth | DepthPerLevel
    cross_attention_dim: Width | WidthPerLevel

    @property
    def attention_levels(self) -> list[int]:
        """Levels with attention on the way down; 0 is the full resolution."""
        return [level for level, name in enumerate(self.down_block_types) if name.startswith("CrossAttn")]

    @property
    def is_symmetric(self) -> bool:
        """Whether the way up attends where the way down does."""
        up = [name.startswith("CrossAttn") for name in reversed(self.up_block_types)]
        return up == [name.startswith("CrossAttn") for name in self.down_block_types]


@dataclass(frozen=True)
class ComponentConfig:
    """The keys that determine the size of an autoencoder or encoder of diffusers or transformers; None if absent.

    The libraries build the component from the file itself. These ranges make sure beforehand that it can be built.
    """

    num_hidden_layers: Depth | None = None
    num_layers: Depth | None = None
    num_decoder_layers: Annotated[int, Interval(ge=0, le=100)] | None = None
    hidden_size: Width | None = None
    intermediate_size: Annotated[int, Interval(ge=1, le=1_000_000)] | None = None
    d_model: Width | None = None
    d_ff: Annotated[int, Interval(ge=1, le=1_000_000)] | None = None
    d_kv: Width | None = None
    num_heads: Width | None = None
    num_attention_heads: Width | WidthPerLevel | None = None
    projection_dim: Width | None = None
    vocab_size: Annotated[int, Interval(ge=1, le=10_000_000)] | None = None
    max_position_embeddings: Annotated[int, Interval(ge=1, le=10_000_000)] | None = None
    image_size: Annotated[int, Interval(ge=1, le=16_384)] | None = None
    patch_size: Annotated[int, Interval(ge=1, le=16_384)] | None = None
    latent_channels: Width | None = None
    layers_per_block: Depth | DepthPerLevel | None = None
    block_out_channels: WidthPerLevel | None = None
    base_dim: Width | None = None
    decoder_base_dim: Width | None = None
    z_dim: Width | None = None
    dim_mult: DepthPerLevel | None = None
    num_res_blocks: Depth | None = None
    quantization_config: None = None
    """Not allowed: the library would load further code for it."""


def read_component(folder: Path) -> ComponentConfig:
    """Return the sizes in a component's folder.

    Raises:
        ValueError: One line, if the file is missing or a size in it is out of range.
    """
    file = folder / "config.json"
    return typed(ComponentConfig, read_json(file), file)


def check_component(folder: Path) -> None:
    """Refuse a folder with which diffusers or transformers would hang, fill the memory, or read from elsewhere.

    Raises:
        ValueError: One line that names the file.
    """
    check_files(folder)
    if (folder / "adapter_config.json").exists():
        raise ValueError(
            f"{folder / 'adapter_config.json'}: an adapter is not allowed here, since it names the path of its model"
        )
    read_component(folder)


def check_files(folder: Path) -> None:
    """Refuse a folder that holds pipes, devices and the like, on which a library would hang.

    Raises:
        ValueError: One line that names the file.
    """
    for path in sorted(folder.iterdir()):
        if path.exists() and not path.is_file() and not path.is_dir():
            raise ValueError(f"{path}: not a regular file")
