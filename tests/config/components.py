"""The components that conf/ names."""

from collections.abc import Iterator
from typing import Any

from omegaconf import OmegaConf

from vdm.config.conf_dir import conf_dir


def _nodes(node: Any, key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(node, dict):
        for name, value in node.items():
            yield from _nodes(value, f"{key}.{name}" if key else str(name))
        if "_target_" in node:
            yield key, node
    elif isinstance(node, list):
        for value in node:
            yield from _nodes(value, key)


def _plain(node: Any) -> Any:
    """Return ``node`` without values that only a whole configuration has, and without Hydra's list of defaults."""
    if isinstance(node, dict):
        kept = {name: value for name, value in node.items() if name != "defaults" and not _is_reference(value)}
        return {name: _plain(value) for name, value in kept.items()}
    return node


def _is_reference(value: Any) -> bool:
    return isinstance(value, str) and ("${" in value or value == "???")


NODES = [
    (key or path.parent.name, _plain(node))
    for path in sorted(conf_dir().glob("**/*.yaml"))
    for key, node in _nodes(OmegaConf.to_container(OmegaConf.load(path)), "")
]
"""Each component's key in its YAML and its node, without references to other keys."""
TARGETS = {node["_target_"] for _, node in NODES}
