"""Options of a command: a frozen dataclass declares types and ranges, against which a user's values are checked."""

import dataclasses
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, TypeVar, get_type_hints

from pydantic import AfterValidator, ConfigDict, Strict, TypeAdapter, ValidationError

from vdm.config.errors import ConfigError, did_you_mean
from vdm.config.option_types import choices_of, dataclass_in_mapping, kinds_of, metadata_of, nested_dataclass
from vdm.config.quoting import shell_list, shell_override
from vdm.config.words import Described, described

Options = TypeVar("Options")

MAY_BE_ABSENT = {"may_be_absent": True}
"""Metadata of a field whose key may be missing, as it comes with a group or is added later."""
_MAX_NAME_BYTES, _MAX_PATH_BYTES = 255, 4095
"""Limits of Linux for a name and for a path."""
_TEXT_LIKE = (str, bool, int, float)
"""What YAML may read in the place of a text."""
_MAX_SHOWN = 100
"""Characters of a wrong value that are shown, at most."""
_LOOKS_PLAIN = re.compile(r"[-+.\d]*\d[\d_.eE+-]*|true|false|null|nan|inf", re.IGNORECASE)
"""A text that reads as a number, true, false or null."""


class NeverANumber:
    """Marks a text for which a number, true or false without quotes is refused, as it may belong to another option."""


def _usable(path: Path) -> Path:
    encoded = os.fsencode(path)
    if b"\0" in encoded:
        raise ValueError("has a character of code 0, which no path has")
    if len(encoded) > _MAX_PATH_BYTES or any(len(os.fsencode(part)) > _MAX_NAME_BYTES for part in path.parts):
        raise ValueError("is longer than paths can be")
    return path


def _not_empty(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be empty")
    return text


def _plain_name(name: str) -> str:
    if name in ("", ".", "..") or "/" in name or not name.isprintable() or name != name.strip():
        raise ValueError("must be the name of a folder, without '/', blanks at its ends and control characters")
    return str(_usable(Path(name)))


def _path(text: str) -> Path:
    return _usable(Path(_not_empty(text)))


PlainPath = Annotated[Path, Strict(False), AfterValidator(_usable)]
"""A path; a number on the command line is taken as a path."""
Name = Annotated[str, AfterValidator(_not_empty)]
"""A text that is not empty; a number on the command line is taken as a text."""
FolderName = Annotated[str, AfterValidator(_plain_name)]
"""The name of one folder."""
Caption = Annotated[str, NeverANumber()]
"""A caption. One that reads as a number needs quotes, as it may be meant for another option."""


@dataclasses.dataclass(frozen=True)
class Built:
    """Marks components, or mappings of them, which ``vdm.config.check`` checks."""

    paths: tuple[str, ...] = ()
    """Keys of the component that are paths."""


Component = Annotated[Mapping[str, Any], Built(), Described("a mapping that describes a component")]
"""Configuration of a component; see ``vdm.config.build``."""
Components = Annotated[Mapping[str, Any], Built(), Described("a mapping that describes components by their names")]
"""Configurations of several components by name; None leaves one out."""


@dataclasses.dataclass(frozen=True)
class Option:
    """One option of a command."""

    key: str
    annotation: Any
    field: "dataclasses.Field[Any]"

    @property
    def kinds(self) -> frozenset[type]:
        """Plain types of its values: ``Path``, ``str``, ``list`` ..."""
        return kinds_of(self.annotation)

    def has(self, marker: type) -> bool:
        """Tell whether the annotation has a marker of this class, at any depth."""
        return any(isinstance(found, marker) for found in metadata_of(self.annotation))

    @property
    def is_component(self) -> bool:
        """Whether the option is the configuration of a component."""
        return self.has(Built)

    @property
    def is_literal_text(self) -> bool:
        """Whether ``${`` is plain text, as in captions; in paths it refers to other options."""
        return self.has(NeverANumber)


def options_of(cls: type, parent: str = "") -> Iterator[Option]:
    """Yield all options of a class, those of nested classes by their dotted keys."""
    for option in _fields(cls):
        key = f"{parent}{option.key}"
        nested = nested_dataclass(option.annotation)
        if nested is None:
            yield dataclasses.replace(option, key=key)
        else:
            yield from options_of(nested, f"{key}.")


def texts_of(cls: type) -> dict[str, Option]:
    """Return the options that are texts or paths by key, with the declared paths of components."""
    found = {option.key: option for option in options_of(cls) if {str, Path} & option.kinds}
    for option in options_of(cls):
        for marker in metadata_of(option.annotation):
            for name in marker.paths if isinstance(marker, Built) else ():
                key = f"{option.key}.{name}"
                found[key] = Option(key, PlainPath | Mapping[str, Any] | None, option.field)
    return found


def parse(cls: type[Options], values: Mapping[str, Any]) -> Options:
    """Make the dataclass from plain values.

    Raises:
        ConfigError: In one line that names the first wrong key, its value and what is allowed.
    """
    return cls(**_arguments(cls, values, "", is_complete=True))


def check_given(cls: type, values: Mapping[str, Any]) -> None:
    """Check values of which some are still ``???`` or interpolations; these pass.

    Raises:
        ConfigError: As ``parse`` does; also if an option is missing.
    """
    for option in _fields(cls):
        if option.key not in values and not option.field.metadata.get("may_be_absent"):
            raise ConfigError(f"{option.key}: is deleted, or an empty choice, but the command needs it")
    _arguments(cls, values, "", is_complete=False)


def check_some(cls: type, values: Mapping[str, Any]) -> None:
    """Check values of some of a class's options, as ``check_given`` does of all.

    Raises:
        ConfigError: As ``parse`` does.
    """
    _arguments(cls, values, "", is_complete=False)


def _arguments(cls: type, values: Mapping[str, Any], parent: str, is_complete: bool) -> dict[str, Any]:
    """Return checked values by the names of the fields."""
    options = _fields(cls)
    allowed = [option.key for option in options]
    for key in values:
        if key not in allowed:
            raise ConfigError(f"{parent}{key}: unknown key{did_you_mean(str(key), allowed, parent.rstrip('.'))}")
    arguments: dict[str, Any] = {}
    for option in options:
        key = f"{parent}{option.key}"
        if option.key in values:
            arguments[option.field.name] = _checked(values[option.key], option.annotation, key, is_complete)
        elif is_complete and option.field.default is option.field.default_factory is dataclasses.MISSING:
            raise ConfigError(f"{key}: no value given; add {key}=...")
    return arguments


@cache
def _fields(cls: type) -> tuple[Option, ...]:
    annotations = get_type_hints(cls, include_extras=True)
    return tuple(
        Option(field.metadata.get("key", field.name), annotations[field.name], field)
        for field in dataclasses.fields(cls)
        if field.init
    )


def _checked(value: Any, annotation: Any, key: str, is_complete: bool) -> Any:
    if not is_complete and _is_pending(value):
        return value
    nested, inner = nested_dataclass(annotation), dataclass_in_mapping(annotation)
    if isinstance(value, Mapping) and nested is not None:
        arguments = _arguments(nested, value, f"{key}.", is_complete)
        return nested(**arguments) if is_complete else arguments
    if isinstance(value, Mapping) and inner is not None:
        return {name: _checked(item, inner, f"{key}.{name}", is_complete) for name, item in value.items()}
    if nested is not None and not (value is None and NoneType in kinds_of(annotation)):
        raise ConfigError(f"{key}={_shown(value)}: must be a mapping with the keys {_names(nested)}")
    return _of_leaf(value, annotation, key)


def _names(cls: type) -> str:
    return ", ".join(option.key for option in _fields(cls))


def _of_leaf(value: Any, annotation: Any, key: str) -> Any:
    kinds = kinds_of(annotation)
    if isinstance(value, str) and not value.strip() and Path in kinds:
        raise ConfigError(f"{key}=: must not be empty")
    try:
        return _adapter(annotation).validate_python(value)
    except ValidationError as error:
        own = [one["msg"].removeprefix("Value error, ") for one in error.errors() if one["type"] == "value_error"]
    if own:
        raise ConfigError(f"{key}={_shown(value)}: {own[0]}")
    choices = choices_of(annotation)
    if choices and isinstance(value, str):
        raise ConfigError(f"{key}={value}: no such choice{did_you_mean(value, choices)}")
    shown = repr(value) if isinstance(value, str) and _LOOKS_PLAIN.fullmatch(value) else _shown(value)
    raise ConfigError(f"{key}={shown}: must be {described(annotation, value)}{_advice(value, kinds, key)}")


@cache
def _adapter(annotation: Any) -> TypeAdapter[Any]:
    return TypeAdapter(annotation, config=ConfigDict(strict=True, allow_inf_nan=False, arbitrary_types_allowed=True))


def _advice(value: object, kinds: Iterable[type], key: str) -> str:
    """Return advice for a text that was read as something else."""
    if not {str, Path} & set(kinds) or value is None:
        return ""
    if isinstance(value, bool | int | float):
        return f"; a text that reads as something else needs quotes: {shell_override(key, _shown(value))}"
    if isinstance(value, list) and value and list in kinds and all(isinstance(item, _TEXT_LIKE) for item in value):
        return f"; texts that read as something else need quotes: {shell_list(key, [*map(_shown, value)])}"
    return ""


def _shown(value: object) -> str:
    """Return a value as in YAML, cut off if it is long."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = str(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def _is_pending(value: object) -> bool:
    """Tell whether a value is missing or has an interpolation, which is resolved later."""
    if isinstance(value, list):
        return any(map(_is_pending, value))
    return isinstance(value, str) and (value == "???" or "${" in value)
