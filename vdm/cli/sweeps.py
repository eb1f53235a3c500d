"""Sweeps (``vdm train -m``): folder names, groups and tags of runs, by the overrides in which they differ."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import ListConfig, OmegaConf

from vdm.cli.overrides import split_sweeps
from vdm.config.quoting import hydra_quoted

_EXCLUDED = "hydra.job.config.override_dirname.exclude_keys"
_MAX_NAME = 120
"""Characters of a folder's name, at most. A character has up to four bytes, a name 255, and names are extended."""
_MAX_ASCII_NAME = 200
_MAX_TAG = 64
"""Characters of a tag that Weights & Biases allows."""


class Sweep(NamedTuple):
    """The sweep of a run."""

    name: str
    overrides: Sequence[str]
    """Overrides in which the run differs from the other runs."""


def with_common_keys(argv: Sequence[str], overrides: Sequence[str]) -> list[str]:
    """Return a sweep's command line with Hydra's option that keeps keys common to all runs out of names."""
    common, swept = split_sweeps(overrides)
    if not swept:
        return list(argv)
    parsed = OverridesParser.create().parse_overrides(common)
    # A key given twice, once for all runs and once to sweep, differs between them.
    equal = {override.key_or_group for override in parsed} - {key for key, _ in swept}
    keys = ",".join(map(hydra_quoted, sorted(equal)))
    place = list(argv).index(overrides[0])  # next to the others: argparse takes positional arguments in one row only
    return [*argv[:place], f"{_EXCLUDED}=[{keys}]", *argv[place:]]


def run_name(number: int, overrides: Iterable[str]) -> str:
    """Return the name of a run's folder: its number, and its own overrides as far as they fit into a name."""
    words = ",".join(override.lstrip("+~") for override in overrides)
    words = re.sub(r"[^\w.,=+-]+", "-", words).strip("-.,")[:_MAX_NAME].rstrip("-.,")
    while len(words.encode()) > _MAX_ASCII_NAME:
        words = words[:-1]
    return f"{number}_{words}" if words else str(number)


def differing(job: Any, overrides: Sequence[str] | ListConfig) -> list[str]:
    """Return the overrides in which a run differs from others of its sweep.

    Args:
        job: ``hydra.job`` in the configuration.
        overrides: All overrides of the run, as texts or as in the configuration.
    """
    excluded = set(job.config.override_dirname.exclude_keys)
    # Accessed in place, interpolations in overrides would resolve.
    plain: Any = OmegaConf.to_container(overrides, resolve=False) if isinstance(overrides, ListConfig) else overrides
    texts = list(map(str, plain))
    parsed = OverridesParser.create().parse_overrides(texts)
    last = {override.key_or_group: text for text, override in zip(texts, parsed, strict=True)}
    return [text for key, text in last.items() if key not in excluded]


def present_sweep() -> Sweep | None:
    """Return the sweep of the present run; None if it is a single run."""
    config: Any = HydraConfig.get()
    if config.mode != RunMode.MULTIRUN or config.sweep.subdir == ".":  # the latter: a job of one run
        return None
    return Sweep(Path(config.sweep.dir).name, differing(config.job, config.overrides.task))


def grouped(loggers: Mapping[str, Any], sweep: Sweep | None) -> dict[str, Any]:
    """Return loggers with group and tags of the sweep, unless the user has set a group.

    Args:
        loggers: ``logger`` in the configuration.
        sweep: The sweep of the run; None for a single run.
    """
    if sweep is None:
        return dict(loggers)
    tags = [tag[:_MAX_TAG] for tag in sweep.overrides]
    return {
        name: {**node, "group": node["group"] or sweep.name, "tags": [*(node["tags"] or []), *tags]}
        if isinstance(node, Mapping) and {"group", "tags"} <= set(node)
        else node
        for name, node in loggers.items()
    }
