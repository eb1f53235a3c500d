"""Settings of runs as rows of a table: one for each key, and which of them differ."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

MAX_SETTINGS = 5000
"""Rows for a run, at most; a run of this project has some 300."""
_NO_SETTING = ("started_in", "follows", "hydra")
"""Keys of ``config.yaml`` that record how the run was started."""


def flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a configuration by dotted key, lists as they are."""
    return {key: value for _, (key, value) in zip(range(MAX_SETTINGS), _leaves(config, ""), strict=False)}


def _leaves(node: Mapping[str, Any], parent: str) -> Iterator[tuple[str, Any]]:
    for name, value in node.items():
        if not parent and name in _NO_SETTING:
            continue
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{parent}{name}.")
        else:
            yield f"{parent}{name}", value


def shown(value: Any) -> str:
    """Return a value as YAML would show it, on one line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(shown, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {shown(one)}' for key, one in value.items())}}}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def differing_keys(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return all keys in which runs differ, in the order of the first run."""
    keys = dict.fromkeys(key for one in settings for key in one)
    return [key for key in keys if len(set(_values(settings, key))) > 1]


def differing(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the keys in which runs differ.

    Of several keys that go together in all runs, as where one refers to another, only the one with the shortest name is
    returned.
    """
    shortest: dict[tuple[str, ...], str] = {}
    for key in sorted(differing_keys(settings), key=len):
        shortest.setdefault(_values(settings, key), key)
    return [key for key in differing_keys(settings) if key in shortest.values()]


def _values(settings: Sequence[Mapping[str, Any]], key: str) -> tuple[str, ...]:
    return tuple(shown(one[key]) if key in one else "" for one in settings)
