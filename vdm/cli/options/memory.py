"""Check that videos fit into this machine's memory, before they are made."""

import os
from typing import TYPE_CHECKING

from vdm.config import ConfigError

if TYPE_CHECKING:
    import torch

_CHANNELS = 3
_BYTES_OF_FLOAT = 4
GIB = 2**30


def check_memory(
    num_frames: int, height: int, width: int, batch_size: int, num_videos: int, on: "torch.device"
) -> None:
    """Refuse videos whose pixels alone exceed the memory; the network needs more.

    Args:
        num_frames: Frames of a video.
        height: Pixels.
        width: Pixels.
        batch_size: Videos made at once, at most; they are decoded to floats on the device.
        num_videos: Videos in all; they are kept as bytes, twice at the end, when batches are joined for the grid.
        on: Device on which they are made.

    Raises:
        ConfigError: In one line, with the memory that they need.
    """
    video = _CHANNELS * num_frames * height * width
    size = f"num_frames={num_frames} height={height} width={width}"
    kept, made = 2 * num_videos * video, min(batch_size, num_videos) * video * _BYTES_OF_FLOAT
    host = host_bytes()
    of_device = host if on.type == "cpu" else _memory_of(on)
    if of_device is not None and made > of_device:
        raise ConfigError(
            f"{size} batch_size={min(batch_size, num_videos)}: the pixels of a batch need {_gib(made)}, but {on} has"
            f" {_gib(of_device)}"
        )
    if kept + (made if on.type == "cpu" else 0) > host:
        raise ConfigError(
            f"{size}: {num_videos} videos need {_gib(kept)}, and a batch of them {_gib(made)}, but this machine has"
            f" {_gib(host)}"
        )


def host_bytes() -> int:
    """Return the bytes of this machine's memory."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _memory_of(device: "torch.device") -> int | None:
    import torch

    if device.type != "cuda":
        return None
    return torch.cuda.get_device_properties(device).total_memory


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / GIB:,.1f} GiB"
