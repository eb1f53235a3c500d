"""Deinterlacing. An interlaced frame holds two moments in alternate rows, which shows as combs where things move."""

from collections.abc import Iterator

import av
from av.error import BlockingIOError as NothingYetError
from av.error import EOFError as NothingMoreError
from av.filter import Graph

from vdm.data.frames import DEINTERLACING


class Deinterlacer:
    """FFmpeg's filter bwdif: one picture for each interlaced frame, using its neighbours; other frames pass unchanged.

    Args:
        first: The first frame; all frames have its size and pixel format.
        stream: The stream of the frames.
    """

    def __init__(self, first: av.VideoFrame, stream: av.VideoStream) -> None:
        self._first_format = _format(first)
        self._graph = Graph()
        self._graph.threads = 1
        filters = [
            self._graph.add_buffer(template=stream, width=first.width, height=first.height, format=first.format),
            self._graph.add("bwdif", DEINTERLACING),
            self._graph.add("buffersink"),
        ]
        self._graph.link_nodes(*filters).configure()

    def takes(self, frame: av.VideoFrame) -> bool:
        """Return whether a frame has the size and pixel format of the first."""
        return _format(frame) == self._first_format

    def __call__(self, frame: av.VideoFrame | None) -> Iterator[av.VideoFrame]:
        """Add a frame, None at the end of the stream; yield the pictures that are ready, in order."""
        self._graph.vpush(frame)
        while True:
            try:
                yield self._graph.vpull()
            except (NothingYetError, NothingMoreError):
                return


def _format(frame: av.VideoFrame) -> tuple[int, int, str]:
    return frame.height, frame.width, frame.format.name
