"""Sampler and guidance of ``vdm sample`` and ``vdm evaluate``: those of the run, unless the user chooses others."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from vdm.cli.overrides import overridden_keys
from vdm.cli.resume import copy_key

GROUPS = ("sampler", "guidance")


def with_components_of_run(
    config: DictConfig, overrides: Sequence[str], recorded: Mapping[str, Any] | None = None
) -> DictConfig:
    """Return the configuration with sampler and guidance of the run that ``config.checkpoint`` names.

    A group chosen on the command line (``sampler=unipc``) is kept; a single key (``sampler.num_steps=20``) changes the
    run's component.

    Args:
        config: Configuration composed of YAMLs and command line.
        overrides: Overrides of the command line.
        recorded: Components of earlier settings, which replace those of the run.

    Raises:
        ValueError: In one line, if the run is missing or its configuration is refused; see ``RunConfig.read``.
    """
    if not {"checkpoint", *GROUPS} <= set(config) or OmegaConf.is_missing(config, "checkpoint"):
        return config
    if config.checkpoint is None:  # finished videos are evaluated: there is nothing to sample with
        chosen = {path[0] for path in overridden_keys(overrides)}
        return DictConfig({**config, **{group: None for group in GROUPS if group not in chosen}})
    from vdm.checkpoints.run_config import RunConfig

    run = RunConfig.read(Path(str(config.checkpoint)), config.get("allow_own_code") is True)
    trained = {**run.parts, **(recorded or {})}
    plain: Any = OmegaConf.to_container(config, resolve=False)
    paths = overridden_keys(overrides)
    if ["guidance"] in paths and plain["guidance_scale"] is None:
        plain["guidance_scale"] = run.guidance_scale  # the chosen guidance refers to it
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
