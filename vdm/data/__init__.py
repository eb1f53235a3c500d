"""Shards of clips: schema, deterministic order, checked reading, decoding, and batches for training."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vdm.data.plain_loop import webdataset

__all__ = ["webdataset"]


def __getattr__(name: str) -> Any:
    """Import ``webdataset`` on first access only, since it imports PyTorch."""
    if name == "webdataset":
        from vdm.data.plain_loop import webdataset

        return webdataset
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
