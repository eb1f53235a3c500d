import json
import math
from collections import OrderedDict, defaultdict, namedtuple
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from vdm.checkpoints.tree import join, split


def assert_same(actual: object, expected: object) -> None:
    """Compare types, values and the sign of zero; nan equals nan."""
    assert type(actual) is type(expected)
    if isinstance(expected, Tensor):
        assert isinstance(actual, Tensor)
        assert actual.dtype == expected.dtype
        assert torch.equal(actual, expected)
    elif isinstance(expected, dict):
        assert isinstance(actual, dict)
        assert list(actual) == list(expected)
        assert [type(key) for key in actual] == [type(key) for key in expected]
        for key, value in expected.items():
            assert_same(actual[key], value)
    elif isinstance(expected, list | tuple):
        assert isinstance(actual, list | tuple)
        assert len(actual) == len(expected)
        for one, other in zip(actual, expected, strict=True):
            assert_same(one, other)
    else:
        assert repr(actual) == repr(expected)


@pytest.mark.parametrize(
    "tree",
    [
        None,
        {"epoch": 3, "done": True, "name": "ü\ud800", "loss": 0.1, "empty": [{}, [], (), OrderedDict()]},
        [math.inf, -math.inf, math.nan, -0.0, 5e-324, 1e308, 0.1 + 0.2, 2**200, -1],
        {"state": {0: {"step": torch.tensor(3.0)}, 1: {"step": torch.tensor(4.0)}}, "betas": (0.9, 0.999)},
        {1: "a", "1": "b", None: "c", 1.5: "d", (1, ("x", None)): "e", math.inf: "f"},
        {"$tensor": "looks like ours", "$": {"$tuple": 3}},
        OrderedDict([("b", torch.arange(3)), ("a", OrderedDict())]),
        {
            "a.b": torch.tensor(1),
            "a": {"b": torch.tensor(2), "b'": torch.tensor(3)},
            1: torch.ones(1),
            "1": torch.zeros(1),
        },
        torch.tensor([math.nan]).isnan(),
        torch.zeros(0, 3, dtype=torch.bfloat16),
    ],
)
def test_tree_is_the_same_after_a_round_trip(tree: Any) -> None:
    structure, tensors = split(tree, "checkpoint")

    assert_same(join(json.loads(json.dumps(structure, allow_nan=False)), tensors), tree)


def test_tensors_are_named_by_their_path() -> None:
    _, tensors = split({"optimizer_states": [{"state": {0: {"exp_avg": torch.ones(1)}}}]}, "checkpoint")

    assert list(tensors) == ["optimizer_states.0.state.0.exp_avg"]


class Kind(IntEnum):
    ONE = 1


class Text(str):
    __slots__ = ()


@pytest.mark.parametrize(
    "value",
    [
        abs,
        object(),
        {1, 2},
        b"bytes",
        1j,
        Path("x"),
        np.float64(1),
        np.zeros(2),
        Kind.ONE,
        Text("x"),
        torch.float32,
        torch.Size([1]),
        defaultdict(list),
        namedtuple("Pair", "a b")(1, 2),
    ],
)
def test_what_cannot_be_restored_exactly_is_refused_by_its_path(value: object) -> None:
    with pytest.raises(ValueError, match=r"^checkpoint\.callbacks\.0\.best: a .* can't be saved; [^\n]*$"):
        split({"callbacks": [{"best": value}]}, "checkpoint")


def test_key_that_cannot_be_restored_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^checkpoint\.a\.key"):
        split({"a": {frozenset(): 1}}, "checkpoint")
    with pytest.raises(ValueError, match=r"^checkpoint\.a: a tensor as a key"):
        split({"a": {torch.ones(1): 1}}, "checkpoint")
