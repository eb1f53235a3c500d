"""A YAML file of ``conf/`` with its comments, which explain its keys.

The meaning of a key is the comment after it, which may continue in the same column of further lines, or else the
comment above it. If a key has both, the one above is the heading of a section. The comment at the top is the summary of
the file; indented lines in it are examples.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import yaml

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_COMMENT_LINE = re.compile(r" *#")
_PACKAGE = re.compile(r"# *@package +(\S+)")
_EXAMPLE = re.compile(r"#   +(\S.*)")


@dataclass
class Setting:
    """A key of a YAML file: its value, or the keys below it."""

    meaning: str = ""
    value: str = ""
    """The value as in the YAML; empty for a key with others below it."""
    children: "dict[str, Setting] | None" = None
    section: str = ""
    """Heading of the section that begins with this key."""


@dataclass(frozen=True)
class Default:
    """An entry of a file's defaults list: a file to include, or a choice from a group of files."""

    path: str
    """Path of the group or file, relative to the folder of the file with the list unless it begins with ``/``."""
    package: str | None
    """Key below which the content is placed, relative to that of the file with the list."""
    is_group: bool
    is_override: bool = False
    """Whether the entry replaces the choice of another list."""
    options: tuple[str, ...] = ()
    """Names of the chosen files of a group; empty for ``null``."""
    meaning: str = ""
    is_list: bool = False
    """Whether any number of files can be chosen of a group."""


SELF = Default("_self_", None, is_group=False)
"""The place of the file's own content in the list."""


@dataclass(frozen=True)
class YamlFile:
    """The content of a file."""

    summary: str = ""
    examples: tuple[str, ...] = ()
    package: str | None = None
    defaults: tuple[Default, ...] = ()
    settings: dict[str, Setting] = field(default_factory=dict[str, Setting])


@cache
def read_yaml_file(path: Path) -> YamlFile:
    """Read a file.

    Raises:
        OSError: If it can't be read.
        ValueError: If it is not YAML, or not in the form that Hydra takes.
    """
    text = path.read_text(encoding="utf-8")
    comments = _Comments(text.splitlines())
    try:
        root = yaml.compose(text, Loader=_LOADER)
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: {error}") from error
    header = comments.header()
    package = next((found[1] for found in map(_PACKAGE.match, header) if found), None)
    examples = tuple(found[1] for found in map(_EXAMPLE.fullmatch, header) if found)
    told = (line for line in header if not _PACKAGE.match(line) and not _EXAMPLE.fullmatch(line))
    summary = _joined(told)
    if root is None:
        return YamlFile(summary, examples, package)
    if not isinstance(root, yaml.MappingNode):
        raise ValueError(f"{path}: must be a mapping")
    defaults: tuple[Default, ...] = ()
    for key, value in root.value:
        if key.value == "defaults" and isinstance(value, yaml.SequenceNode):
            defaults = tuple(_default(item, comments) for item in value.value)
    settings = {key: one for key, one in _settings(root, comments).items() if key != "defaults"}
    return YamlFile(summary, examples, package, defaults, settings)


class _Comments:
    """The comments among the lines of a file."""

    def __init__(self, lines: Sequence[str]) -> None:
        self.lines = lines
        self._header_end = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))

    def header(self) -> Sequence[str]:
        return self.lines[: self._header_end]

    def after(self, line: int, column: int) -> str:
        """Return the comment after a position, with its further lines in the same column."""
        found = re.match(r"\s*:?\s*(?=#)", self.lines[line][column:]) if line < len(self.lines) else None
        if found is None:
            return ""
        column += found.end()
        further = self._block(range(line + 1, len(self.lines)), column)
        return _joined([self.lines[line][column:], *further])

    def above(self, line: int, column: int) -> tuple[str, bool]:
        """Return the comment above a line, and whether there is a blank line before it."""
        block = self._block(range(line - 1, self._header_end - 1, -1), column)[::-1]
        before = line - len(block) - 1
        return _joined(block), before >= 0 and not self.lines[before].strip()

    def _block(self, numbers: Sequence[int], column: int) -> list[str]:
        """Return the comments in ``column``, on lines with nothing else, up to the first other line."""
        found: list[str] = []
        for number in numbers:
            line = self.lines[number]
            if not _COMMENT_LINE.match(line) or line.index("#") != column:
                break
            found.append(line)
        return found


def _joined(lines: Iterator[str] | Sequence[str]) -> str:
    return " ".join(filter(None, (line.strip().lstrip("#").strip() for line in lines)))


def _settings(node: yaml.MappingNode, comments: _Comments) -> dict[str, Setting]:
    return {key.value: _setting(key, value, comments) for key, value in node.value}


def _setting(key: yaml.ScalarNode, value: yaml.Node, comments: _Comments) -> Setting:
    is_block = isinstance(value, yaml.CollectionNode) and not value.flow_style
    end = key.end_mark if is_block or value.start_mark.line > key.start_mark.line else value.end_mark
    meaning = comments.after(end.line, end.column)
    above, is_apart = comments.above(key.start_mark.line, key.start_mark.column)
    section = above if meaning and is_apart else ""
    if isinstance(value, yaml.MappingNode) and is_block:
        return Setting(meaning or above, children=_settings(value, comments), section=section)
    return Setting(meaning or above, _text(value, comments.lines), section=section)


def _text(value: yaml.Node, lines: Sequence[str]) -> str:
    """Return a value as it is written, in one line."""
    start, end = value.start_mark, value.end_mark
    if start.line == end.line:
        return lines[start.line][start.column : end.column] or "null" if start.line < len(lines) else "null"
    if isinstance(value, yaml.CollectionNode):
        value.flow_style = True
    elif isinstance(value, yaml.ScalarNode):
        value.style = '"'
    return yaml.serialize(value, width=10**6).strip().removesuffix("\n...")


def _default(item: yaml.Node, comments: _Comments) -> Default:
    if isinstance(item, yaml.ScalarNode):
        path, _, package = item.value.partition("@")
        return SELF if path == "_self_" else Default(path, package or None, is_group=False)
    if not isinstance(item, yaml.MappingNode) or len(item.value) != 1:
        raise ValueError(f"line {item.start_mark.line + 1}: must be the name of a file, or GROUP: OPTION")
    ((key, value),) = item.value
    words = key.value.split()
    path, _, package = words[-1].partition("@")
    chosen = [one.value for one in value.value] if isinstance(value, yaml.SequenceNode) else [value.value]
    options = tuple(one for one in chosen if one not in ("null", "~", ""))
    meaning = comments.after(value.end_mark.line, value.end_mark.column)
    is_list = isinstance(value, yaml.SequenceNode)
    return Default(path, package or None, True, "override" in words[:-1], options, meaning, is_list)
