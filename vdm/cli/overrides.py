"""The command line before Hydra reads it: texts are quoted for Hydra's grammar, and ``--key value`` is answered.

If an option is a text or a path by its annotation, all that is typed after ``KEY=`` is that text. Hydra's own syntax
holds for other options, and for all options in a sweep (``-m``).
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import field
from itertools import islice
from pathlib import Path
from typing import Any

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, QuotedString, Sweep, Transformer
from hydra.errors import HydraException

from vdm.cli.next_step import option
from vdm.cli.options.base import CommandOptions
from vdm.config import ConfigError, did_you_mean
from vdm.config.options import NeverANumber, Option, PlainPath, options_of, texts_of
from vdm.config.quoting import escaped, hydra_quoted, shell_list, shell_word

_OVERRIDE = re.compile(r"(?P<sign>\+{0,2})(?P<key>[A-Za-z_][\w.]*)=(?P<value>.*)", re.DOTALL)
_RUN_FOLDER = "hydra.run.dir"
_UNREADABLE = object()
DECIDING = ("checkpoint", "allow_own_code", "settings")
"""Options that decide which other options exist."""
_SHOWING = frozenset({"-c", "--cfg"})
"""Flags that show all options."""
_HYDRA_COMPLETION = frozenset({"-sc", "--shell-completion"})
"""Hydra's own completion, which would complete the command's name as an option."""
_MAX_SWEPT = 1000
"""Values of one option in a sweep that are checked before the first run, at most."""


def readable(arguments: Sequence[str], options: type[CommandOptions] | None, conf: Path) -> list[str]:
    """Return the command line in the form that Hydra reads.

    Args:
        arguments: All arguments after the command's name.
        options: Class of the command's options.
        conf: Folder of the YAMLs, whose sub-folders are groups.

    Raises:
        ConfigError: If it can't be read; the message says what to type instead.
    """
    known = {option.key: option for option in options_of(options)} if options else {}
    _check_words(arguments, known)
    if options is not None:
        options = options.completed(deciding(arguments))
    arguments = _with_options_of_model(arguments, options, known)
    if options is not None:
        arguments = _with_keys_of_run(arguments, options.of_run)
    if is_sweep(arguments):
        return arguments
    for argument in arguments:
        _check_choice(argument, conf)
    texts = {**texts_of(options), _RUN_FOLDER: Option(_RUN_FOLDER, PlainPath, field())} if options else {}
    return [_quoted(argument, texts) for argument in arguments]


def deciding(arguments: Sequence[str]) -> dict[str, Any]:
    """Return the options that decide which others exist; in a sweep the first value of each."""
    told: dict[str, Any] = {}
    for found in filter(None, map(_OVERRIDE.fullmatch, arguments)):
        if found["key"] in DECIDING:
            value = _read(found["value"])
            if is_sweep(arguments) and isinstance(value, ChoiceSweep):
                value = value.list[0]
            plain = value.text if isinstance(value, QuotedString) else value
            told[found["key"]] = plain if isinstance(plain, str | bool | int | float) else found["value"]
    return told


def _with_options_of_model(
    arguments: Sequence[str], options: type[CommandOptions] | None, known: Mapping[str, Option]
) -> list[str]:
    """Mark options of the checkpoint's model, which no YAML has, as additions; for ``--cfg``, add them all."""
    all_options = [] if options is None else options_of(options)
    of_model = {option.key: option for option in all_options if option.key not in known}
    result, given = [], {found["key"] for found in map(_OVERRIDE.fullmatch, arguments) if found}
    for argument in arguments:
        found = _OVERRIDE.fullmatch(argument)
        is_new = found is not None and found["key"] in of_model and not found["sign"]
        result.append(f"+{argument}" if is_new else argument)
        if (
            found is not None and found["key"] == "checkpoint"
        ):  # next to another: argparse takes positional arguments in one row only
            result += _shown(arguments, {key: of_model[key] for key in of_model.keys() - given})
    return result


def _with_keys_of_run(arguments: Sequence[str], components: Collection[str]) -> list[str]:
    """Mark keys of a run's own components as additions for Hydra, which composes others that may lack these keys."""
    found = [_OVERRIDE.fullmatch(argument) for argument in arguments]
    own = set(components).difference(one["key"] for one in found if one is not None)
    return [
        f"++{argument}" if one is not None and not one["sign"] and one["key"].partition(".")[0] in own else argument
        for argument, one in zip(arguments, found, strict=True)
    ]


def _shown(arguments: Sequence[str], of_model: Mapping[str, Option]) -> list[str]:
    """Return overrides that let ``--cfg`` show the options of a model."""
    return [] if _SHOWING.isdisjoint(arguments) else [f"+{name}=null" for name in sorted(of_model)]


def is_sweep(arguments: Sequence[str]) -> bool:
    """Tell whether the command line asks for several runs."""
    return bool({"-m", "--multirun", "hydra.mode=MULTIRUN"} & set(arguments))


def overridden_keys(overrides: Sequence[str]) -> list[list[str]]:
    """Return the keys and groups that overrides change, each split into names: ``["sampler", "spacing"]``.

    Args:
        overrides: In Hydra's syntax.
    """
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    return [override.key_or_group.replace("/", ".").split(".") for override in parsed]


def split_sweeps(overrides: Sequence[str]) -> tuple[list[str], list[tuple[str, Any]]]:
    """Return the overrides common to all runs of a sweep, and the keys and values of the others.

    Raises:
        HydraException: If an override can't be read.
    """
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    common = [text for text, override in zip(overrides, parsed, strict=True) if not override.is_sweep_override()]
    return common, [
        (override.key_or_group, value.text if isinstance(value, QuotedString) else value)
        for override in parsed
        if override.is_sweep_override() and not override.is_hydra_override() and isinstance(override.value(), Sweep)
        for value in islice(override.sweep_iterator(transformer=Transformer.identity), _MAX_SWEPT)
    ]


def _check_words(arguments: Sequence[str], known: Mapping[str, Option]) -> None:
    """Refuse flags that Hydra lacks, and words that are not overrides."""
    flags = get_args_parser()._option_string_actions
    remaining = list(arguments)
    while remaining:
        word = remaining.pop(0)
        name, has_value, _ = word.partition("=")
        if name in _HYDRA_COMPLETION:
            raise ConfigError(f'{word}: completion is switched on by: eval "$(vdm --completion bash)"')
        if name in flags:
            takes_value = flags[name].nargs is None
            if takes_value and not has_value and remaining:
                remaining.pop(0)
        elif word.startswith("-"):
            raise ConfigError(f"{word}: options are KEY=VALUE: {_instead_of_flag(word, remaining[:1], known)}")
        elif "=" not in word and not word.startswith("~"):
            raise ConfigError(f"{word}: options are KEY=VALUE: {_instead_of_word(word, known)}")


def _check_choice(argument: str, conf: Path) -> None:
    """Refuse a choice of a group that is not a name; Hydra's message would not name the key."""
    group, has_value, raw = argument.partition("=")
    group = group.lstrip("+").partition("@")[0]
    if has_value and re.fullmatch(r"[\w/]+", group) and (conf / group).is_dir():
        value = _read(raw)
        if value is None or isinstance(value, bool | int | float):
            allowed = (path.stem for path in (conf / group).glob("*.yaml"))
            raise ConfigError(f"{argument}: no such option{did_you_mean(raw, allowed)}")


def _instead_of_flag(word: str, following: Sequence[str], known: Mapping[str, Option]) -> str:
    name, has_value, value = word.lstrip("-").partition("=")
    key = name.replace("-", "_")
    if len(key) == 1:
        key = min((option for option in sorted(known) if option.startswith(key)), key=len, default=key)
    if not has_value:
        value = next((one for one in following if "=" not in one and not one.startswith("-")), "")
    return _to_type(key, value) if re.fullmatch(r"[A-Za-z_][\w.]*", key) else "KEY=VALUE"


def _instead_of_word(word: str, known: Mapping[str, Option]) -> str:
    if word in known or not known:
        return f"{word}=..."
    needed = next((option.key for option in known.values() if Path in option.kinds or str in option.kinds), "KEY")
    return _to_type(needed, word)


def _to_type(key: str, value: str) -> str:
    return option(key, value) if value else f"{key}=..."


def _quoted(argument: str, texts: Mapping[str, Option]) -> str:
    """Quote the value of an override if it is a text that Hydra would not read as one."""
    found = _OVERRIDE.fullmatch(argument)
    option = texts.get(found["key"]) if found else None
    if found is None or option is None:
        return argument
    raw = found["value"]
    value = _read(raw)
    if isinstance(value, str | QuotedString):
        text = value.text if isinstance(value, QuotedString) else value
        if option.is_literal_text and re.search(r"(?<!\\)\$\{", text):
            return f"{found['sign']}{option.key}={hydra_quoted(escaped(text))}"
        return argument
    if not _is_meant_as_text(value, raw, option):
        return argument
    text = escaped(raw) if option.is_literal_text else raw
    return f"{found['sign']}{option.key}={hydra_quoted(text)}"


def _is_meant_as_text(value: Any, raw: str, option: Option) -> bool:
    """Tell whether a value that Hydra does not read as a text is meant as one.

    Raises:
        ConfigError: If it looks like a list that can't be read.
    """
    if value is None or isinstance(value, dict | list):
        return False
    if isinstance(value, bool | int | float):
        return type(value) not in option.kinds and not option.has(NeverANumber)
    if list in option.kinds and (raw.startswith("[") or _is_list_of_numbers(value)):
        items = [item.strip().strip("'\"") for item in raw.removeprefix("[").removesuffix("]").split(",")]
        to_type = shell_list(option.key, items) if raw.startswith("[") else shell_word(f"{option.key}=[{raw}]")
        raise ConfigError(f"{option.key}={raw}: a list has brackets, and texts in it need quotes: {to_type}")
    return True


def _is_list_of_numbers(value: Any) -> bool:
    return isinstance(value, Sweep) and all(isinstance(item, int | float) for item in getattr(value, "list", [""]))


def _read(raw: str) -> Any:
    """Return a value as Hydra parses it: a plain value, ``QuotedString``, ``Sweep``, or ``_UNREADABLE``."""
    try:
        return OverridesParser.create().parse_override(f"key={raw}")._value
    except HydraException:
        return _UNREADABLE
