"""The text of ``vdm COMMAND --help``, from the comments in ``conf/``."""

import re
import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from vdm.cli.manual.sections import HIDDEN, HIDDEN_GROUPS, OF_RUN, SECTIONS
from vdm.cli.manual.tree import Conf, Group, Tree
from vdm.cli.manual.yaml_file import Setting

_COLUMN = 36
"""Column in which meanings begin."""
_REFERENCE = re.compile(r"\$\{[^{}]+\}")
_REQUIRED = "???"
_AS_IN_RUN = "(as in RUN)"


@dataclass(frozen=True)
class Manual:
    """The manual of a command.

    Args:
        program: ``vdm`` or ``vdm-data``.
        command: Name of the command and of its YAML.
        conf: Folders of YAMLs.
        choices: The user's choices, by group.
    """

    program: str
    command: str
    conf: Conf
    choices: Mapping[str, str]

    def tree(self) -> Tree:
        """Return keys and groups under the user's choices."""
        return self.conf.tree(self.command, self.choices)

    def keys(self) -> dict[str, Setting]:
        """Return all keys that can be set, by dotted key; keys for Hydra or for other YAMLs are left out."""
        hidden = HIDDEN.get(self.command, frozenset())
        return {
            key: setting
            for key, setting in self.tree().keys().items()
            if not _is_plumbing(key, setting) and not any(f"{key}.".startswith(f"{one}.") for one in hidden)
        }

    def groups(self) -> dict[str, Group]:
        """Return the groups from which the user can choose, by key."""
        hidden = HIDDEN.get(self.command, frozenset())
        general = {group.key: group.meaning for group in self.conf.tree("train").groups}
        return {
            group.key: replace(group, meaning=group.meaning or general.get(group.key, ""))
            for group in self.tree().groups
            if group.key.split("@")[0].split("/")[0] not in HIDDEN_GROUPS
            and not any(f"{group.package}.".startswith(f"{one}.") for one in hidden)
        }

    def short(self) -> str:
        """Return the short help: the most important keys, on one or two screens."""
        lines = self._head()
        for heading, keys in self._sections().items():
            lines += ["", f"{heading}:", *self._lines(keys)]
        return "\n".join([*lines, "", *self._foot()])

    def everything(self) -> str:
        """Return all groups with their options, and all keys."""
        groups = [
            name for name, group in self.groups().items() if not self._is_in_run(group.package) or "/" not in name
        ]
        keys = [key for key in self.keys() if not self._is_in_run(key)]
        lines = self._head()
        if groups:
            lines += ["", "Groups, of which an option is chosen by GROUP=OPTION:", *self._lines(groups)]
        return "\n".join([*lines, "", "Keys:", *self._lines(keys, are_keys=True)])

    def about(self, topic: str) -> str | None:
        """Return the help of a key or group; None if there is none of that name."""
        group = self.groups().get(topic)
        keys = {key: one for key, one in self.keys().items() if f"{key}.".startswith(f"{topic.replace('/', '.')}.")}
        inner = [key for key in self.groups() if key.startswith(f"{topic}/")]
        if group is None and not keys:
            return None
        lines: list[str] = []
        if group is not None:
            lines += [*self._lines([topic]), "", f"Options of {topic}:"]
            for option in group.options:
                file = self.conf.read(f"{topic.split('@')[0]}/{option}")
                lines += _entry(option, file.summary if file else "")
            lines.append("")
        if inner:
            lines += [f"Groups in {topic}:", *self._lines(inner), ""]
        chosen = f" with {topic}={','.join(group.chosen)}" if group is not None and group.chosen else ""
        if keys:
            lines += [f"Keys{chosen}:", *self._lines(keys, are_keys=True)]
        return "\n".join(lines).rstrip()

    def _is_in_run(self, key: str) -> bool:
        """Tell whether a key belongs to a component that comes from the run, since the user has chosen no other."""
        name = key.partition(".")[0]
        return name in OF_RUN.get(self.command, ()) and name not in self.choices

    def topics(self) -> list[str]:
        """Return all names that ``about`` knows."""
        keys = self.keys()
        parents = {key[: end.start()] for key in keys for end in re.finditer(r"\.|$", key)}
        return sorted({*parents, *self.groups()})

    def _head(self) -> list[str]:
        file = self.tree().file
        usage = f"usage: {self.program} {self.command} [KEY=VALUE ...]"
        summary = textwrap.wrap(file.summary, width(), break_on_hyphens=False)
        return [usage, "", *summary, "", "Examples:", *(f"  {example}" for example in file.examples)]

    def _foot(self) -> list[str]:
        call = f"{self.program} {self.command}"
        lines = [
            f"{call} --help all      everything that can be set; --help KEY or GROUP: one of them with its options"
        ]
        if "checkpoint" in self.keys() and self.command in ("sample", "evaluate"):
            lines.append(
                f"{call} --help checkpoint=RUN      also what that run has: sampler, averages, classes, conditions"
            )
        return lines

    def _sections(self) -> dict[str, Sequence[str]]:
        """Return keys and groups by heading."""
        if self.command in SECTIONS:
            return dict(SECTIONS[self.command])
        keys, groups = self.keys(), self.groups()
        own = {name for name, one in self.tree().file.settings.items() if not name.startswith("_")}
        required = [key for key, setting in keys.items() if setting.value == _REQUIRED]
        found: dict[str, list[str]] = {"Required": required} if required else {}
        heading = "Options"
        for key in keys:
            top = self.tree().settings[key.split(".")[0]]
            if top.section:
                heading = top.section.rstrip(".")
            if key.split(".")[0] in own and key not in required:
                found.setdefault(heading, []).append(key)
        outer = [key for key, group in groups.items() if "/" not in key]
        if outer:
            found["Groups, of which an option is chosen by GROUP=OPTION"] = outer
        return dict(found)

    def _lines(self, names: Sequence[str] | Mapping[str, object], are_keys: bool = False) -> Iterator[str]:
        """Yield the entries of keys and groups; a name that is both is a group, unless ``are_keys``."""
        groups, keys = {} if are_keys else self.groups(), self.keys()
        tree = self.tree()
        for name in names:
            if name in groups:
                group = groups[name]
                choices = f"; choices: {' | '.join(group.options)}" if group.options else ""
                text = ",".join(group.chosen)
                chosen = _AS_IN_RUN if self._is_in_run(name) else f"[{text}]" if group.is_list else text or "null"
                yield from _entry(f"{name}={chosen}", group.meaning + choices)
            elif name in keys:
                parent = tree.find(name.rpartition(".")[0]) if "." in name else None
                meaning = keys[name].meaning or (parent.meaning if parent else "")
                yield from _entry(_assignment(name, keys[name].value), meaning)


def _is_plumbing(key: str, setting: Setting) -> bool:
    """Tell whether a key is for Hydra only, or only passes another key's value on."""
    if any(name.startswith("_") for name in key.split(".")) or key.startswith("hydra.") or setting.children == {}:
        return True
    return bool(_REFERENCE.fullmatch(setting.value)) and not setting.meaning


def _assignment(key: str, value: str) -> str:
    return f"{key}=..." if value == _REQUIRED else f"{key}={value}"


def _entry(name: str, meaning: str) -> list[str]:
    """Return the lines of a name and its meaning, side by side if the name is short enough."""
    lines = textwrap.wrap(meaning, width() - _COLUMN, break_on_hyphens=False, break_long_words=False)
    first = f"  {name}"
    if len(first) < _COLUMN - 1:
        head, lines = [f"{first:{_COLUMN}}{lines[0]}" if lines else first], lines[1:]
    else:
        head = [first]
    return [*head, *(" " * _COLUMN + line for line in lines)]


def width() -> int:
    """Return the width of a page in columns."""
    return min(max(shutil.get_terminal_size((120, 24)).columns, 80), 120)
