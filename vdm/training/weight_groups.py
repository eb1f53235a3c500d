"""Groups of weights whose gradients and updates are logged together."""

import re
from collections.abc import Iterable

MAX_RANGES = 8
"""Numbered blocks of one name are joined into this many ranges at most."""

_WRAPPERS = ("model.", "network.")
_NUMBERED = re.compile(r"(\D+)\.(\d+)(?:\.|$)")


def weight_groups(names: Iterable[str]) -> dict[str, str]:
    """Return the group of each weight.

    A group is a part of the model: ``text_encoder``, ``down.0``, or, of many blocks of one name, a range of them such
    as ``blocks.00-03``.

    Args:
        names: Full names of weights, such as ``model.network.down.0.norm.weight``.
    """
    parts = {name: _part(name) for name in names}
    numbers: dict[str, list[int]] = {}
    for stem, number in parts.values():
        if number is not None and number not in numbers.setdefault(stem, []):
            numbers[stem].append(number)
    return {
        name: stem if number is None else _range(stem, number, numbers[stem]) for name, (stem, number) in parts.items()
    }


def _part(name: str) -> tuple[str, int | None]:
    for wrapper in _WRAPPERS:
        name = name.removeprefix(wrapper)
    name = name.removeprefix("conditioner.")
    first = name.split(".", 1)[0]
    found = _NUMBERED.match(name)
    return (first, int(found[2])) if found is not None and found[1] == first else (first, None)


def _range(stem: str, number: int, numbers: list[int]) -> str:
    ordered = sorted(numbers)
    width = len(str(ordered[-1]))
    length = -(-len(ordered) // MAX_RANGES)
    place = ordered.index(number) // length * length
    low, high = ordered[place], ordered[min(place + length, len(ordered)) - 1]
    return f"{stem}.{low:0{width}d}" + (f"-{high:0{width}d}" if high > low else "")
