"""Ranges of the values that a configuration may hold, for the annotations of constructors and options.

``vdm.config`` checks values against them, before anything is built. Neither NaN nor infinity is within any range but
``PositiveOrInfinite``. Upper bounds lie far beyond what is of use; what goes beyond them is a slip, or would take
minutes to build.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NoReturn

from annotated_types import Interval, Len
from pydantic import AfterValidator, Field
from pydantic_core import CoreSchema, core_schema

# Whole numbers

Count = Annotated[int, Interval(ge=1, le=10**12)]
"""How many there are of something that there must be."""
CountOrZero = Annotated[int, Interval(ge=0, le=10**12)]
"""How many there are of something that need not be there."""
Size = Annotated[int, Interval(ge=1, le=1_000_000)]
"""Frames, pixels, rows of a table: what decides how much memory is taken."""
SizeOrZero = Annotated[int, Interval(ge=0, le=1_000_000)]
"""The size of something that need not be there."""
Width = Annotated[int, Interval(ge=1, le=2**16)]
"""Channels of a layer."""
WidthOrZero = Annotated[int, Interval(ge=0, le=2**16)]
"""Channels of a layer that need not be there."""
NumLayers = Annotated[int, Interval(ge=1, le=128)]
"""Layers, or blocks of a level, one after the other: what decides how long a network takes to build."""
NumSteps = Annotated[int, Interval(ge=1, le=100_000)]
"""Steps of a sampler, or of a solver."""
Whole = Annotated[int, Interval(ge=-(10**12), le=10**12)]
"""Of either sign."""
NumProcesses = Annotated[int, Interval(ge=0, le=1024)]
"""Processes of this machine beside the present one."""
Port = Annotated[int, Interval(ge=0, le=65535)]
"""A TCP port; 0 is any that is free."""
Seed = Annotated[int, Interval(ge=0, lt=2**63)]
"""What decides random numbers."""

# Numbers

Number = Annotated[float, Interval(ge=-1e12, le=1e12)]
"""Of either sign."""
Positive = Annotated[float, Interval(gt=0, le=1e12)]
"""Above 0."""
NotNegative = Annotated[float, Interval(ge=0, le=1e12)]
"""0 or above."""
PositiveOrInfinite = Annotated[float, Interval(gt=0), Field(allow_inf_nan=True)]
"""Above 0, without a bound."""
Share = Annotated[float, Interval(ge=0, le=1)]
"""A part of a whole, all of it included."""
ShareBelowOne = Annotated[float, Interval(ge=0, lt=1)]
"""A part of a whole, but not all of it."""
Between0And1 = Annotated[float, Interval(gt=0, lt=1)]
"""A part of a whole, neither nothing nor all of it."""
LogRatio = Annotated[float, Interval(ge=-1000, le=1000)]
"""The logarithm of a ratio of signal to noise, or of another ratio: its exponential is a number."""

Seconds = Annotated[float, Interval(gt=0, le=1e8)]
"""A time to wait; a hundred million are three years."""
Minutes = Annotated[float, Interval(gt=0, le=1e6)]
"""A time to wait; a million are two years."""

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


def _printable(text: str) -> str:
    if any(ord(character) < 32 for character in text):
        raise ValueError("must be one line without control characters")
    return text


Text = Annotated[str, Len(0, 100_000)]
"""Free text, such as a caption."""
Texts = Annotated[Sequence[Text], Len(1, 10_000)]
"""Free texts, of which there must be some."""
Name = Annotated[str, Len(1, 255), AfterValidator(_printable)]
"""What something is called."""
NameOrNothing = Annotated[str, Len(0, 255), AfterValidator(_printable)]
"""What something is called; the empty text stands for what is not in a folder, or not named."""
Location = Annotated[str, Len(1, 4096), AfterValidator(_printable)]
"""A path, a URL, or a name on the hub; as a ``Path``, a URL would lose one of its slashes."""


def _not_empty(location: str | Path) -> str | Path:
    _printable(str(location))
    if not 1 <= len(str(location)) <= 4096:
        raise ValueError("must have 1 to 4096 characters")
    return location


Folder = Annotated[str | Path, AfterValidator(_not_empty)]
"""A path or a URL."""

# Nothing


@dataclass(frozen=True)
class Instead:
    """In the annotation of what must not be given: what to do instead, such as ``Annotated[None, Instead("...")]``."""

    advice: str

    def __get_pydantic_core_schema__(self, *_: object) -> CoreSchema:
        """Let pydantic refuse every value."""
        return core_schema.no_info_plain_validator_function(self._refuse)

    def _refuse(self, value: object) -> NoReturn:
        raise ValueError(f"must be left out; {self.advice}")
