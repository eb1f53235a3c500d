"""Sampler and guidance of ``vdm sample`` and ``vdm evaluate``: the run's own, unless the user chooses others."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from vdm.cli.resume import copy_key
from vdm.config import ConfigError

GROUPS = ("sampler", "guidance")


def as_trained(config: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """Return the configuration with sampler and guidance of the run that ``config.checkpoint`` names.

    A group chosen on the command line (``sampler=unipc``) stays as it is; single keys (``sampler.num_steps=20``) change
    what the run has.

    Args:
        config: What the YAMLs and the command line make.
        overrides: The command line's overrides.

    Raises:
        ConfigError: If what comes from the run, which may be anybody's, has interpolations: they can run code.
    """
    if not {"checkpoint", *GROUPS} <= set(config) or OmegaConf.is_missing(config, "checkpoint"):
        return config
    from vdm.checkpoints.runs import load_config

    try:
        trained = load_config(Path(str(config.checkpoint)))
    except ValueError:
        return config  # the command says what is wrong with it
    plain: Any = OmegaConf.to_container(config, resolve=False)
    paths = [
        override.key_or_group.replace("/", ".").split(".")
        for override in OverridesParser.create().parse_overrides(list(overrides))
    ]
    for group in GROUPS:
        if [group] in paths:
            continue
        if (found := _interpolation(trained[group])) is not None:
            raise ConfigError(f"{group}: {config.checkpoint} has {found!r} there; runs record values alone")
        result = {group: deepcopy(trained[group])}
        for path in paths:
            if path[0] == group:
                copy_key(plain, result, path)
        if group == "guidance" and plain["guidance_scale"] is not None and ["guidance", "scale"] not in paths:
            result[group]["scale"] = plain["guidance_scale"]
        plain |= result
    return DictConfig(plain)


def _interpolation(node: Any) -> str | None:
    """Return the first text, or key, that OmegaConf would resolve."""
    if isinstance(node, Mapping):
        node = [*node.keys(), *node.values()]
    if isinstance(node, list):
        return next((found for found in map(_interpolation, node) if found is not None), None)
    return node if isinstance(node, str) and "${" in node else None
