"""Ranges of the numbers that a configuration may hold, for the annotations of constructors and options.

``vdm.config`` checks values against them. Neither NaN nor infinity is within any range but ``PositiveOrInfinite``.
"""

from typing import Annotated

from annotated_types import Ge, Gt, Interval
from pydantic import Field

Count = Annotated[int, Interval(ge=1, le=10**12)]
"""How many there are of something that there must be."""
CountOrZero = Annotated[int, Interval(ge=0, le=10**12)]
"""How many there are of something that need not be there."""
Size = Annotated[int, Interval(ge=1, le=1_000_000)]
"""Frames, pixels, channels, layers: what decides how much memory is taken."""
NumProcesses = Annotated[int, Interval(ge=0, le=1024)]
"""Processes of this machine beside the present one."""
Seed = Annotated[int, Interval(ge=0, lt=2**63)]
"""What decides random numbers."""

Positive = Annotated[float, Gt(0)]
"""Above 0."""
NotNegative = Annotated[float, Ge(0)]
"""0 or above."""
PositiveOrInfinite = Annotated[float, Gt(0), Field(allow_inf_nan=True)]
"""Above 0, without a bound."""
Share = Annotated[float, Interval(ge=0, le=1)]
"""A part of a whole, all of it included."""
ShareBelowOne = Annotated[float, Interval(ge=0, lt=1)]
"""A part of a whole, but not all of it."""
