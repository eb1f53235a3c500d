"""From a composed configuration to one that a command can be run with: whole, resolved and checked."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, MissingMandatoryValue, OmegaConfBaseException

from vdm.cli.as_trained import as_trained
from vdm.cli.faults import one_line
from vdm.cli.options.base import CommandOptions
from vdm.cli.own_code import make_importable
from vdm.cli.repeated import repeated
from vdm.cli.resume import resumed
from vdm.config import ConfigError
from vdm.config import check as check_component
from vdm.config.options import Option, options_of, parse
from vdm.config.quoting import escaped
from vdm.config.static_signatures import read_signature


def ready(
    config: DictConfig, overrides: Sequence[str], folder: Path, options: type[CommandOptions] | None = None
) -> DictConfig:
    """Take over what a run's configuration says, refuse missing values, resolve interpolations and check options.

    Args:
        config: What the YAMLs and the command line make.
        overrides: The command line's overrides.
        folder: Folder of the run.
        options: The class of the command's options.

    Returns:
        A configuration whose texts are escaped where they would be taken for interpolations: resolve it once.

    Raises:
        ConfigError: One line that names the key.
    """
    if options is not None and options.imports_from_here({"allow_own_code": config.get("allow_own_code")}):
        make_importable()  # also in the process of a SLURM job, and where a YAML allows it
    try:
        config, recorded = repeated(resumed(config, overrides, folder), overrides, options)
        config = as_trained(config, overrides, recorded)
        missing = list(_missing_keys(config))
        if missing:
            raise ConfigError(f"{', '.join(missing)}: no value given; add {' '.join(f'{key}=...' for key in missing)}")
        plain: Any = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(one_line(error)) from error
    if options is not None:
        plain = without_variables(plain, config, options)
        _check(options.completed(plain), plain)
    return DictConfig(escaped(plain))


def check_without_import(config: DictConfig, options: Iterable[Option], overridden: Iterable[str]) -> None:
    """Check those components that the command line changes, where none has to be imported for it.

    What can't be resolved yet is left to ``ready``.
    """
    changed = {key.lstrip("+").replace("/", ".") for key in overridden}
    for option in options:
        if option.is_component and any(f"{key}.".startswith(f"{option.key}.") for key in changed):
            try:
                node: Any = OmegaConf.to_container(OmegaConf.select(config, option.key), resolve=True)
            except (OmegaConfBaseException, ValueError):  # a value is missing, or no group was chosen
                continue
            if _is_read(node):
                check_component(node, option.key)


def without_variables(plain: Mapping[str, Any], config: DictConfig, options: type[CommandOptions]) -> dict[str, Any]:
    """Leave out what a user's YAMLs define for other keys to refer to, as ``dim`` for ``channels: ["${dim}"]``."""
    known = {option.key.partition(".")[0] for option in options_of(options)}
    referred = set(re.findall(r"\$\{\s*([A-Za-z_]\w*)", str(OmegaConf.to_container(config, resolve=False))))
    return {key: value for key, value in plain.items() if key in known or key not in referred}


def _check(options: type[CommandOptions], plain: Mapping[str, Any]) -> None:
    """Check all that a command can be told: what is cheap first."""
    told: CommandOptions = parse(options, plain)
    told.check_paths()
    for option in options_of(options):
        if option.is_component:
            node = _at(plain, option.key)
            if told.imports_any_code or _is_of_this_project(node):
                check_component(node, option.key)
    told.check_machine()


def _is_of_this_project(node: Any) -> bool:
    """Tell whether a component and its parts are classes of this project, so that importing them is safe."""
    if isinstance(node, Mapping):
        target = node.get("_target_", "vdm.")
        return str(target).startswith("vdm.") and all(map(_is_of_this_project, node.values()))
    return all(map(_is_of_this_project, node)) if isinstance(node, list) else True


def _is_read(node: Any) -> bool:
    """Tell whether the source of a component's class, and of its parts' classes, can be read."""
    if isinstance(node, Mapping):
        with suppress(LookupError):  # it is in none of our modules: checking it says so
            if "_target_" in node and read_signature(str(node["_target_"])) is None:
                return False
        return all(map(_is_read, node.values()))
    return all(map(_is_read, node)) if isinstance(node, list) else True


def _at(plain: Mapping[str, Any], key: str) -> Any:
    """Return what is at a dotted key; None where a group was not chosen."""
    node: Any = plain
    for name in key.split("."):
        node = node.get(name) if isinstance(node, Mapping) else None
    return node


def _missing_keys(node: Any) -> Iterator[str]:
    """Yield the keys without a value, and access all others: OmegaConf names a broken interpolation's key only then."""
    for key in range(len(node)) if isinstance(node, ListConfig) else node:
        try:
            child = node[key]
        except MissingMandatoryValue:
            yield node._get_full_key(key)
        except InterpolationToMissingValueError:  # what it points to is found by itself
            pass
        else:
            yield from _missing_keys(child) if OmegaConf.is_config(child) else ()
