"""Names of results: a metric whose protocol was changed on the command line bears another name."""

from collections.abc import Iterator, Mapping
from typing import Any

from vdm.cli.conf_dir import conf_dir
from vdm.outside import read_yaml

NO_PROTOCOL = ("path", "sha256", "batch_size", "num_resamples", "device")
"""Keys that don't change the figure: where weights are, which checksum they must have, and how the work is done."""


def published(name: str) -> dict[str, Any] | None:
    """Return the metric of ``conf/metric/NAME.yaml``; None if there is none."""
    path = conf_dir() / "metric" / f"{name}.yaml"
    return read_yaml(path) if path.is_file() else None


def result_name(name: str, node: Mapping[str, Any]) -> str:
    """Return the metric's name, followed by the parts of its protocol that differ from the YAML of that name.

    A user's own metric keeps its name, whatever its protocol.
    """
    usual = published(name)
    if usual is None:
        return name
    before, now = dict(_flat(usual)), dict(_flat(node))
    changed = [f"{key}={now.get(key)}" for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]
    return f"{name}[{','.join(changed)}]" if changed else name


def _flat(node: Mapping[str, Any], parent: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{parent}{key}.")
        elif key not in NO_PROTOCOL:
            yield f"{parent}{key}", value
