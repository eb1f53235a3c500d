"""The command line before Hydra reads it: texts get the quotes of Hydra's grammar, and foreign habits an answer.

Where an option is a text or a path (its annotation says so), what is typed after ``KEY=`` is that text, whatever is in
it. Hydra's own syntax holds for all other options, and for all of them in a sweep (``-m``).
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
"""Options on which it depends which others there are."""
_SHOWING = frozenset({"-c", "--cfg"})
"""Flags that ask for all options."""
_HYDRA_COMPLETION = frozenset({"-sc", "--shell-completion"})
"""Hydra's own, which takes a command's name for an option."""
_MAX_SWEPT = 1000
"""Values of one option in a sweep that are looked at before the first run."""


def readable(arguments: Sequence[str], options: type[CommandOptions] | None, conf: Path) -> list[str]:
    """Return the command line as Hydra is to read it.

    Args:
        arguments: What comes after the command's name.
        options: The class of the command's options.
        conf: Folder of the YAMLs, whose sub-folders are groups of options.

    Raises:
        ConfigError: If it can't be read, with what to type instead.
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
    """Return the options on which it depends which others there are; in a sweep the first value of each."""
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
    """Mark options that no YAML has, but the checkpoint's model, as such for Hydra; where all are shown, add them."""
    all_options = [] if options is None else options_of(options)
    of_model = {option.key: option for option in all_options if option.key not in known}
    result, given = [], {found["key"] for found in map(_OVERRIDE.fullmatch, arguments) if found}
    for argument in arguments:
        found = _OVERRIDE.fullmatch(argument)
        is_new = found is not None and found["key"] in of_model and not found["sign"]
        result.append(f"+{argument}" if is_new else argument)
        if found is not None and found["key"] == "checkpoint":  # beside another: argparse takes them in one row only
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
    """Return what lets ``--cfg`` show options of a model that are not given."""
    return [] if _SHOWING.isdisjoint(arguments) else [f"+{name}=null" for name in sorted(of_model)]


def is_sweep(arguments: Sequence[str]) -> bool:
    """Tell whether the user asks for several runs."""
    return bool({"-m", "--multirun", "hydra.mode=MULTIRUN"} & set(arguments))


def split_sweeps(overrides: Sequence[str]) -> tuple[list[str], list[tuple[str, Any]]]:
    """Return those overrides that are the same in all runs of a sweep, and the keys and values of the others.

    Raises:
        HydraException: If one can't be read.
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
    """Refuse flags that are not Hydra's, and words that are no overrides."""
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
    """Refuse a choice of a group that is no name: what Hydra says of it names no key."""
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
        key = next((option for option in sorted(known) if option.startswith(key)), key)
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
    """Return an override with quotes around its value where it is a text that Hydra would not read as one."""
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
    """Tell whether what Hydra does not read as a text is one.

    Raises:
        ConfigError: If it looks like a list, but can't be one.
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
    """Return what Hydra makes of a value: a plain one, a ``QuotedString``, a ``Sweep``, or that it can't be read."""
    try:
        return OverridesParser.create().parse_override(f"key={raw}")._value
    except HydraException:
        return _UNREADABLE
