"""Keys that take their values from other keys, which a resumed run may change: they change along with those.

A run's configuration is plain values. Beside them it records, as ``follows``, which key takes its value from which:
``lr_schedule.decay_steps: trainer.max_steps``.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

FOLLOWS = "follows"
"""Key of a recorded configuration: by dotted key, the dotted key whose value it has."""

_BEFORE = {
    "lr_schedule.decay_steps": "trainer.max_steps",
    "training.lr_schedule.decay_steps": "trainer.max_steps",
    "callbacks.metrics.every_steps": "trainer.log_every_n_steps",
    "launcher.nodes": "nodes",
    "launcher.gpus_per_node": "gpus_per_node",
}
"""What followed in runs that record nothing of it, where the two values are equal."""
_REFERENCE = re.compile(r"\$\{\s*(\.*)([\w.]+)\s*\}")
_MAX_HOPS = 100
"""References in a row; more go round in a circle, which OmegaConf refuses."""

_Path = tuple[str, ...]


def followers_of(config: DictConfig, is_changeable: Callable[[Sequence[str]], bool]) -> dict[str, str]:
    """Return which keys of a composed configuration take their values from keys that a resumed run may change.

    Args:
        config: With its interpolations; those that are one key, such as ``${trainer.max_steps}``, count.
        is_changeable: Tells of a key whether a resumed run may change it.
    """
    tree: Any = OmegaConf.to_container(config, resolve=False)
    pairs = _pairs(tree, tree, (), (), 0)
    return {".".join(path): ".".join(source) for path, source in pairs if path != source and is_changeable(source)}


def recorded_followers(saved: Mapping[str, Any]) -> dict[str, str]:
    """Return which keys of a recorded configuration follow others; in one that does not say, those of equal value."""
    if FOLLOWS in saved:
        return dict(saved[FOLLOWS])
    return {
        key: source
        for key, source in _BEFORE.items()
        if (value := select(saved, key.split("."))) is not ABSENT and value == select(saved, source.split("."))
    }


def let_follow(config: dict[str, Any], followers: Mapping[str, str]) -> None:
    """Give keys the values of those that they follow, and record which these are; ``config`` is changed in place."""
    for key, source in followers.items():
        *parents, name = key.split(".")
        node, value = select(config, parents), select(config, source.split("."))
        if isinstance(node, dict) and name in node and value is not ABSENT:
            node[name] = value
    config[FOLLOWS] = dict(followers)


ABSENT = object()
"""What ``select`` returns where there is nothing."""


def select(node: Any, path: Sequence[str]) -> Any:
    """Return what is at a path of nested mappings."""
    for key in path:
        if not isinstance(node, Mapping) or key not in node:
            return ABSENT
        node = node[key]
    return node


def _pairs(tree: Any, node: Any, path: _Path, source: _Path, hops: int) -> Iterator[tuple[_Path, _Path]]:
    """Yield each key with the key where its value stands.

    Args:
        tree: The whole configuration.
        node: What is below ``path``; it stands at ``source``.
        path: Key of a value.
        source: Key that references have led to.
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
    """Return where ``path`` leads, with references on the way to it followed; None where it leads nowhere."""
    for length in range(1, len(path)):
        target = _target(select(tree, path[:length]), path[:length])
        if target is not None:
            return _place(tree, (*target, *path[length:]), hops + 1) if hops < _MAX_HOPS else None
    return None if select(tree, path) is ABSENT else path


def _target(node: Any, path: _Path) -> _Path | None:
    """Return the key that the value at ``path`` is a reference to, if it is one and no more than that."""
    match = _REFERENCE.fullmatch(node) if isinstance(node, str) else None
    if match is None:
        return None
    dots, name = match.groups()
    return (*(path[: -len(dots)] if dots else ()), *name.split("."))
