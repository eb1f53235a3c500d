"""Runs a command under Hydra. A user's mistake ends it with one line and exit code 2, a bug with a traceback."""

import os
import sys
import warnings
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra._internal.hydra import Hydra
from hydra._internal.utils import get_args_parser
from hydra.conf import OverridesConf
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.errors import ConfigCompositionException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from vdm.cli.faults import COMPOSITION_FAULTS, is_mistake, one_line, unknown_key
from vdm.cli.options.base import CommandOptions
from vdm.cli.overrides import DECIDING, deciding, readable, split_sweeps
from vdm.cli.own_code import make_importable
from vdm.cli.ready import check_without_import, ready, without_variables
from vdm.cli.run_folder import register_run_folder
from vdm.cli.sweeps import with_common_keys
from vdm.config import ConfigError
from vdm.config.conf_dir import conf_dir
from vdm.config.options import check_given, options_of
from vdm.logs import library_warnings_logged
from vdm.processes import is_first_of_machine
from vdm.text import printable

Task = Callable[[DictConfig], int | None]
"""Takes a complete, resolved configuration; returns an exit code, ``None`` for 0."""

_VARIABLES = ("HYDRA_FULL_ERROR", "HYDRA_MAIN_MODULE")
"""The first makes Hydra pass exceptions on; the second is the job's name, after which its log is named."""


def hydra_command(config_name: str, task: Task, options: type[CommandOptions] | None = None) -> int:
    """Compose ``conf/CONFIG_NAME.yaml`` with the command line and run ``task`` on it, once or as a sweep (``-m``).

    The user's values are checked against ``options`` before ``task`` is called, and so before it imports anything.

    ``sys.argv[1]`` is the command's name, which Hydra must not see. While ``task`` runs, ``sys.argv`` and the
    environment are the user's, since Lightning starts further processes with them. With ``HYDRA_FULL_ERROR=1`` mistakes
    keep their traceback too.

    Returns:
        The exit code: that of ``task``, 2 after a user's mistake, 130 after Ctrl-C.
    """
    argv, path, variables = sys.argv, list(sys.path), {name: os.environ.get(name) for name in _VARIABLES}
    is_full_error = variables["HYDRA_FULL_ERROR"] == "1"
    codes = [0]
    crashes: list[Exception] = []

    def run(config: DictConfig) -> int | None:
        try:
            with _process(_argv_of_job(argv), variables), library_warnings_logged():
                code = task(ready(config, _overrides().task, Path(HydraConfig.get().runtime.output_dir), options))
        except Exception as error:
            if is_full_error or not is_mistake(error):
                crashes.append(error)
                raise
            _report(error)
            _remove_unused(Path(HydraConfig.get().runtime.output_dir))
            raise SystemExit(2) from error  # for an Exception, Hydra would print lines of its own
        if code is not None and code > 128:
            raise SystemExit(code)  # stopped by a signal: skip further runs of a sweep
        codes.append(code or 0)
        return code

    try:
        if options is not None and options.imports_from_here(deciding(argv[2:])):
            make_importable()
        arguments = readable(argv[2:], options, conf_dir())
        hydra_argv = [f"{Path(argv[0]).name} {config_name}", *arguments]
        with _process(hydra_argv, {"HYDRA_FULL_ERROR": "1", "HYDRA_MAIN_MODULE": config_name}):
            _compose_and_run(config_name, run, options)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # an OSError, but no mistake
        raise
    except SystemExit as stop:
        if not isinstance(stop.code, int):
            raise
        return stop.code
    except COMPOSITION_FAULTS as error:
        if is_full_error or error in crashes:
            raise
        _report(error)
        return 2
    finally:
        sys.path[:] = path
    return max(codes)


def _compose_and_run(config_name: str, run: Task, options: type[CommandOptions] | None) -> None:
    arguments = _parsed_arguments()
    register_run_folder(is_to_run=arguments.cfg is None)
    _register_launcher()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="provider=.* is not available", category=UserWarning)
        mode_known: AbstractContextManager[None] = nullcontext()
        if options is not None and not _is_changed_by_flags(arguments):
            mode_known = _mode_known(_check_early(config_name, arguments.overrides, options))
        sys.argv = with_common_keys(sys.argv, arguments.overrides)
        with mode_known:
            hydra.main(str(conf_dir()), config_name, version_base="1.3")(run)()


@contextmanager
def _mode_known(mode: RunMode | None) -> Iterator[None]:
    """Spare Hydra composing the whole configuration once more, only to look up ``hydra.mode``."""
    look_up = Hydra.get_mode
    Hydra.get_mode = lambda *_, **__: mode
    try:
        yield
    finally:
        Hydra.get_mode = look_up


def _check_early(config_name: str, overrides: Sequence[str], options: type[CommandOptions]) -> RunMode | None:
    """Check plain values, also those of all runs of a sweep, before Hydra makes the run's folder.

    Returns:
        ``hydra.mode``, which a YAML may set.
    """
    common, swept = split_sweeps(overrides)
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = _composed(config_name, common, options)
    mode: RunMode | None = config.hydra.mode
    with open_dict(config):
        del config["hydra"]
    plain: Any = OmegaConf.to_container(config, resolve=False)
    for key, value in plain.items():
        if isinstance(value, str) and "${" in value:
            with suppress(OmegaConfBaseException):  # reported when all are resolved
                plain[key] = config[key]
    plain = without_variables(plain, config, options)
    completed = options.completed({**plain, **{key: value for key, value in reversed(swept) if key in DECIDING}})
    check_given(completed, plain)
    known = {option.key for option in options_of(completed)}
    for key, value in swept:
        is_choice = isinstance(plain.get(key), Mapping)  # of a group, which Hydra looks up
        if key in known and "." not in key and not is_choice:
            check_given(completed, {**plain, key: value})
    overridden = [override.partition("=")[0] for override in common]
    # The run has not been read yet; it supplies its components, and values for components that the user chose.
    checked = (option for option in options_of(completed) if option.key not in completed.of_run)
    check_without_import(config, checked, overridden)
    return mode


def _composed(config_name: str, overrides: Sequence[str], options: type[CommandOptions]) -> DictConfig:
    """Compose, ``hydra`` included.

    The error for a key that no YAML has gives advice, or lists the options of the checkpoint's model.
    """
    try:
        return hydra.compose(config_name, list(overrides), return_hydra_config=True)
    except ConfigCompositionException as error:
        key = unknown_key(error)
        name = (key or "").partition(".")[0]
        if name in options.instead:
            raise ConfigError(f"{name}: unknown key; {options.instead[name]}") from error
        if key is not None and "." not in key:
            options.completed({**deciding(overrides), key: None})
        raise


def _is_changed_by_flags(arguments: Namespace) -> bool:
    """Tell whether Hydra's flags ask for something other than a run, or for YAMLs from elsewhere."""
    others = ("help", "hydra_help", "cfg", "info", "shell_completion", "config_path", "config_name", "config_dir")
    return any(getattr(arguments, name) for name in others)


def _register_launcher() -> None:
    """Register the launcher of ``launcher=slurm`` with Hydra.

    Hydra imports launchers only from the package ``hydra_plugins``, but looks into its table of plugins first.
    """

    def refuse(**_: Any) -> NoReturn:
        raise ConfigError("launcher=slurm: needs hydra-submitit-launcher: pip install '.[slurm]'")

    launcher: Any = refuse
    with suppress(ImportError):
        from vdm.cli.slurm_launcher import SlurmLauncher

        launcher = SlurmLauncher
    Plugins.instance().class_name_to_class["hydra_plugins.vdm.SlurmLauncher"] = launcher


def _parsed_arguments() -> Namespace:
    """Return Hydra's flags and the overrides. A mistake is one line, without the usage that argparse adds."""

    def refuse(message: str) -> NoReturn:
        raise ConfigError(message)

    parser = get_args_parser()
    setattr(parser, "error", refuse)  # noqa: B010 - pyright takes the method as not assignable
    return parser.parse_args()


@contextmanager
def _process(argv: Sequence[str], variables: Mapping[str, str | None]) -> Iterator[None]:
    """Replace the process's command line and environment until the block ends; None unsets a variable.

    Variables set within the block are undone too: Lightning leaves ranks and addresses there, which the next job of a
    sweep must not use.
    """
    before = sys.argv, dict(os.environ)
    sys.argv = list(argv)
    for name, value in variables.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    try:
        yield
    finally:
        sys.argv = before[0]
        os.environ.clear()
        os.environ.update(before[1])


def _argv_of_job(argv: Sequence[str]) -> Sequence[str]:
    """Return a command line that runs this job alone, even if it belongs to a sweep.

    Lightning adds ``hydra.run.dir``, which in a sweep is the job's folder only if it is set here.
    """
    config: Any = HydraConfig.get()
    if config.mode != RunMode.MULTIRUN:
        return argv
    with read_write(config):
        config.run.dir = config.runtime.output_dir
    arguments = get_args_parser().parse_args(argv[2:])
    flags = [f"--config-dir={arguments.config_dir}"] if arguments.config_dir else []
    search_path = [override for override in _overrides().hydra if override.startswith("hydra.searchpath=")]
    return [*argv[:2], *flags, *search_path, *_overrides().task]


def _overrides() -> OverridesConf:
    """Return the overrides of the command line unresolved; accessed in place, interpolations in them would resolve."""
    config: Any = HydraConfig.get()
    overrides: Any = OmegaConf.to_container(config.overrides, resolve=False)
    return OverridesConf(**overrides)


def _report(error: BaseException) -> None:
    if is_first_of_machine():
        print(printable(one_line(error)), file=sys.stderr)


def _remove_unused(folder: Path) -> None:
    """Remove the run's folder and the two above it, as far as they are empty."""
    for path in (folder, *folder.parents[:2]):
        if Path.cwd().is_relative_to(path):
            return
        try:
            path.rmdir()
        except OSError:  # not empty
            return
