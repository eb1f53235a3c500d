"""The settings that ``vdm sample`` records beside its videos and in them, read as files from a stranger."""

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
    {
        "output",
        "overwrite",
        "device",
        "offload_idle_expert",
        "allow_own_code",
        "settings",
        "prompts_file",
        "model",
        "text_encoder",
    }
)
"""Options of output, machine and trust, which settings must not decide, and options that others replace."""
COMPONENTS = ("sampler", "guidance")
ALLOWED_MODULES = ("vdm.diffusion",)
"""Packages of these components, unless the user allows other code."""
MAX_BYTES = 1 << 27
"""Bytes of a file with settings, at most; it may contain as many prompts as a file of prompts."""
ELSEWHERE = "settings_in"
"""Key in an mp4 whose settings are too long for it; its value is the name of the file that has them."""

_SPELLED = {".inf": math.inf, "-.inf": -math.inf}
"""Numbers that JSON lacks, as in YAML. Components contain them, such as infinite bounds of intervals."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Identity:
    """Identity of a file or checkpoint, independent of its path."""

    checksum: str
    step: int | None = None
    """Optimizer steps after which a checkpoint was saved."""


@dataclass(frozen=True)
class Made:
    """The videos that a call made."""

    first: Annotated[int, Interval(ge=0)] = 0
    """Number of its first video."""
    videos: Annotated[tuple[str, ...], Len(0, 1_000_000)] = ()
    """Names of its videos, in order."""


@dataclass(frozen=True)
class Settings:
    """Options of a call of ``vdm sample``, and what it read and made."""

    options: dict[str, Any]
    """All options that decide the videos, by their keys, with their values in effect."""
    read: dict[str, Identity] = field(default_factory=dict[str, Identity])
    """Files and checkpoints that were read, by the key of their option."""
    made: Made = field(default_factory=Made)

    @classmethod
    def read_file(cls, path: Path, allow_own_code: bool = False) -> "Settings":
        """Read ``settings.json``, or the settings in an mp4 of ``vdm sample``.

        Components are checked to be of this project; other values of options are not checked here.

        Args:
            path: The file.
            allow_own_code: Allow sampler and guidance to be classes outside this project.

        Raises:
            ConfigError: In one line, if the file does not exist, contains something else, was written by another
                version, or contains an option that settings must not decide.
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
        """Parse a text of bounded length.

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
        """Warn if a path now leads to another file or checkpoint than when the settings were recorded.

        Args:
            path: The file of these settings.
            options: Options of the present call.
            read: Identities of the files and checkpoints that the present call reads.
        """
        for key, identity in self.read.items():
            is_same_place = self.options.get(key) == options.get(key)
            if is_same_place and key in read and read[key].checksum != identity.checksum:
                _log.warning(
                    "%s=%s is another than when %s was recorded: the videos will differ", key, options[key], path
                )


def as_json(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options for JSON: numbers that it lacks become texts."""
    return {**options, **_changed(_components(options), {number: text for text, number in _SPELLED.items()})}


def _components(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: options[key] for key in COMPONENTS if key in options}


def _changed(node: Any, changes: Mapping[Any, Any]) -> Any:
    """Replace some texts or numbers in plain values."""
    if isinstance(node, Mapping):
        return {name: _changed(value, changes) for name, value in node.items()}
    if isinstance(node, list):
        return [_changed(value, changes) for value in node]
    return changes.get(node, node) if isinstance(node, str | float) else node


def _text(path: Path) -> str:
    return comment_of(path) if path.suffix.lower() == ".mp4" else read_text(path, MAX_BYTES)


def comment_of(path: Path) -> str:
    """Return the comment in an mp4; empty if it has none.

    Raises:
        ValueError: If the file can't be read.
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
