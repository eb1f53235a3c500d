"""The settings that ``vdm sample`` records beside its videos and in them, read as what they are: a stranger's file."""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Interval, Len

from vdm.config import ConfigError
from vdm.config.foreign import check_foreign
from vdm.outside import parse_object, read_text, typed

FORMAT_KEY, FORMAT = "settings_format", 1
NEVER_RECORDED = frozenset(
    {"output", "overwrite", "device", "allow_own_code", "settings", "prompts_file", "model", "text_encoder"}
)
"""Options that say where to write, on which machine and with whose code; and those that others stand for."""
COMPONENTS = ("sampler", "guidance")
ALLOWED_MODULES = ("vdm.diffusion",)
"""Where these may come from, unless the user allows other code."""
MAX_BYTES = 1 << 27
"""Of a file with settings, in which there may be as many prompts as in a file of them."""
ELSEWHERE = "settings_in"
"""Key of what an mp4 says in the place of settings that are too long for it: the name of the file that has them."""

_SPELLED = {".inf": math.inf, "-.inf": -math.inf}
"""Numbers that JSON lacks, as YAML spells them; in components, as bounds of intervals are infinite."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Identity:
    """By what a file or checkpoint is told from another one at the same place."""

    checksum: str
    step: int | None = None
    """Optimizer steps after which a checkpoint was saved."""


@dataclass(frozen=True)
class Made:
    """What a call made."""

    first: Annotated[int, Interval(ge=0)] = 0
    """Number of its first video."""
    videos: Annotated[tuple[str, ...], Len(0, 1_000_000)] = ()
    """Names of its videos, in order."""


@dataclass(frozen=True)
class Settings:
    """What a call of ``vdm sample`` was told, and what it read and made."""

    options: dict[str, Any]
    """All options that decide the videos, by their keys, with their values in effect."""
    read: dict[str, Identity] = field(default_factory=dict[str, Identity])
    """What was read, by the key of the option that names it."""
    made: Made = field(default_factory=Made)

    @classmethod
    def read_file(cls, path: Path, allow_own_code: bool = False) -> "Settings":
        """Read ``settings.json``, or what an mp4 of ``vdm sample`` says about itself.

        Whether the options' values are allowed is not checked, but for components: they are of this project.

        Args:
            path: The file.
            allow_own_code: Let sampler and guidance be classes outside of this project.

        Raises:
            ConfigError: In one line, if there is no such file, it holds something else, a newer version wrote it, or it
                has an option that settings may not have.
        """
        source = f"settings={path}"
        try:
            settings = cls.parse(_text(path), source)
        except ValueError as error:
            raise ConfigError(str(error) if str(error).startswith(source) else f"settings={error}") from None
        for key in settings.options:
            if key in NEVER_RECORDED:
                raise ConfigError(f"{source}: {key}: settings don't decide that; say it on the command line")
        if not allow_own_code:
            for key in COMPONENTS:
                node = settings.options.get(key, {})
                if not isinstance(node, Mapping):
                    raise ConfigError(f"{source}: {key}={node!r}: must be a mapping that describes a component")
                try:
                    check_foreign(node, key, ALLOWED_MODULES)
                except ConfigError as error:
                    raise ConfigError(f"{source}: {error}") from None
        return settings

    @classmethod
    def parse(cls, text: str, source: object) -> "Settings":
        """Return what a text of bounded length says, as plain values.

        Raises:
            ValueError: In one line that begins with ``source``.
        """
        content = parse_object(text, source)
        written = content.get(FORMAT_KEY)
        if not isinstance(written, int) or isinstance(written, bool):
            raise ValueError(f"{source}: no settings of vdm sample: {FORMAT_KEY} is missing")
        if written != FORMAT:
            raise ValueError(
                f"{source}: {FORMAT_KEY}={written}: written by another version of vdm; this one reads {FORMAT}"
            )
        if ELSEWHERE in content:
            raise ValueError(f"{source}: its settings were too long for it; give those in the json file beside it")
        found = typed(cls, content, source)
        return replace(found, options={**found.options, **_changed(_components(found.options), _SPELLED)})

    def warn_of_others(self, path: Path, options: Mapping[str, Any], read: Mapping[str, Identity]) -> None:
        """Say where something else lies at a path than when these settings were recorded.

        Args:
            path: The file with these settings.
            options: The options of the present call.
            read: What it reads.
        """
        for key, identity in self.read.items():
            is_same_place = self.options.get(key) == options.get(key)
            if is_same_place and key in read and read[key].checksum != identity.checksum:
                _log.warning(
                    "%s=%s is another than when %s was recorded: the videos will differ", key, options[key], path
                )


def as_json(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options as JSON has them: numbers that it lacks are spelled."""
    return {**options, **_changed(_components(options), {number: text for text, number in _SPELLED.items()})}


def _components(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: options[key] for key in COMPONENTS if key in options}


def _changed(node: Any, changes: Mapping[Any, Any]) -> Any:
    """Return plain values with some texts or numbers in them exchanged."""
    if isinstance(node, Mapping):
        return {name: _changed(value, changes) for name, value in node.items()}
    if isinstance(node, list):
        return [_changed(value, changes) for value in node]
    return changes.get(node, node) if isinstance(node, str | float) else node


def _text(path: Path) -> str:
    return comment_of(path) if path.suffix.lower() == ".mp4" else read_text(path, MAX_BYTES)


def comment_of(path: Path) -> str:
    """Return what an mp4 says about itself; empty if nothing.

    Raises:
        ValueError: If it can't be read.
    """
    from av.error import FFmpegError

    from vdm.data.containers import open_video
    from vdm.data.mp4_tables import ImplausibleHeaderError

    try:
        with open_video(path, format="mp4") as container:
            return container.metadata.get("comment", "")
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except ImplausibleHeaderError as error:
        raise ValueError(f"{path}: can't be used: {error}") from None
    except (FFmpegError, OSError) as error:
        raise ValueError(f"{path}: can't be read as a video: {error.strerror or error}") from None
