"""Nested Python data with tensors inside <-> JSON and a flat dictionary of tensors, without loss.

Values that JSON has are written unchanged. Any other is an object with one key that starts with ``$``::

    {"$tensor": NAME}    a tensor, stored under NAME (its path in the tree)
    {"$float": "nan"}    nan, inf or -inf, which JSON lacks
    {"$tuple": [...]}    a tuple
    {"$dict": [[key, value], ...]}           a dictionary with keys that are not strings, or that start with $
    {"$ordered_dict": [[key, value], ...]}   an OrderedDict, which PyTorch's state dicts are
"""

import math
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from torch import Tensor

Json = dict[str, Any] | list[Any] | str | int | float | bool | None


def split(tree: object, name: str) -> tuple[Json, dict[str, Tensor]]:
    """Separate the tensors of a tree from the rest.

    Args:
        tree: Tensors, None, bool, int, float and str in dictionaries, lists and tuples.
        name: Name of the tree's root in messages.

    Returns:
        The tree as JSON, and each tensor by its path.

    Raises:
        ValueError: If the tree has a value of another type; the message names its path.
    """
    tensors: dict[str, Tensor] = {}
    return _encode(tree, name, (), tensors), tensors


def join(json: Json, tensors: Mapping[str, Tensor]) -> Any:
    """Undo ``split``."""
    if isinstance(json, list):
        return [join(item, tensors) for item in json]
    if not isinstance(json, dict):
        return json
    content: Any
    tag, content = next(iter(json.items()), ("", None))
    match tag:
        case "$tensor":
            return tensors[content]
        case "$float":
            return float(content)
        case "$tuple":
            return tuple(join(item, tensors) for item in content)
        case "$dict":
            return {join(key, tensors): join(value, tensors) for key, value in content}
        case "$ordered_dict":
            return OrderedDict((join(key, tensors), join(value, tensors)) for key, value in content)
        case _:
            return {key: join(value, tensors) for key, value in json.items()}


def _encode(value: object, root: str, path: tuple[str, ...], tensors: dict[str, Tensor]) -> Json:
    """Encode one value; subclasses are refused, since their further state would be lost."""

    def child(key: object, item: object) -> Json:
        return _encode(item, root, (*path, str(key)), tensors)

    if isinstance(value, Tensor):
        return {"$tensor": _store(value, path, tensors)}
    if value is None or type(value) in (bool, int, str):
        return value  # pyright: ignore[reportReturnType] - it does not narrow by type() in a tuple
    if type(value) is float:
        return value if math.isfinite(value) else {"$float": repr(value)}
    if type(value) is list:
        return [child(index, item) for index, item in enumerate(value)]
    if type(value) is tuple:
        return {"$tuple": [child(index, item) for index, item in enumerate(value)]}
    if type(value) is dict and all(type(key) is str and not key.startswith("$") for key in value):
        return {key: child(key, item) for key, item in value.items()}
    if type(value) in (dict, OrderedDict):
        assert isinstance(value, dict)
        pairs = [[_encode_key(key, root, path), child(key, item)] for key, item in value.items()]
        return {"$dict" if type(value) is dict else "$ordered_dict": pairs}
    raise ValueError(
        f"{'.'.join((root, *path))}: a {type(value).__module__}.{type(value).__qualname__} can't be saved;"
        " a checkpoint holds tensors, numbers, strings, None, dictionaries, lists and tuples"
    )


def _encode_key(key: object, root: str, path: tuple[str, ...]) -> Json:
    if isinstance(key, Tensor):
        raise ValueError(f"{'.'.join((root, *path))}: a tensor as a key can't be saved")
    return _encode(key, root, (*path, "key"), {})


def _store(tensor: Tensor, path: tuple[str, ...], tensors: dict[str, Tensor]) -> str:
    """Add a tensor under its path, made unique: keys may contain dots, and 1 and "1" give the same path."""
    name = unique = ".".join(path) or "tensor"
    while unique in tensors:
        unique += "'"
    tensors[unique] = tensor
    return unique if unique != name else name
