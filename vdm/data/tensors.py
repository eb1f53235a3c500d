"""Tensors of a safetensors file in memory, as views of its bytes.

The reader of safetensors copies them, which for latents takes longer than reading them from the page cache.
"""

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vdm.files import MALFORMED
from vdm.json_values import mapping, parse_json, sequence, whole_number

_LENGTH_BYTES = 8
"""The file begins with the length of its JSON header; see https://huggingface.co/docs/safetensors."""

_MAX_HEADER_BYTES = 1 << 20
_MAX_DIMENSIONS = 8
_MAX_SIZE = 1 << 40
"""Limit of offsets, and of the number of elements of a tensor."""

_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


class UnreadableTensorsError(ValueError):
    """Bytes that are no safetensors file of floating-point numbers."""


class _Place(NamedTuple):
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    """First byte, counted from the end of the header."""
    end: int


def read_tensors(data: bytes | bytearray | memoryview) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file by name; they share the memory of ``data`` where that can be written to.

    Raises:
        UnreadableTensorsError: If it is damaged, or has numbers of another kind.
    """
    view = memoryview(data)
    if view.readonly:
        view = memoryview(bytearray(view))  # torch has no tensors that can't be written to
    first = _LENGTH_BYTES + int.from_bytes(view[:_LENGTH_BYTES], "little")
    if not _LENGTH_BYTES < first <= min(len(view), _MAX_HEADER_BYTES):
        raise UnreadableTensorsError(f"{len(view)} bytes that do not begin with a header")
    return {name: _tensor(view[first:], place) for name, place in _places(bytes(view[_LENGTH_BYTES:first])).items()}


def _tensor(values: memoryview, place: _Place) -> Tensor:
    if place.end > len(values):
        raise UnreadableTensorsError(f"{len(values)} bytes of values where the header speaks of {place.end}")
    if place.start == place.end:
        return torch.empty(place.shape, dtype=place.dtype)
    return torch.frombuffer(values[place.start : place.end], dtype=place.dtype).view(place.shape)


@lru_cache(maxsize=256)  # the samples of a set have few different headers
def _places(header: bytes) -> Mapping[str, _Place]:
    try:
        content = mapping(parse_json(header))
        return {name: _place(entry) for name, entry in content.items() if name != "__metadata__"}
    except MALFORMED as error:
        raise UnreadableTensorsError(f"its header is malformed ({error!r})") from None


def _place(entry: Mapping[str, Any]) -> _Place:
    dtype, shape = _DTYPES[entry["dtype"]], tuple(whole_number(n, 0, _MAX_SIZE) for n in sequence(entry["shape"]))
    start, end = (whole_number(offset, 0, _MAX_SIZE) for offset in sequence(entry["data_offsets"]))
    is_huge = len(shape) > _MAX_DIMENSIONS or math.prod(max(1, n) for n in shape) > _MAX_SIZE
    if is_huge or end - start != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"shape {shape} does not fill bytes {start} to {end}")
    return _Place(dtype, shape, start, end)
