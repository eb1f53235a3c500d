"""Interlaced frames as whole pictures: each holds two moments, of half the rows each, and what moves is combed."""

from collections.abc import Iterator

import av
from av.error import BlockingIOError as NothingYetError
from av.error import EOFError as NothingMoreError
from av.filter import Graph

from vdm.data.frames import DEINTERLACING


class Deinterlacer:
    """FFmpeg's bwdif, which makes one picture of each frame, and looks at the frames around; others pass as they are.

    Args:
        first: The first frame; all are of its size and pixel format.
        stream: Where it is from.
    """

    def __init__(self, first: av.VideoFrame, stream: av.VideoStream) -> None:
        self._kind = _kind(first)
        self._graph = Graph()
        self._graph.threads = 1
        filters = [
            self._graph.add_buffer(template=stream, width=first.width, height=first.height, format=first.format),
            self._graph.add("bwdif", DEINTERLACING),
            self._graph.add("buffersink"),
        ]
        self._graph.link_nodes(*filters).configure()

    def takes(self, frame: av.VideoFrame) -> bool:
        """Tell whether a frame is of the same size and pixel format."""
        return _kind(frame) == self._kind

    def __call__(self, frame: av.VideoFrame | None) -> Iterator[av.VideoFrame]:
        """Yield the pictures that are ready after one more frame, in order; None is the end."""
        self._graph.vpush(frame)
        while True:
            try:
                yield self._graph.vpull()
            except (NothingYetError, NothingMoreError):
                return


def _kind(frame: av.VideoFrame) -> tuple[int, int, str]:
    return frame.height, frame.width, frame.format.name
