import math
import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest
from annotated_types import Interval, Len
from omegaconf import OmegaConf

from vdm.outside import MAX_BYTES, dump_yaml, read_json, read_text, read_yaml, typed

VALUES = {
    "numbers": [0, -1, 10**25, 1e-5, 1e300, 1.5, math.inf, -math.inf],
    "texts": ["", "1e-5", ".5", "1_0", "0x10", "012", "12:30", "1:20.5", "+1e5", ".inf", "~", "null", "on", "=", "<<"],
    "dates": ["2024-01-01", "2024-01-01 10:00:00"],
    "other texts": [
        "${a.b}",
        "${oc.env:HOME}",
        "a: b",
        "- a",
        "# a",
        "'",
        '"',
        "ünï \n x",
        "\x1b[0m",
        "\u202e",
        "{",
        "!a",
    ],
    "nested": {"none": None, "flag": True, "empty": {}, "list": []},
    "1": "a text as a key",
}


def test_plain_values_are_the_same_when_read_again(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(dump_yaml(VALUES), encoding="utf-8")
    assert read_yaml(tmp_path / "a.yaml") == VALUES


def test_what_is_written_is_the_same_to_omegaconf(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(dump_yaml(VALUES), encoding="utf-8")
    assert OmegaConf.to_container(OmegaConf.load(tmp_path / "a.yaml"), resolve=False) == VALUES


def test_a_value_that_stands_in_two_places_is_written_twice(tmp_path: Path) -> None:
    shared = {"a": [1]}
    (tmp_path / "a.yaml").write_text(dump_yaml({"x": shared, "y": shared}))
    assert read_yaml(tmp_path / "a.yaml") == {"x": {"a": [1]}, "y": {"a": [1]}}


BOMB = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (BOMB, "anchors and aliases are not read"),
        ("a: &x 1", "anchors and aliases are not read"),
        ("a: !!python/object/apply:os.system ['true']", "the tag .* is not read"),
        ("a: !!binary aGk=", "the tag .* is not read"),
        ("!!python/name:os.system ''", "the tag .* is not read"),
        ("a: " + "[" * 10_000, "nested more than 40 levels deep"),
        ("a: 1\na: 2", "the key 'a' stands there twice"),
        ("true: 1", "the key True is not a text"),
        ("? [a]\n: 1", r"the key \['a'\] is not a text"),
        ("a: [1", "while parsing a flow sequence"),
        ("a: \x00", "control characters are not allowed"),
        ("[1, 2]", "not a configuration"),
        ("", "not a configuration"),
    ],
    ids=lambda value: value[:20],
)
def test_yaml_that_means_more_than_it_says_is_one_line(tmp_path: Path, text: str, reason: str) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    started = time.monotonic()
    with pytest.raises(ValueError, match=rf"^{file}: .*{reason}") as caught:
        read_yaml(file)
    assert "\n" not in str(caught.value)
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 100_000, "can't be read as JSON"),
        ('{"a":' * 50 + "1" + "}" * 50, "nested more than 40 levels deep"),
        ('{"a": NaN}', "NaN is not JSON"),
        ('{"a": 1' + "0" * 5000 + "}", "can't be read as JSON"),
        ("[1]", "holds no JSON object"),
        ('{"a": 1', "can't be read as JSON"),
    ],
    ids=lambda value: value[:20],
)
def test_json_that_is_none_is_one_line(tmp_path: Path, text: str, reason: str) -> None:
    file = tmp_path / "a.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=rf"^{file}: .*{reason}") as caught:
        read_json(file)
    assert "\n" not in str(caught.value)


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('\ufeff{"a": 1}', encoding="utf-8")
    assert read_json(tmp_path / "a.json") == {"a": 1}


def test_files_that_are_none_never_wait_nor_fill_the_memory(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    (tmp_path / "zero").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        (tmp_path / "long").write_bytes(b"a" * (MAX_BYTES + 1))
        (tmp_path / "latin").write_bytes(b"\xe9")
        for name in ("fifo", "folder", "zero", "socket", "long", "latin", "missing"):
            with pytest.raises(ValueError, match=rf"^{tmp_path / name}: ") as caught:
                read_text(tmp_path / name)
            assert "\n" not in str(caught.value)


@dataclass(frozen=True)
class Sizes:
    """Stands for what is read of a configuration."""

    width: Annotated[int, Interval(ge=1, le=100)]
    rate: float = 0.5
    is_wide: bool = False
    levels: Annotated[tuple[int, ...], Len(0, 3)] = ()
    name: str | None = None


def test_known_keys_are_held_to_their_types_and_others_left_out() -> None:
    found = typed(Sizes, {"width": 3, "rate": 1, "levels": [1, 2], "unknown": {"_target_": "os.system"}}, "file")
    assert found == Sizes(3, 1.0, levels=(1, 2))


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({}, "width"),
        ({"width": 0}, "width"),
        ({"width": 10**30}, "width"),
        ({"width": True}, "width"),
        ({"width": "3"}, "width"),
        ({"width": 3.0}, "width"),
        ({"width": {"_target_": "os.system"}}, "width"),
        ({"width": 3, "rate": "1"}, "rate"),
        ({"width": 3, "rate": True}, "rate"),
        ({"width": 3, "is_wide": "no"}, "is_wide"),
        ({"width": 3, "is_wide": 1}, "is_wide"),
        ({"width": 3, "levels": [1] * 4}, "levels"),
        ({"width": 3, "levels": "12"}, "levels"),
        ({"width": 3, "name": ["a"]}, "name"),
    ],
    ids=str,
)
def test_a_value_of_another_kind_is_named_in_one_line(values: dict[str, object], key: str) -> None:
    with pytest.raises(ValueError, match=rf"^file: {key}\b") as caught:
        typed(Sizes, values, "file")
    assert "\n" not in str(caught.value)
