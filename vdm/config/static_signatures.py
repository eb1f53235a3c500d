"""Keyword parameters of this project's classes and functions, read from their source.

Reading runs no code of the module, so a mistyped key is found before torch and Lightning are imported. An annotation
that names a class of this project accepts only a mapping. One that names anything else that is slow to import is left
out, and checked when the component is built.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic_core import CoreSchema, core_schema

from vdm.config.annotations import component
from vdm.config.signatures import Signature

PROJECT = ("vdm", "data_pipelines")
"""Packages whose source is read."""
_LIGHT = frozenset(
    {"annotated_types", "pydantic", "vdm.ranges", "vdm.training.trainer_options", "vdm.cli.slurm_options"}
)
"""Modules that annotations may use, as they are quick to import; those of the standard library are too."""
_STAND_INS = {
    "lightning.Trainer": "vdm.training.trainer_options.TrainerOptions",
    "lightning.pytorch.Trainer": "vdm.training.trainer_options.TrainerOptions",
    "hydra_plugins.vdm.SlurmLauncher": "vdm.cli.slurm_launcher.SlurmLauncher",
}
"""Classes whose source is read in place of other targets, which belong to other projects or are made at run time."""
_WITHOUT_ARGUMENTS = frozenset({"ABC", "Protocol", "Generic", "object"})
"""Base classes that add no parameters to a constructor."""


@cache
def read_signature(path: str) -> Signature | None:
    """Read the signature of a dotted path; None if its source is not this project's, or too unusual to be read.

    Raises:
        LookupError: If the path leads into this project and does not exist there. Its arguments are the first name
            that is missing, and the names that exist in its place.
    """
    with suppress(_Unreadable):
        module, definition = _find(_STAND_INS.get(path, path))
        if isinstance(definition, ast.ClassDef):
            return _of_class(module, definition)
        if isinstance(definition, ast.FunctionDef) and not definition.decorator_list:
            return _of_function(module, definition.args)
    return None


@cache
def read_declared(path: str, attribute: str) -> Signature | None:
    """Read the signature of the class that annotates a class's attribute, as in ``options: MicroConditioning``.

    Args:
        path: Dotted path of the class that declares it.
        attribute: Name of the attribute.

    Returns:
        A signature without parameters if the class, or a base of it, declares ``None`` or nothing. None if its source
        is not this project's, or too unusual to be read.
    """
    with suppress(_Unreadable, LookupError):
        module, definition = _find(path)
        if isinstance(definition, ast.ClassDef):
            return _of_attribute(module, definition, attribute)
    return None


class _Unreadable(Exception):  # noqa: N818 - not an error: Python is asked instead
    """The source is not this project's, or not simple enough."""


class _Module:
    """A module's source and its top-level definitions; as the locals of ``eval``, their values."""

    def __init__(self, name: str, file: Path) -> None:
        self.name, self.file = name, file
        self.definitions: dict[str, ast.stmt] = {}
        for statement in ast.parse(file.read_text(encoding="utf-8")).body:
            for defined in _names_of(statement):
                self.definitions[defined] = statement
        self._values: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._values:
            self._values[name] = self._value(name, self.definitions[name])
        return self._values[name]

    def _value(self, name: str, statement: ast.stmt) -> Any:
        if self.name in _LIGHT:
            return getattr(import_module(self.name), name)
        if isinstance(statement, ast.ClassDef):
            return _stand_in(self.name, name)
        if isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None:
            return self.evaluate(statement.value)
        if isinstance(statement, ast.Import):
            alias = next(alias for alias in statement.names if _bound(alias) == name)
            return _light(alias.name if alias.asname else name)
        if isinstance(statement, ast.ImportFrom):
            source, imported = _imported(statement, name)
            own = _module(source)
            return own[imported] if own is not None else getattr(_light(source), imported)
        raise _Unreadable

    def evaluate(self, expression: ast.expr) -> Any:
        """Evaluate an annotation, or an alias of one."""
        if isinstance(expression, ast.Constant) and isinstance(expression.value, str):
            expression = ast.parse(expression.value, mode="eval").body
        names: Any = self
        return eval(compile(ast.Expression(expression), str(self.file), "eval"), {}, names)


@cache
def _module(name: str) -> _Module | None:
    """Return a module of this project; None if there is none of that name."""
    root, *rest = name.split(".")
    spec = find_spec(root) if root in PROJECT else None
    if spec is None or not spec.submodule_search_locations:
        return None
    place = Path(spec.submodule_search_locations[0]).joinpath(*rest)
    files = (place / "__init__.py", place.with_suffix(".py"))
    with suppress(OSError):  # the name is too long for a file
        return next((_Module(name, file) for file in files if file.is_file()), None)
    return None


def _find(path: str) -> tuple[_Module, ast.stmt]:
    """Return the module and the statement that define a dotted path, following imports."""
    parts = path.split(".")
    if not all(
        part.isidentifier() for part in parts
    ):  # the path may come from a stranger, and must not lead to other files
        raise _Unreadable
    lengths = (length for length in range(len(parts) - 1, 0, -1) if _module(".".join(parts[:length])) is not None)
    length = next(lengths, 0)
    module = _module(".".join(parts[:length])) if length else None
    if module is None:
        raise _Unreadable
    name, *attributes = parts[length:]
    if name not in module.definitions:
        beside = [file.stem for file in module.file.parent.iterdir()] if module.file.stem == "__init__" else []
        if name not in beside:
            raise LookupError(name, sorted({*module.definitions, *beside}))
    if attributes or name not in module.definitions:
        raise _Unreadable
    statement = module.definitions[name]
    if isinstance(statement, ast.ImportFrom):
        return _find(".".join(_imported(statement, name)))
    return module, statement


def _names_of(statement: ast.stmt) -> Iterator[str]:
    if isinstance(statement, ast.ClassDef | ast.FunctionDef):
        yield statement.name
    elif isinstance(statement, ast.Import | ast.ImportFrom):
        yield from map(_bound, statement.names)
    elif isinstance(statement, ast.Assign | ast.AnnAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        yield from (target.id for target in targets if isinstance(target, ast.Name))


def _bound(alias: ast.alias) -> str:
    """Return the name that an import binds."""
    return alias.asname or alias.name.partition(".")[0]


def _imported(statement: ast.ImportFrom, name: str) -> tuple[str, str]:
    if statement.level or statement.module is None:
        raise _Unreadable
    return statement.module, next(alias.name for alias in statement.names if _bound(alias) == name)


def _light(name: str) -> Any:
    if name not in _LIGHT and name.partition(".")[0] not in sys.stdlib_module_names:
        raise _Unreadable
    return import_module(name)


@cache
def _stand_in(module: str, name: str) -> type:
    """Return a stand-in for a class of this project in annotations: it accepts any mapping."""

    def refuse_plain(value: object) -> object:
        if not isinstance(value, Mapping):
            raise ValueError(f"must {component(name)}")
        return value

    def schema(*_: object) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(refuse_plain)

    return type(name, (), {"__module__": module, "__get_pydantic_core_schema__": staticmethod(schema)})


def _of_function(module: _Module, arguments: ast.arguments, is_method: bool = False) -> Signature:
    positional = [*arguments.posonlyargs, *arguments.args]
    optional = {argument.arg for argument in positional[len(positional) - len(arguments.defaults) :]}
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        optional |= {argument.arg} if default is not None else set()
    first = 1 if is_method and not arguments.posonlyargs else 0  # after self
    taken = [*arguments.args[first:], *arguments.kwonlyargs]
    annotations = {a.arg: a.annotation for a in taken if a.annotation is not None}
    return Signature(
        {a.arg: a.arg not in optional for a in taken}, _evaluated(module, annotations), arguments.kwarg is not None
    )


def _of_class(module: _Module, definition: ast.ClassDef) -> Signature:
    """Return the signature of a constructor: written out, generated by ``dataclass``, or inherited."""
    for statement in definition.body:
        if isinstance(statement, ast.FunctionDef) and statement.name in ("__init__", "__new__"):
            return _of_function(module, statement.args, is_method=True)
    bases = [base for base in map(ast.unparse, definition.bases) if base.split("[")[0] not in _WITHOUT_ARGUMENTS]
    if _is_dataclass(definition):
        return _of_dataclass(module, definition, bases)
    return _of_class(*_class_named(module, bases[0])) if bases else Signature({}, {})


def _of_attribute(module: _Module, definition: ast.ClassDef, attribute: str) -> Signature:
    for statement in definition.body:
        if isinstance(statement, ast.AnnAssign) and ast.unparse(statement.target) == attribute:
            declared = ast.unparse(statement.annotation)
            return Signature({}, {}) if declared == "None" else _of_class(*_class_named(module, declared))
    for base in map(ast.unparse, definition.bases):
        with suppress(_Unreadable):
            return _of_attribute(*_class_named(module, base), attribute)
    return Signature({}, {})


def _class_named(module: _Module, name: str) -> tuple[_Module, ast.ClassDef]:
    """Return the definition of the class that a name refers to in a module."""
    statement = module.definitions.get(name)
    if isinstance(statement, ast.ClassDef):
        return module, statement
    if not isinstance(statement, ast.ImportFrom):
        raise _Unreadable
    owner, definition = _find(".".join(_imported(statement, name)))
    if not isinstance(definition, ast.ClassDef):
        raise _Unreadable
    return owner, definition


def _is_dataclass(definition: ast.ClassDef) -> bool:
    return any(ast.unparse(decorator).startswith("dataclass") for decorator in definition.decorator_list)


def _of_dataclass(module: _Module, definition: ast.ClassDef, bases: list[str]) -> Signature:
    inherited = [_of_class(*_class_named(module, base)) for base in reversed(bases)]
    named = {name: needed for base in inherited for name, needed in base.named.items()}
    annotations = {name: value for base in inherited for name, value in base.annotations.items()}
    own: dict[str, ast.expr] = {}
    for field in definition.body:
        if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
            continue
        if ast.unparse(field.annotation).startswith("ClassVar") or not _is_taken(field.value):
            continue
        own[field.target.id] = field.annotation
        named[field.target.id] = not _has_default(field.value)
        annotations.pop(field.target.id, None)
    return Signature(named, {**annotations, **_evaluated(module, own)})


def _options(value: ast.expr | None) -> dict[str | None, str] | None:
    """Return the arguments of ``dataclasses.field``; None if the value is not a call of it."""
    if not isinstance(value, ast.Call) or ast.unparse(value.func) != "field":
        return None
    return {keyword.arg: ast.unparse(keyword.value) for keyword in value.keywords}


def _is_taken(value: ast.expr | None) -> bool:
    return (_options(value) or {}).get("init") != "False"


def _has_default(value: ast.expr | None) -> bool:
    options = _options(value)
    return value is not None if options is None else not options.keys().isdisjoint(("default", "default_factory"))


def _evaluated(module: _Module, annotations: Mapping[str, ast.expr]) -> dict[str, Any]:
    evaluated: dict[str, Any] = {}
    for name, annotation in annotations.items():
        with suppress(Exception):  # as for imported classes: what can't be evaluated is not checked
            evaluated[name] = module.evaluate(annotation)
    return evaluated
