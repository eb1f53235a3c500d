"""Reusable memory for the files of a batch."""

_ALIGNMENT = 64
"""Alignment of each part in bytes."""


class ReusedMemory:
    """Memory for the files of one batch, which the files of the next batch overwrite.

    The system clears each page of fresh memory, which for latents costs as much as reading them.
    """

    def __init__(self) -> None:
        self._block = memoryview(bytearray())
        self._used = 0

    def clear(self) -> None:
        """Release all memory; grow to the size that was taken since the last call."""
        if self._used > len(self._block):
            self._block = memoryview(bytearray(self._used))
        self._used = 0

    def take(self, length: int) -> memoryview:
        """Return ``length`` bytes of memory with arbitrary content."""
        start, end = self._used, self._used + length
        self._used = -(-end // _ALIGNMENT) * _ALIGNMENT
        return self._block[start:end] if end <= len(self._block) else memoryview(bytearray(length))

    def __reduce__(self) -> tuple[type["ReusedMemory"], tuple[()]]:
        return ReusedMemory, ()  # pickled without its content
