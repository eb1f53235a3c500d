"""Sampler and guidance of ``vdm sample`` and ``vdm evaluate``: the run's own, unless the user chooses others."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from vdm.cli.resume import copy_key

GROUPS = ("sampler", "guidance")


def as_trained(config: DictConfig, overrides: Sequence[str], recorded: Mapping[str, Any] | None = None) -> DictConfig:
    """Return the configuration with sampler and guidance of the run that ``config.checkpoint`` names.

    A group chosen on the command line (``sampler=unipc``) stays as it is; single keys (``sampler.num_steps=20``) change
    what the run has.

    Args:
        config: What the YAMLs and the command line make.
        overrides: The command line's overrides.
        recorded: Components of earlier settings, in the place of the run's.

    Raises:
        ValueError: In one line, if the run is missing or its configuration is refused; see ``RunConfig.read``.
    """
    if not {"checkpoint", *GROUPS} <= set(config) or OmegaConf.is_missing(config, "checkpoint"):
        return config
    from vdm.checkpoints.run_config import RunConfig

    run = RunConfig.read(Path(str(config.checkpoint)), config.get("allow_own_code") is True)
    trained = {**run.parts, **(recorded or {})}
    plain: Any = OmegaConf.to_container(config, resolve=False)
    paths = [
        override.key_or_group.replace("/", ".").split(".")
        for override in OverridesParser.create().parse_overrides(list(overrides))
    ]
    if ["guidance"] in paths and plain["guidance_scale"] is None:
        plain["guidance_scale"] = run.guidance_scale  # what the guidance chosen refers to
    for group in GROUPS:
        if [group] in paths:
            continue
        result = {group: deepcopy(trained[group])}
        for path in paths:
            if path[0] == group:
                copy_key(plain, result, path)
        if group == "guidance" and plain["guidance_scale"] is not None and ["guidance", "scale"] not in paths:
            result[group]["scale"] = plain["guidance_scale"]
        plain |= result
    return DictConfig(plain)
