"""What sets hold that were built."""

import json
from pathlib import Path
from typing import Any

from vdm.data.index import read_index
from vdm.data.member_checks import read_member
from vdm.data.sidecars import read_samples


def metadata_of(shards: Path, split: str) -> list[dict[str, Any]]:
    """Return the ``.json`` of every clip of a split."""
    found = []
    for shard in read_index(shards).splits[split]:
        with (shards / shard.name).open("rb") as file:
            found += [json.loads(read_member(file, "", sample, "json")) for sample in read_samples(shards, shard)]
    return found


def content_of(shards: Path) -> dict[str, bytes]:
    """Return the content of each file of a set by its name."""
    return {path.name: path.read_bytes() for path in shards.iterdir()}
