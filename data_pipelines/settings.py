"""What `vdm-data build` can be told, checked once at the border."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

MOVING_DIGITS = "moving_digits"
"""The value of ``input`` that stands for the embedded data set."""

Count = Annotated[int, Field(ge=1)]
EvenCount = Annotated[int, Field(ge=2, multiple_of=2)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _refuse_url(path: object) -> object:
    if "://" in str(path):
        raise ValueError("must be a path of this machine or of a file system that is mounted; only training reads URLs")
    return path


NotURL = BeforeValidator(_refuse_url)
LocalPath = Annotated[Path, NotURL]
"""A path; a URL would otherwise become one, and what is written to it be lost in the present folder."""


@dataclass(frozen=True)
class ClipSettings:
    """What every clip of a set looks like."""

    num_frames: Count
    fps: Positive
    height: EvenCount
    """Even, as h264 halves the resolution of colour."""
    width: EvenCount
    stride_seconds: Positive
    """Time between the starts of two clips of one file."""

    @property
    def seconds(self) -> float:
        """How long a clip lasts."""
        return self.num_frames / self.fps


@dataclass(frozen=True)
class ClipOptions:
    """What the user said of ``ClipSettings``; None is the default of the kind of input."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    num_frames: Count | None = None
    fps: Positive | None = None
    height: EvenCount | None = None
    width: EvenCount | None = None
    stride_seconds: Positive | None = None

    def resolve(self, num_frames: int, fps: float, height: int, width: int) -> ClipSettings:
        """Fill in defaults; clips follow each other without gap or overlap unless ``stride_seconds`` is given."""
        num_frames, fps = self.num_frames or num_frames, self.fps or fps
        stride_seconds = self.stride_seconds or num_frames / fps
        return ClipSettings(num_frames, fps, self.height or height, self.width or width, stride_seconds)


@dataclass(frozen=True)
class MovingDigitsOptions:
    """What concerns the embedded data set only."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    clips_per_handwriting: Count = 3
    """Clips of each handwritten digit, each with a motion of its own."""


@dataclass(frozen=True)
class SetSettings:
    """What a set of shards is like, whatever its clips are made from."""

    output: LocalPath
    fps: float
    """Frames per second of every clip."""
    validation_fraction: float
    samples_per_shard: int
    seed: int


@dataclass(frozen=True)
class BuildSettings:
    """Everything that ``conf/build.yaml`` sets."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    input: Annotated[str, NotURL]
    """A folder of videos, or ``MOVING_DIGITS``."""
    output: LocalPath
    clip: ClipOptions = ClipOptions()
    manifest: LocalPath | None = None
    validation_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.1
    samples_per_shard: Count = 500
    seed: int = 0
    num_workers: Annotated[int, Field(ge=0)] | None = None
    """Processes; None is one per core, 0 works in this process."""
    moving_digits: MovingDigitsOptions = MovingDigitsOptions()

    def resolved_clip(self) -> ClipSettings:
        """The look of a clip, defaults filled in."""
        if self.input == MOVING_DIGITS:
            return self.clip.resolve(num_frames=8, fps=8.0, height=32, width=32)
        return self.clip.resolve(num_frames=16, fps=8.0, height=64, width=64)

    def of_set(self) -> SetSettings:
        """What concerns the set as a whole."""
        fps = self.resolved_clip().fps
        return SetSettings(self.output, fps, self.validation_fraction, self.samples_per_shard, self.seed)


Settings = TypeVar("Settings")


def parse(cls: type[Settings], values: Mapping[str, Any]) -> Settings:
    """Make a settings object of plain values.

    Raises:
        ValueError: In one line that names the first wrong key, its value and what is allowed.
    """
    try:
        return TypeAdapter(cls).validate_python(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        what = first["msg"].removeprefix("Value error, ")
        raise ValueError(f"{key}={first['input']}: {what[0].lower()}{what[1:]}") from None
