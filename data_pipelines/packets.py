"""Reading the packets of a video, with a look ahead at the first of them."""

from collections import deque
from collections.abc import Iterator
from itertools import islice

import av
from av.container import InputContainer
from av.error import FFmpegError

_MAX_PACKETS_AHEAD, _MAX_BYTES_AHEAD = 256, 1 << 26
"""Limits of what is read ahead of decoding, to find out the frame rate."""


class PacketReader:
    """Reads a container once, and yields the packets of one of its streams.

    Args:
        container: Read from its present position.
        stream: The stream of the packets.
    """

    def __init__(self, container: InputContainer, stream: av.VideoStream) -> None:
        self.end = 0.0
        """End of the last packet read so far, of any stream, by the container's clock."""
        self._of_all = container.demux()
        self._stream = stream
        self._ahead: deque[av.Packet] = deque()
        self._fault: Exception | None = None

    def __iter__(self) -> Iterator[av.Packet]:
        """Yield the packets, those read ahead first; an error met in reading ahead is raised after them."""
        while self._ahead:
            yield self._ahead.popleft()
        if self._fault is not None:
            raise self._fault
        yield from self._read()

    def _read(self) -> Iterator[av.Packet]:
        for packet in self._of_all:
            start = packet.dts if packet.pts is None else packet.pts
            if start is not None and packet.time_base is not None:
                self.end = max(self.end, float((start + (packet.duration or 0)) * packet.time_base))
            if packet.stream_index == self._stream.index:
                yield packet

    def look_ahead(self) -> float | None:
        """Read the first packets ahead; return their mean frame rate by their times, None if they have no times."""
        num_bytes = 0
        try:
            for packet in islice(self._read(), _MAX_PACKETS_AHEAD):
                self._ahead.append(packet)
                num_bytes += packet.size
                if num_bytes > _MAX_BYTES_AHEAD:
                    break
        except (FFmpegError, OSError) as error:
            self._fault = error
        times = sorted({packet.pts for packet in self._ahead if packet.pts is not None})
        unit = self._stream.time_base
        return float((len(times) - 1) / ((times[-1] - times[0]) * unit)) if len(times) > 1 and unit else None
