"""Ranges of diffusion times, to which training may be restricted."""

from dataclasses import dataclass

import torch

from vdm.diffusion.shapes import PerClip


@dataclass(frozen=True)
class TimeRange:
    """Times from ``start`` on, up to but not including ``end`` unless that is 1."""

    start: float = 0.0
    end: float = 1.0

    def clamp(self, t: PerClip) -> PerClip:
        """Return times that rounding has put outside of the range at its ends; others are unchanged."""
        start = t.new_tensor(self.start)
        end = t.new_tensor(self.end)
        if float(start) < self.start:  # in the precision of t
            start = torch.nextafter(start, torch.ones_like(start))
        if self.end < 1 and float(end) >= self.end:
            end = torch.nextafter(end, torch.zeros_like(end))
        return t if self == ALL_TIMES else t.clamp(start, end)


ALL_TIMES = TimeRange()
