"""Descriptions of reference clips, kept for the next time."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from typing_extensions import TypedDict  # that of typing suffices from Python 3.12 on

from vdm.evaluation.describe import Described
from vdm.evaluation.sources.base import UnusableClip
from vdm.evaluation.sources.file_digests import FileDigests
from vdm.files import appearing
from vdm.outside import parse_object
from vdm.records import checked


class _Unusable(TypedDict):
    key: str
    reason: str
    is_unreadable: bool


class _Record(TypedDict):
    unusable: dict[str, _Unusable]


def default_folder() -> Path:
    """Return the folder of kept features: ``vdm/features`` in the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vdm" / "features"


class FeatureCache:
    """Features by what they are of: the content of the source and the whole protocol of their extraction.

    The clips that have no features are kept with them.

    Args:
        folder: Where files are kept; None keeps none.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    @property
    def is_on(self) -> bool:
        """Whether anything is kept."""
        return self._folder is not None

    @property
    def file_digests(self) -> FileDigests:
        """SHA-256 of the files of reference videos, kept beside the features."""
        return FileDigests(None if self._folder is None else self._folder / "files")

    def load(self, content: Mapping[str, Any]) -> Described | None:
        """Return the descriptions of ``content``; None if they are not kept, or their file is damaged."""
        path = self._file(content)
        if path is None or not path.is_file():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("content") != _text(content):
                    return None
                unusable = _unusable(metadata.get("record", ""), path)
                features = file.get_tensor("features")
        except (OSError, SafetensorError, ValueError):
            return None
        return Described(features, unusable) if features.ndim == 3 and features.dtype == torch.float32 else None

    def save(self, content: Mapping[str, Any], described: Described) -> None:
        """Keep descriptions; where nothing can be written, they are not kept."""
        path = self._file(content)
        if path is None:
            return
        record = {"unusable": {str(number): asdict(clip) for number, clip in described.unusable.items()}}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with appearing(path) as partial:
                metadata = {"content": _text(content), "record": json.dumps(record)}
                save_file({"features": described.features.contiguous()}, partial, metadata)
        except OSError:
            return

    def _file(self, content: Mapping[str, Any]) -> Path | None:
        name = hashlib.sha256(_text(content).encode()).hexdigest()
        return None if self._folder is None else self._folder / f"{name}.safetensors"


def _unusable(record: str, path: Path) -> dict[int, UnusableClip]:
    found: _Record = checked(parse_object(record, path), _Record, path)
    return {int(number): UnusableClip(**clip) for number, clip in found["unusable"].items()}


def _text(content: Mapping[str, Any]) -> str:
    return json.dumps(content, sort_keys=True)
