"""Memory that is used again and again."""

_ALIGNMENT = 64
"""Bytes of which each part's place is a multiple: as processors want numbers to lie."""


class ReusedMemory:
    """Memory for what belongs together, such as the files of one batch, and is needed no more when the next comes.

    For fresh memory the system clears each page, which for latents costs as much as reading them.
    """

    def __init__(self) -> None:
        self._block = memoryview(bytearray())
        self._used = 0

    def clear(self) -> None:
        """Give all that was taken free, to be overwritten; room is made for as much as that was."""
        if self._used > len(self._block):
            self._block = memoryview(bytearray(self._used))
        self._used = 0

    def take(self, length: int) -> memoryview:
        """Return memory of ``length`` bytes, whose content is left over from earlier use."""
        start, end = self._used, self._used + length
        self._used = -(-end // _ALIGNMENT) * _ALIGNMENT
        return self._block[start:end] if end <= len(self._block) else memoryview(bytearray(length))

    def __reduce__(self) -> tuple[type["ReusedMemory"], tuple[()]]:
        return ReusedMemory, ()  # it travels to other processes without its content
