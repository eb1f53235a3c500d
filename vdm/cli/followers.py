"""Followers: keys of a configuration that take their values from other keys, which a resumed run may change.

A run records plain values, without references. So it also records, as ``follows``, which key takes its value from
which: ``lr_schedule.decay_steps: trainer.max_steps``. When a resumed run changes a key, its followers change too.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

FOLLOWS = "follows"
"""Key of a recorded configuration. Its value maps each follower to the key that it follows."""

_BEFORE = {
    "lr_schedule.decay_steps": "trainer.max_steps",
    "training.lr_schedule.decay_steps": "trainer.max_steps",
    "callbacks.metrics.every_steps": "trainer.log_every_n_steps",
    "launcher.nodes": "nodes",
    "launcher.gpus_per_node": "gpus_per_node",
}
"""Followers of older runs, which record none; they count if the two values are equal."""
_REFERENCE = re.compile(r"\$\{\s*(\.*)([\w.]+)\s*\}")
_MAX_HOPS = 100
"""Length of a chain of references; a longer one is a circle, which OmegaConf refuses."""

_Path = tuple[str, ...]


def followers_of(config: DictConfig, is_changeable: Callable[[Sequence[str]], bool]) -> dict[str, str]:
    """Return the followers of keys that a resumed run may change.

    Args:
        config: Composed configuration with its interpolations. A follower's value is a single reference, such as
            ``${trainer.max_steps}``.
        is_changeable: Tells whether a resumed run may change a key.
    """
    tree: Any = OmegaConf.to_container(config, resolve=False)
    pairs = _pairs(tree, tree, (), (), 0)
    return {".".join(path): ".".join(source) for path, source in pairs if path != source and is_changeable(source)}


def recorded_followers(saved: Mapping[str, Any]) -> dict[str, str]:
    """Return the followers of a recorded configuration; for older runs see ``_BEFORE``."""
    if FOLLOWS in saved:
        return dict(saved[FOLLOWS])
    return {
        key: source
        for key, source in _BEFORE.items()
        if (value := select(saved, key.split("."))) is not ABSENT and value == select(saved, source.split("."))
    }


def let_follow(config: dict[str, Any], followers: Mapping[str, str]) -> None:
    """Set followers to the values of their keys, and record the followers; ``config`` is changed in place."""
    for key, source in followers.items():
        *parents, name = key.split(".")
        node, value = select(config, parents), select(config, source.split("."))
        if isinstance(node, dict) and name in node and value is not ABSENT:
            node[name] = value
    config[FOLLOWS] = dict(followers)


ABSENT = object()
"""Returned by ``select`` if there is no value."""


def select(node: Any, path: Sequence[str]) -> Any:
    """Return the value at a path of nested mappings, or ``ABSENT``."""
    for key in path:
        if not isinstance(node, Mapping) or key not in node:
            return ABSENT
        node = node[key]
    return node


def _pairs(tree: Any, node: Any, path: _Path, source: _Path, hops: int) -> Iterator[tuple[_Path, _Path]]:
    """Yield each key with the key that holds its value.

    Args:
        tree: The whole configuration.
        node: The value of ``path``, found at ``source``.
        path: Key of a value.
        source: Key to which references have led.
        hops: References followed so far.
    """
    if isinstance(node, Mapping):
        for name, child in node.items():
            yield from _pairs(tree, child, (*path, str(name)), (*source, str(name)), hops)
        return
    target = _target(node, source)
    if target is None:
        yield path, source
    elif hops < _MAX_HOPS and (found := _place(tree, target, hops)) is not None:
        yield from _pairs(tree, select(tree, found), path, found, hops + 1)


def _place(tree: Any, path: _Path, hops: int) -> _Path | None:
    """Return the key to which ``path`` leads through references; None if it leads nowhere."""
    for length in range(1, len(path)):
        target = _target(select(tree, path[:length]), path[:length])
        if target is not None:
            return _place(tree, (*target, *path[length:]), hops + 1) if hops < _MAX_HOPS else None
    return None if select(tree, path) is ABSENT else path


def _target(node: Any, path: _Path) -> _Path | None:
    """Return the key to which the value at ``path`` refers, if the value is a single reference."""
    match = _REFERENCE.fullmatch(node) if isinstance(node, str) else None
    if match is None:
        return None
    dots, name = match.groups()
    return (*(path[: -len(dots)] if dots else ()), *name.split("."))
