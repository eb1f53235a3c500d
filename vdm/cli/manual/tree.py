"""The keys of a command with defaults and meanings, composed of YAML files as by Hydra, in a tenth of its time.

Tests compare the result with Hydra's, for each command and each choice of ``conf/``.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from vdm.cli.manual.yaml_file import SELF, Default, Setting, YamlFile, read_yaml_file


@dataclass(frozen=True)
class Group:
    """A group of YAML files, one of which is chosen by ``KEY=OPTION``."""

    key: str
    """As on the command line: ``diffusion/schedule``."""
    package: str
    """Key below which the keys of the chosen file are placed: ``diffusion.schedule``."""
    chosen: tuple[str, ...]
    options: tuple[str, ...]
    meaning: str
    is_list: bool
    """Whether any number of options can be chosen, by ``KEY=[OPTION,OPTION]``."""


@dataclass(frozen=True)
class Tree:
    """All keys and groups of a command."""

    file: YamlFile
    """The command's own YAML."""
    groups: tuple[Group, ...]
    settings: Mapping[str, Setting]

    def keys(self) -> dict[str, Setting]:
        """Return the leaves by dotted key."""
        return dict(_leaves(self.settings, ""))

    def find(self, key: str) -> Setting | None:
        """Return the setting at a dotted key; None if there is none."""
        node: Setting | None = Setting(children=dict(self.settings))
        for name in key.split("."):
            node = node.children.get(name) if node is not None and node.children is not None else None
        return node


def _leaves(settings: Mapping[str, Setting], parent: str) -> Iterator[tuple[str, Setting]]:
    for name, setting in settings.items():
        if setting.children:
            yield from _leaves(setting.children, f"{parent}{name}.")
        else:
            yield f"{parent}{name}", setting


@dataclass(frozen=True)
class Conf:
    """Folders of YAML files; the first folder that has a file wins."""

    folders: Sequence[Path]

    def tree(self, command: str, choices: Mapping[str, str] | None = None) -> Tree:
        """Compose the keys of a command.

        Args:
            command: Name of its YAML.
            choices: Chosen options by group, as on the command line; unknown ones are ignored.
        """
        return _Composition(self, dict(choices or {})).of(command)

    def options(self, group: str) -> tuple[str, ...]:
        """Return the names of a group's options."""
        return tuple(sorted({path.stem for folder in self.folders for path in (folder / group).glob("*.yaml")}))

    def read(self, name: str) -> YamlFile | None:
        """Return a file by its name without suffix, such as ``sampler/ddim``."""
        path = next((path for folder in self.folders if (path := folder / f"{name}.yaml").is_file()), None)
        return None if path is None else read_yaml_file(path)


@dataclass
class _Composition:
    """The state of composing one command's keys."""

    conf: Conf
    choices: dict[str, str]
    overrides: dict[str, Default] = field(default_factory=dict[str, Default])
    """Overrides by the group's key. The first one found wins; later entries of lists are visited first."""
    groups: list[Group] = field(default_factory=list[Group])
    settings: dict[str, Setting] = field(default_factory=dict[str, Setting])

    def of(self, command: str) -> Tree:
        file = self.conf.read(command)
        if file is None:
            raise FileNotFoundError(f"{command}.yaml")
        for content, package in self._expanded(command, file, ""):
            _merge(_at(self.settings, package), content.settings)
        return Tree(file, tuple(self.groups[::-1]), self.settings)

    def _expanded(self, name: str, file: YamlFile, package: str) -> list[tuple[YamlFile, str]]:
        """Return a file and those in its defaults list, with their packages, in the order of merging."""
        folder = name.rpartition("/")[0]
        entries = [default for default in file.defaults if not default.is_override]
        for default in (default for default in file.defaults if default.is_override):
            self.overrides.setdefault(_Place.of(default, folder, package).key, default)
        if SELF not in entries:
            entries.append(SELF)
        found: list[tuple[YamlFile, str]] = []
        for default in reversed(entries):  # a list's later entries override the choices of earlier ones
            found[:0] = [(file, package)] if default is SELF else self._included(default, folder, package)
        return found

    def _included(self, default: Default, folder: str, package: str) -> list[tuple[YamlFile, str]]:
        place = _Place.of(default, folder, package)
        names = (place.path,)
        if default.is_group:
            chosen = self.overrides.get(place.key, default).options
            if place.key in self.choices:
                chosen = tuple(one for one in _listed(self.choices[place.key]) if one not in ("null", ""))
            options = self.conf.options(place.path)
            self.groups.append(Group(place.key, place.package, chosen, options, default.meaning, default.is_list))
            names = tuple(f"{place.path}/{one}" for one in chosen)
        found: list[tuple[YamlFile, str]] = []
        for name in reversed(names):
            file = self.conf.read(name)
            if file is not None:
                found[:0] = self._expanded(name, file, place.with_header(file, default, package))
        return found


def _listed(choice: str) -> list[str]:
    """Return the names in a choice such as ``[a,b]``, or that of a single one."""
    return [name.strip() for name in choice.removeprefix("[").removesuffix("]").split(",")]


@dataclass(frozen=True)
class _Place:
    """Path of a file or group in a defaults list, and the package for its content."""

    path: str
    package: str

    @classmethod
    def of(cls, default: Default, folder: str, package: str) -> "_Place":
        absolute = default.path.startswith("/")
        written = default.path.lstrip("/")
        path = written if absolute or not folder else f"{folder}/{written}"
        group = written if default.is_group else written.rpartition("/")[0]
        within = group.replace("/", ".") if default.package is None else default.package
        if default.is_override and absolute and default.package is None:
            package = ""  # names the group as it is called from outside
        return cls(path, _joined(package, within))

    @cached_property
    def key(self) -> str:
        """The group as on the command line."""
        return self.path if self.package == self.path.replace("/", ".") else f"{self.path}@{self.package}"

    def with_header(self, file: YamlFile, default: Default, parent: str) -> str:
        """Return the package of the file's content, which its header may set."""
        if file.package is None or default.package is not None:
            return self.package
        return _joined("" if file.package.startswith("_global_") else parent, file.package)


def _joined(parent: str, name: str) -> str:
    if name.startswith("_global_"):
        parent, name = "", name.removeprefix("_global_").lstrip(".")
    return ".".join(filter(None, (parent, name)))


def _at(settings: dict[str, Setting], package: str) -> dict[str, Setting]:
    for name in filter(None, package.split(".")):
        setting = settings.setdefault(name, Setting())
        if setting.children is None:
            setting.value, setting.children = "", {}
        settings = setting.children
    return settings


def _merge(target: dict[str, Setting], source: Mapping[str, Setting]) -> None:
    for name, new in source.items():
        old = target.get(name, Setting())
        merged = replace(new, meaning=new.meaning or old.meaning, section=new.section or old.section)
        if new.value == "???" and name in target:  # asks for a value where there is none
            merged.value, merged.children = old.value, old.children
        if new.children is not None:
            merged.children = dict(old.children or {})
            _merge(merged.children, new.children)
        target[name] = merged
