"""What a run was trained with: hardware, code, data and packages, and what of it changed from one start to the next."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from vdm.checkpoints.history import Event
from vdm.checkpoints.run_record import Versions
from vdm.report.settings import shown

MAX_CHANGES = 200


def environment_of(versions: Sequence[Versions], history: Sequence[Event]) -> dict[str, Any]:
    """Return plain values: facts of the last start, its packages, and changes between starts."""
    last: Versions = versions[-1] if versions else {"packages": {}}
    return {
        "facts": [*_of_start(history), *_of_versions(last)],
        "packages": sorted(last["packages"].items(), key=lambda item: item[0].lower()),
        "changes": [change for _, change in zip(range(MAX_CHANGES), _changes(versions), strict=False)],
    }


def _of_start(history: Sequence[Event]) -> Iterator[tuple[str, str]]:
    start = next((event for event in reversed(history) if event.event == "start"), None)
    if start is None:
        return
    told = {"command": start.command, "processes": start.num_processes, "devices": start.devices}
    for label, value in {**told, "strategy": start.strategy}.items():
        if value is not None:
            yield label, str(value)


def _of_versions(start: Versions) -> Iterator[tuple[str, str]]:
    for name, value in start.get("hardware", {}).items():
        if value not in ([], "", None):
            yield name.replace("_gib", ", GiB"), shown(value)
    for one in start.get("data_sets", []):
        yield "data", f"{one['path']}, {one['num_samples']:,} samples, checksum {one['checksum']}"
    for name in ("platform", "python"):
        if name in start:
            yield name, str(start.get(name))
    if code := _code(start):
        yield "code", code


def _code(start: Versions) -> str:
    git = start.get("git")
    if git is None:
        return ""
    changed = f", with changes: {git.get('diff') or 'files that git does not track'}" if git.get("dirty") else ""
    return git["commit"] + changed


def _changes(versions: Sequence[Versions]) -> Iterator[dict[str, str]]:
    for before, after in pairwise(versions):
        old, new = (_comparable(one) for one in (before, after))
        for name in sorted(old.keys() | new.keys()):
            if old.get(name) != new.get(name):
                yield {
                    "start": str(after.get("time", "")),
                    "what": name,
                    "before": old.get(name, "absent"),
                    "after": new.get(name, "absent"),
                }


def _comparable(start: Versions) -> Mapping[str, str]:
    facts = {name: value for name, value in _of_versions(start) if name not in ("code", "python")}
    return {**start["packages"], **facts, "code": _code(start), "python": str(start.get("python", ""))}
