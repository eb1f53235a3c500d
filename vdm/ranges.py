"""Ranges of the values that a configuration may hold, for the annotations of constructors and options.

``vdm.config`` checks values against them before anything is built. NaN is in no range, infinity only in
``PositiveOrInfinite``. Upper bounds lie far beyond useful values: a value above them is a typing error, or would take
minutes to build.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NoReturn

from annotated_types import Interval, Len
from pydantic import AfterValidator, Field
from pydantic_core import CoreSchema, core_schema

# Whole numbers

Count = Annotated[int, Interval(ge=1, le=10**12)]
"""A number of things, at least one."""
CountOrZero = Annotated[int, Interval(ge=0, le=10**12)]
"""A number of things, possibly none."""
Size = Annotated[int, Interval(ge=1, le=1_000_000)]
"""Frames, pixels, rows of a table: numbers that decide how much memory is needed."""
SizeOrZero = Annotated[int, Interval(ge=0, le=1_000_000)]
"""A size; 0 for something that is absent."""
Width = Annotated[int, Interval(ge=1, le=2**16)]
"""Channels of a layer."""
WidthOrZero = Annotated[int, Interval(ge=0, le=2**16)]
"""Channels of a layer; 0 for a layer that is absent."""
NumLayers = Annotated[int, Interval(ge=1, le=128)]
"""Layers, or blocks of a level, in sequence: numbers that decide how long a network takes to build."""
NumSteps = Annotated[int, Interval(ge=1, le=100_000)]
"""Steps of a sampler or solver."""
Whole = Annotated[int, Interval(ge=-(10**12), le=10**12)]
"""A whole number of either sign."""
NumProcesses = Annotated[int, Interval(ge=0, le=1024)]
"""Further processes on this machine."""
Port = Annotated[int, Interval(ge=0, le=65535)]
"""A TCP port; 0 is any that is free."""
Seed = Annotated[int, Interval(ge=0, lt=2**63)]
"""A seed of random numbers."""

# Numbers

Number = Annotated[float, Interval(ge=-1e12, le=1e12)]
"""A number of either sign."""
Positive = Annotated[float, Interval(gt=0, le=1e12)]
"""Above 0."""
NotNegative = Annotated[float, Interval(ge=0, le=1e12)]
"""0 or above."""
PositiveOrInfinite = Annotated[float, Interval(gt=0), Field(allow_inf_nan=True)]
"""Above 0, possibly infinite."""
Share = Annotated[float, Interval(ge=0, le=1)]
"""A fraction from 0 to 1."""
ShareBelowOne = Annotated[float, Interval(ge=0, lt=1)]
"""A fraction from 0 to below 1."""
Between0And1 = Annotated[float, Interval(gt=0, lt=1)]
"""A fraction strictly between 0 and 1."""
LogRatio = Annotated[float, Interval(ge=-1000, le=1000)]
"""Logarithm of a ratio, such as signal to noise; its exponential is representable."""

Seconds = Annotated[float, Interval(gt=0, le=1e8)]
"""A duration in seconds, at most three years."""
Minutes = Annotated[float, Interval(gt=0, le=1e6)]
"""A duration in minutes, at most two years."""

# Levels of a network

MAX_LEVELS = 16
"""Each level halves rows and columns."""
Level = Annotated[int, Interval(ge=0, lt=MAX_LEVELS)]
"""The number of a level; 0 is the full resolution."""
Levels = Annotated[Sequence[Level], Len(0, MAX_LEVELS)]
"""Some of a network's levels."""
WidthOfLevels = Annotated[Sequence[Width], Len(1, MAX_LEVELS)]
"""One number for each level, from the full resolution down."""

# Text


def _hexadecimal(text: str) -> str:
    if not re.fullmatch("[0-9a-fA-F]{64}", text):
        raise ValueError("must be 64 hexadecimal digits, as sha256sum prints them")
    return text


Sha256 = Annotated[str, AfterValidator(_hexadecimal)]
"""The SHA-256 of a file."""


def _printable(text: str) -> str:
    if any(ord(character) < 32 for character in text):
        raise ValueError("must be one line without control characters")
    return text


Text = Annotated[str, Len(0, 100_000)]
"""Free text, such as a caption."""
Texts = Annotated[Sequence[Text], Len(1, 10_000)]
"""One or more free texts."""
Name = Annotated[str, Len(1, 255), AfterValidator(_printable)]
"""A name."""
NameOrNothing = Annotated[str, Len(0, 255), AfterValidator(_printable)]
"""A name; the empty text stands for no folder, or for something without a name."""
Location = Annotated[str, Len(1, 4096), AfterValidator(_printable)]
"""A path, a URL, or a name on the hub; as a ``Path``, a URL would lose one of its slashes."""


def _not_empty(location: str | Path) -> str | Path:
    _printable(str(location))
    if not 1 <= len(str(location)) <= 4096:
        raise ValueError("must have 1 to 4096 characters")
    return location


Folder = Annotated[str | Path, AfterValidator(_not_empty)]
"""A path or a URL."""

# Refused keys


@dataclass(frozen=True)
class Instead:
    """Marks a key that must not be set, with advice: ``Annotated[None, Instead("...")]``."""

    advice: str

    def __get_pydantic_core_schema__(self, *_: object) -> CoreSchema:
        """Let pydantic refuse every value."""
        return core_schema.no_info_plain_validator_function(self._refuse)

    def _refuse(self, value: object) -> NoReturn:
        raise ValueError(f"must be left out; {self.advice}")
