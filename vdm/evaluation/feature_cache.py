"""Descriptions of reference clips, kept for the next time."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from vdm.evaluation.base import Features
from vdm.files import appearing


def default_folder() -> Path:
    """Return the folder of kept features: ``vdm/features`` in the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vdm" / "features"


class FeatureCache:
    """Features by what they are of: the content of the source and the whole protocol of their extraction.

    Args:
        folder: Where files are kept; None keeps none.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    @property
    def is_on(self) -> bool:
        """Whether anything is kept."""
        return self._folder is not None

    def load(self, content: Mapping[str, Any]) -> Features | None:
        """Return the features of ``content``; None if they are not kept, or their file is damaged."""
        path = self._file(content)
        if path is None or not path.is_file():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                if file.metadata() != {"content": _text(content)}:
                    return None
                features = file.get_tensor("features")
        except (OSError, SafetensorError):
            return None
        return features if features.ndim == 3 and features.dtype == torch.float32 else None

    def save(self, content: Mapping[str, Any], features: Features) -> None:
        """Keep features; where nothing can be written, they are not kept."""
        path = self._file(content)
        if path is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with appearing(path) as partial:
                save_file({"features": features.contiguous()}, partial, {"content": _text(content)})
        except OSError:
            return

    def _file(self, content: Mapping[str, Any]) -> Path | None:
        name = hashlib.sha256(_text(content).encode()).hexdigest()
        return None if self._folder is None else self._folder / f"{name}.safetensors"


def _text(content: Mapping[str, Any]) -> str:
    return json.dumps(content, sort_keys=True)
