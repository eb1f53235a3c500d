"""Verify: every byte of the finished set against its index, by shard; what was intact is not read again.

What was found in a shard is kept under a name that changes with what the index says of it, with what is asked of its
samples, and when its tar or its sidecar is written anew or tampered with.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from data_pipelines.stages.work_items import WorkFolder, digest, run_missing
from data_pipelines.verify import CheckedShard, Rules, check_shard
from vdm.data.shards import ShardEntry
from vdm.data.sidecars import sidecar_name
from vdm.files import MALFORMED, write_json
from vdm.json_values import parse_json
from vdm.regular_files import read_limited

MAX_RESULT_BYTES = 1 << 30
_RESULT = re.compile(r"-[0-9a-f]{16}\.json$")
"""How the names of results end: with a ``digest``."""


def check_all(path: Path, shards: Sequence[ShardEntry], rules: Rules, folder: WorkFolder) -> dict[str, CheckedShard]:
    """Check all shards of a set, those apart that were intact before and are as they were then.

    Shards with faults are read again in every run: the storage may have been at fault.

    Args:
        path: Folder of the set.
        shards: What the index says of them.
        rules: What samples must be like.
        folder: Where results are kept; those of shards that are no more are removed.

    Returns:
        What was found, by name of the shard.
    """
    results = folder.results("verify")
    results.mkdir(parents=True, exist_ok=True)
    names = {shard.name: _result_name(path, shard, rules) for shard in shards}
    paths = {name: results / f"{name}.json" for name in names.values()}
    there = set(results.glob("*.json"))
    found: dict[str, CheckedShard] = {}
    todo: dict[str, tuple[ShardEntry, Path]] = {}
    for shard in shards:
        name = names[shard.name]
        before = _read(paths[name]) if paths[name] in there else None
        if before is not None and not before.faults:
            found[shard.name] = before
        else:
            todo[name] = shard, paths[name]
    check = partial(check_shard, path=path, rules=rules)
    failed = run_missing("verify", "shard", partial(_check, check), todo, folder)
    for name, (shard, result) in todo.items():
        # what another task of an array has done may have been lost since
        found[shard.name] = CheckedShard((failed[name],), ()) if name in failed else _read(result) or check(shard)
    for old in there - set(paths.values()):
        if _RESULT.search(old.name):
            old.unlink(missing_ok=True)
    return found


def _result_name(path: Path, shard: ShardEntry, rules: Rules) -> str:
    files = [_state(path / name) for name in (shard.name, sidecar_name(shard.name))]
    return f"{shard.name.removesuffix('.tar')}-{digest(str(shard), str(rules), files)}"


def _state(path: Path) -> tuple[int, int] | None:
    """Return what changes when a file does, as far as can be told without reading it; None if it can't be seen."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns


def _check(check: Callable[[ShardEntry], CheckedShard], task: tuple[ShardEntry, Path]) -> None:
    write_json(task[1], asdict(check(task[0])))


def _read(path: Path) -> CheckedShard | None:
    """Return what was found before, or None if that is gone or damaged."""
    try:
        content = parse_json(read_limited(path, MAX_RESULT_BYTES))
        return CheckedShard(tuple(map(str, content["faults"])), tuple(map(str, content["keys"])))
    except (OSError, *MALFORMED):
        return None
