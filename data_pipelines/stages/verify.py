"""Stage verify: check every byte of the finished set against its index, except shards that were found intact before.

The result for a shard is cached under a name that changes with its index entry, with the requirements on its samples,
and whenever the size or modification time of its tar or sidecar changes.
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
"""End of the names of results: a ``digest``."""


def check_all(path: Path, shards: Sequence[ShardEntry], rules: Rules, folder: WorkFolder) -> dict[str, CheckedShard]:
    """Check all shards of a set, except those that were intact before and are unchanged.

    Shards with faults are read again in every run, since the storage may have been at fault.

    Args:
        path: Folder of the set.
        shards: Their index entries.
        rules: Requirements on their samples.
        folder: Keeps the results; those of shards that no longer exist are removed.

    Returns:
        The results, by name of the shard.
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
        # the result of another task of the array may have been lost since
        found[shard.name] = CheckedShard((failed[name],), ()) if name in failed else _read(result) or check(shard)
    for old in there - set(paths.values()):
        if _RESULT.search(old.name):
            old.unlink(missing_ok=True)
    return found


def _result_name(path: Path, shard: ShardEntry, rules: Rules) -> str:
    files = [_state(path / name) for name in (shard.name, sidecar_name(shard.name))]
    return f"{shard.name.removesuffix('.tar')}-{digest(str(shard), str(rules), files)}"


def _state(path: Path) -> tuple[int, int] | None:
    """Return size and modification time of a file; None if it can't be accessed."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns


def _check(check: Callable[[ShardEntry], CheckedShard], task: tuple[ShardEntry, Path]) -> None:
    write_json(task[1], asdict(check(task[0])))


def _read(path: Path) -> CheckedShard | None:
    """Return a cached result; None if it is missing or damaged."""
    try:
        content = parse_json(read_limited(path, MAX_RESULT_BYTES))
        return CheckedShard(tuple(map(str, content["faults"])), tuple(map(str, content["keys"])))
    except (OSError, *MALFORMED):
        return None
