"""Which bytes of a shard are read at once for a sample."""

from collections.abc import Mapping
from dataclasses import dataclass

from vdm.data.shards import Member

MAX_GAP_BYTES = 1 << 14
"""Members of a sample that lie no further apart are read at once: a request costs more than so many bytes."""


@dataclass(slots=True)
class Span:
    """Bytes of a shard that are read at once."""

    start: int
    end: int
    extensions: list[str]
    """Of the members in it."""


def spans_of(members: Mapping[str, Member]) -> list[Span]:
    """Return the spans of a sample's members, in the order of their places."""
    spans: list[Span] = []
    for extension, member in sorted(members.items(), key=_offset):
        end = member.offset + member.length
        if spans and member.offset - spans[-1].end <= MAX_GAP_BYTES:
            spans[-1].end = max(spans[-1].end, end)
            spans[-1].extensions.append(extension)
        else:
            spans.append(Span(member.offset, end, [extension]))
    return spans


def _offset(item: tuple[str, Member]) -> int:
    return item[1].offset
