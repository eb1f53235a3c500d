"""Settings of ``vdm-data build``, and those that it shares with other commands."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Interval, MultipleOf
from pydantic import BeforeValidator

from vdm.cli.options.base import CommandOptions
from vdm.cli.options.paths import check_writable
from vdm.config import ConfigError
from vdm.config.options import MAY_BE_ABSENT, Component, Name, PlainPath
from vdm.config.words import Described
from vdm.ranges import Count, NumProcesses, Positive, Seed, ShareBelowOne, Size

MOVING_DIGITS = "moving_digits"
"""The value of ``input`` for the embedded data set."""

Precision = Literal["float16", "bfloat16", "float32"]
"""Precision of stored latents and embeddings."""
HDR = Literal["map", "leave_out"]
"""Treatment of videos of high dynamic range: mapped to standard range, or left out."""
EvenSize = Annotated[
    int,
    Interval(ge=2, le=1_000_000),
    MultipleOf(2),
    Described("an even whole number, at least 2 and at most 1000000"),
]


def _refuse_url(path: object) -> object:
    if "://" in str(path):
        raise ValueError("must be a path of this machine or of a file system that is mounted; only training reads URLs")
    return path


NotURL = BeforeValidator(_refuse_url)
LocalPath = Annotated[PlainPath, NotURL]
"""A path, and no URL: as a path, ``s3://bucket`` would mean a folder named ``s3:`` in the current folder."""


def check_videos(path: str, manifest: Path | None) -> Path | None:
    """Return the manifest of a folder of videos, if it has one.

    Raises:
        ValueError: In one line, if the folder or the manifest is missing.
    """
    if not Path(path).is_dir():
        kind = "is a file, not a folder of videos" if Path(path).exists() else "no such folder"
        raise ValueError(f"input={path}: {kind}; give a folder of videos, or moving_digits")
    from data_pipelines.caption_tables import find_manifest

    return find_manifest(Path(path), manifest)


def check_no_manifest(manifest: Path | None, whose: str) -> None:
    """Refuse a manifest for an input that has captions of its own.

    Args:
        manifest: The manifest, if the user gave one.
        whose: The input, for the message.

    Raises:
        ConfigError: In one line.
    """
    if manifest is not None:
        raise ConfigError(f"manifest={manifest}: {whose} has captions of its own")


@dataclass(frozen=True)
class ClipSettings:
    """Shape, rate and stride of the clips of a set."""

    num_frames: Size
    fps: Positive
    height: EvenSize
    """Even, since h264 halves the resolution of colour."""
    width: EvenSize
    stride_seconds: Positive
    """Time between the starts of two clips of one file."""

    @property
    def seconds(self) -> float:
        """Duration of a clip."""
        return self.num_frames / self.fps


@dataclass(frozen=True)
class ClipOptions:
    """``ClipSettings`` as the user gives them; None is the default of the kind of input."""

    num_frames: Size | None = None
    fps: Positive | None = None
    height: EvenSize | None = None
    width: EvenSize | None = None
    stride_seconds: Positive | None = None

    def resolve(self, num_frames: int, fps: float, height: int, width: int) -> ClipSettings:
        """Fill in defaults; clips follow each other without gap or overlap unless ``stride_seconds`` is given."""
        num_frames, fps = self.num_frames or num_frames, self.fps or fps
        stride_seconds = self.stride_seconds or num_frames / fps
        return ClipSettings(num_frames, fps, self.height or height, self.width or width, stride_seconds)


@dataclass(frozen=True)
class MovingDigitsOptions:
    """Settings of the embedded data set alone."""

    clips_per_handwriting: Count = 3
    """Clips of each handwritten digit, each with a motion of its own."""


@dataclass(frozen=True)
class SetSettings:
    """Settings of a set of shards that do not depend on the source of its clips."""

    output: LocalPath
    fps: float
    """Frames per second of every clip."""
    validation_fraction: float
    samples_per_shard: int
    seed: int


@dataclass(frozen=True)
class BuildSettings(CommandOptions):
    """Everything that ``conf/build.yaml`` sets."""

    input: Annotated[Name, NotURL]
    """A folder of videos, or ``MOVING_DIGITS``."""
    output: LocalPath
    clip: ClipOptions = ClipOptions()
    manifest: LocalPath | None = None
    hdr: HDR = "map"
    validation_fraction: ShareBelowOne = 0.1
    samples_per_shard: Count = 500
    seed: Seed = 0
    num_workers: NumProcesses | None = None
    """Number of processes; None is one per core, 0 works in this process."""
    moving_digits: MovingDigitsOptions = MovingDigitsOptions()
    source: Component | None = field(default=None, metadata=MAY_BE_ABSENT)
    """A source of clips of the user's own, which interprets ``input``."""

    def check_paths(self) -> None:
        """Refuse a missing input, and an output that can't be written."""
        if self.source is not None:
            check_no_manifest(self.manifest, "a source of your own")
        elif self.input != MOVING_DIGITS:
            check_videos(self.input, self.manifest)
        else:
            check_no_manifest(self.manifest, "input=moving_digits")
        check_writable(self.output, "output")

    def resolved_clip(self) -> ClipSettings:
        """Return the settings of a clip, with defaults filled in."""
        if self.source is None and self.input == MOVING_DIGITS:
            return self.clip.resolve(num_frames=8, fps=8.0, height=32, width=32)
        return self.clip.resolve(num_frames=16, fps=8.0, height=64, width=64)

    def of_set(self) -> SetSettings:
        """Return the settings of the set as a whole."""
        fps = self.resolved_clip().fps
        return SetSettings(self.output, fps, self.validation_fraction, self.samples_per_shard, self.seed)
