"""Tars from elsewhere, to be indexed."""

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from data_pipelines.index import IndexSettings
from tests.data.shard_sets import encode_clip


def write_tar(path: Path, members: Sequence[tuple[str, bytes]]) -> None:
    """Write a tar of members with these names and contents, in this order."""
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def video_sample(number: int, shape: tuple[int, int, int] = (4, 16, 32)) -> dict[str, bytes]:
    """A sample as video2dataset writes it."""
    metadata = {"caption": f"clip {number}", "key": str(number), "status": "success"}
    return {
        f"{number:05d}.mp4": encode_clip(number, shape),
        f"{number:05d}.txt": f"clip {number}".encode(),
        f"{number:05d}.json": json.dumps(metadata).encode(),
    }


def members(*samples: Mapping[str, bytes]) -> list[tuple[str, bytes]]:
    """Return the members of samples, one sample after another."""
    return [pair for sample in samples for pair in sample.items()]


def index_settings(path: Path, **changes: object) -> IndexSettings:
    """Return settings of ``vdm-data index`` for a folder of tars."""
    return IndexSettings(**{"input": path, "num_workers": 0, **changes})  # type: ignore[arg-type]
