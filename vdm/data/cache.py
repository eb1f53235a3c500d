"""A least-recently-used cache of bounded size."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class BoundedCache(Generic[Key, Value]):
    """Keeps the values used last, up to a total size; the newest value always stays, whatever its size.

    Args:
        capacity: Greatest total size.
        size: Size of one value; 1 by default, so that ``capacity`` counts values.
        discard: Called with each value that leaves the cache.
    """

    def __init__(
        self,
        capacity: int,
        size: Callable[[Value], int] | None = None,
        discard: Callable[[Value], None] | None = None,
    ) -> None:
        self._capacity = capacity
        self._size = size
        self._discard = discard
        self._total = 0
        self._values: OrderedDict[Key, Value] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: Key, make: Callable[[Key], Value]) -> Value:
        """Return the value of ``key``; call ``make`` if the cache lacks it."""
        if key in self._values:
            self._values.move_to_end(key)
            return self._values[key]
        value = self._values[key] = make(key)
        self._total += self._measure(value)
        while self._total > self._capacity and len(self._values) > 1:
            self._remove(next(iter(self._values)))
        return value

    def clear(self) -> None:
        """Discard all values."""
        for key in list(self._values):
            self._remove(key)

    def _measure(self, value: Value) -> int:
        return 1 if self._size is None else self._size(value)

    def _remove(self, key: Key) -> None:
        value = self._values.pop(key)
        self._total -= self._measure(value)
        if self._discard is not None:
            self._discard(value)
