"""The last step before a command runs: its configuration is completed, resolved and checked."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, MissingMandatoryValue, OmegaConfBaseException

from vdm.cli.faults import one_line
from vdm.cli.followers import ABSENT, select
from vdm.cli.options.base import CommandOptions
from vdm.cli.own_code import make_importable
from vdm.cli.resume import resumed
from vdm.cli.run_components import with_components_of_run
from vdm.cli.sample_repeat import with_recorded_options
from vdm.config import ConfigError
from vdm.config import check as check_component
from vdm.config.options import Option, options_of, parse
from vdm.config.quoting import escaped
from vdm.config.static_signatures import read_signature


def ready(
    config: DictConfig, overrides: Sequence[str], folder: Path, options: type[CommandOptions] | None = None
) -> DictConfig:
    """Take over a run's configuration, refuse missing values, resolve interpolations and check options.

    Args:
        config: Configuration composed of YAMLs and command line.
        overrides: Overrides of the command line.
        folder: Folder of the run.
        options: Class of the command's options.

    Returns:
        A configuration in which ``${`` is escaped: resolve it once.

    Raises:
        ConfigError: One line that names the key.
    """
    if options is not None and options.imports_from_here({"allow_own_code": config.get("allow_own_code")}):
        make_importable()  # also in the process of a SLURM job, and where a YAML allows it
    try:
        config, recorded = with_recorded_options(resumed(config, overrides, folder), overrides, options)
        config = with_components_of_run(config, overrides, recorded)
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
    """Check the components of which the command line sets values, if that needs no import.

    Components with values that can't be resolved yet are left to ``ready``, and so are those that are only chosen.
    """
    changed = [key.lstrip("+") for key in overridden]
    for option in options:
        if option.is_component and any(key.startswith(f"{option.key}.") for key in changed):
            try:
                node: Any = OmegaConf.to_container(OmegaConf.select(config, option.key), resolve=True)
            except (OmegaConfBaseException, ValueError):  # a value is missing, or no group was chosen
                continue
            if _is_read(node):
                check_component(node, option.key)


def without_variables(plain: Mapping[str, Any], config: DictConfig, options: type[CommandOptions]) -> dict[str, Any]:
    """Leave out variables of a user's YAMLs, to which other keys refer, such as ``dim`` in ``channels: ["${dim}"]``."""
    known = {option.key.partition(".")[0] for option in options_of(options)}
    referred = set(re.findall(r"\$\{\s*([A-Za-z_]\w*)", str(OmegaConf.to_container(config, resolve=False))))
    return {key: value for key, value in plain.items() if key in known or key not in referred}


def _check(options: type[CommandOptions], plain: Mapping[str, Any]) -> None:
    """Check all options of a command: types first, then files, components and the machine."""
    told: CommandOptions = parse(options, plain)
    told.check_paths()
    for option in options_of(options):
        if option.is_component:
            node = select(plain, option.key.split("."))
            if node is not ABSENT and (told.imports_any_code or _is_of_this_project(node)):
                check_component(node, option.key)
    told.check_machine()


def _is_of_this_project(node: Any) -> bool:
    """Tell whether a component and those in it are classes of this project, which are safe to import."""
    if isinstance(node, Mapping):
        target = node.get("_target_", "vdm.")
        return str(target).startswith("vdm.") and all(map(_is_of_this_project, node.values()))
    return all(map(_is_of_this_project, node)) if isinstance(node, list) else True


def _is_read(node: Any) -> bool:
    """Tell whether the signatures of a component and of those in it can be read from source."""
    if isinstance(node, Mapping):
        with suppress(LookupError):  # it does not exist in this project: the check says so
            if "_target_" in node and read_signature(str(node["_target_"])) is None:
                return False
        return all(map(_is_read, node.values()))
    return all(map(_is_read, node)) if isinstance(node, list) else True


def _missing_keys(node: Any) -> Iterator[str]:
    """Yield the keys without a value; access all others, so that OmegaConf names keys with wrong interpolations."""
    for key in range(len(node)) if isinstance(node, ListConfig) else node:
        try:
            child = node[key]
        except MissingMandatoryValue:
            yield node._get_full_key(key)
        except InterpolationToMissingValueError:  # the key that it refers to is found by itself
            pass
        else:
            yield from _missing_keys(child) if OmegaConf.is_config(child) else ()
