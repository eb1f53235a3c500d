import json
import math

import pytest

from vdm.json_values import (
    known_version,
    mapping,
    parse_json,
    positive_number,
    sequence,
    shown,
    spelled,
    text,
    whole_number,
)


@pytest.mark.parametrize(
    "data", [b"[" * 10**5, b'{"a":' * 10**5, b"\xff\xfe\xfa", b"", b"{", b"1" * 5000, b'{"a": 1}}']
)
def test_what_can_not_be_read_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_json(data)


@pytest.mark.parametrize("value", [True, 1.0, "1", None, [1], -1, 11, 10**400, float("nan")])
def test_a_whole_number_is_within_its_range(value: object) -> None:
    with pytest.raises(ValueError, match=r"is no whole number from 0 to 10$"):
        whole_number(value, 0, 10)
    assert whole_number(10, 0, 10) == 10


@pytest.mark.parametrize("value", [True, 0, -1.5, float("inf"), float("nan"), 10**400, "8", None, {}])
def test_a_rate_is_above_zero_and_finite(value: object) -> None:
    with pytest.raises(ValueError, match=r"is no number above 0$"):
        positive_number(value)
    assert positive_number(8) == 8.0


def test_kinds_are_checked_and_messages_are_short() -> None:
    for read in (mapping, sequence, lambda value: text(value, 3)):
        with pytest.raises(ValueError, match=r"^'x+\u2026 is no ") as caught:
            read("x" * 10**6)
        assert len(str(caught.value)) < 200
    assert shown([[1] * 10**5]) == "a list"


def test_a_newer_version_is_refused_by_both_versions() -> None:
    assert known_version(2, 3, "it") == 2
    with pytest.raises(ValueError, match=r"^it has version 4, this program reads 3; "):
        known_version(4, 3, "it")
    for value in (True, "3", None, 0, 3.0):
        with pytest.raises(ValueError, match="is no whole number"):
            known_version(value, 3, "it")


def test_numbers_that_json_lacks_become_texts_wherever_they_are() -> None:
    value = {"a": [math.inf, (1.5, -math.inf)], "b": {"c": math.nan}, "d": None, "e": True, "f": 1 << 70}
    told = {"a": ["Infinity", [1.5, "-Infinity"]], "b": {"c": "NaN"}, "d": None, "e": True, "f": 1 << 70}
    assert spelled(value) == told
    assert json.loads(json.dumps(spelled(value), allow_nan=False)) == told
