import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Len, MinLen

from vdm.config import ConfigError
from vdm.config.options import (
    MAY_BE_ABSENT,
    Caption,
    Component,
    FolderName,
    Name,
    PlainPath,
    check_given,
    options_of,
    parse,
)
from vdm.config.words import Described, described
from vdm.ranges import Count, NotNegative, Positive, Seed, Share, ShareBelowOne, Size


@dataclass(frozen=True)
class Clip:
    height: Size | None
    fps: Positive


@dataclass(frozen=True, kw_only=True)
class Options:
    source: PlainPath = field(metadata={"key": "from"})
    name: FolderName
    count: Count
    scale: float | None
    clip: Clip
    kind: Literal["fast", "slow"] | None
    ema: bool | Name
    is_safe: bool
    prompts: Caption | Annotated[list[Caption], MinLen(1), Described("a list of one or more texts")] | None
    shape: Annotated[list[Size], Len(2, 2), Described("[height, width]")]
    part: Component | None = field(default=None, metadata=MAY_BE_ABSENT)


VALUES: dict[str, Any] = {
    "from": "a/b",
    "name": "run",
    "count": 3,
    "scale": 1,
    "clip": {"height": None, "fps": 8},
    "kind": None,
    "ema": True,
    "is_safe": False,
    "prompts": ["a dog"],
    "shape": [4, 8],
}


def test_plain_values_become_a_typed_object() -> None:
    found = parse(Options, VALUES)
    assert found == Options(
        source=Path("a/b"),
        name="run",
        count=3,
        scale=1.0,
        clip=Clip(None, 8.0),
        kind=None,
        ema=True,
        is_safe=False,
        prompts=["a dog"],
        shape=[4, 8],
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": True}, "count=true: must be a whole number, at least 1"),
        ({"count": 1.0}, "count=1.0: must be a whole number, at least 1"),
        ({"count": "3"}, "count='3': must be a whole number, at least 1"),
        ({"count": 10**400}, f"count=1{'0' * 99}...: must be a whole number, at least 1 and at most 1000000000000"),
        ({"scale": math.nan}, "scale=nan: must be a number, or null"),
        ({"scale": -math.inf}, "scale=-inf: must be a number, or null"),
        ({"is_safe": "no"}, "is_safe=no: must be true or false"),
        ({"is_safe": 1}, "is_safe=1: must be true or false"),
        ({"is_safe": None}, "is_safe=null: must be true or false"),
        ({"is_safe": "false"}, "is_safe='false': must be true or false"),
        ({"kind": "fats"}, "kind=fats: no such choice: did you mean 'fast'? (allowed: fast, slow)"),
        ({"kind": 3}, "kind=3: must be fast or slow, or null"),
        ({"clip": 3}, "clip=3: must be a mapping with the keys height, fps"),
        ({"clip": {"height": 0, "fps": 1}}, "clip.height=0: must be a whole number, at least 1 and at most 1000000"),
        (
            {"clip": {"heigth": 1, "fps": 1}},
            "clip.heigth: unknown key: did you mean 'clip.height'? (allowed: fps, height)",
        ),
        ({"clip": {"height": 1}}, "clip.fps: no value given; add clip.fps=..."),
        ({"from": 7}, "from=7: must be a path; a text that reads as something else needs quotes: \"from='7'\""),
        ({"from": ""}, "from=: must not be empty"),
        ({"from": "a\0b"}, "from=a\0b: has a character of code 0"),
        ({"from": "x" * 300}, f"from={'x' * 100}...: is longer than paths can be"),
        ({"from": ["a"]}, "from=['a']: must be a path"),
        ({"name": "a/b"}, "name=a/b: must be the name of a folder"),
        ({"name": ".."}, "name=..: must be the name of a folder"),
        ({"name": ""}, "name=: must be the name of a folder"),
        ({"name": "a\nb"}, "name=a\nb: must be the name of a folder"),
        ({"ema": 5}, "ema=5: must be true, false or text; a text that reads as"),
        ({"prompts": 7}, "prompts=7: must be text or a list of one or more texts, or null; a text that reads as"),
        ({"prompts": ["a", 7]}, "texts that read as something else need quotes: \"prompts=['a','7']\""),
        ({"prompts": []}, "prompts=[]: must be text or a list of one or more texts, or null"),
        ({"prompts": {"a": 1}}, "prompts={'a': 1}: must be text or a list of one or more texts, or null"),
        ({"shape": [4]}, "shape=[4]: must be [height, width]"),
        ({"shape": [4, 0]}, "shape=[4, 0]: must be [height, width]"),
        ({"part": 3}, "part=3: must be a mapping that describes a component, or null"),
        ({"count_": 1}, "count_: unknown key: did you mean 'count'?"),
    ],
)
def test_wrong_value_is_told_with_key_value_and_what_is_allowed(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse(Options, VALUES | values)
    assert message in str(refused.value)


def test_what_is_not_known_yet_passes_an_early_check() -> None:
    pending = {"from": "???", "count": "${seed}", "shape": [4, "${size}"], "clip": {"height": "${size}", "fps": "???"}}
    check_given(Options, VALUES | pending)
    with pytest.raises(ConfigError, match=r"clip\.height=0: must be"):
        check_given(Options, VALUES | {"clip": {"height": 0, "fps": "???"}})


def test_option_can_not_be_deleted_unless_a_group_brings_it() -> None:
    check_given(Options, VALUES)
    without = {key: value for key, value in VALUES.items() if key != "count"}
    with pytest.raises(ConfigError, match="count: is deleted"):
        check_given(Options, without)


def test_options_have_dotted_keys_and_the_plain_types_they_take() -> None:
    kinds = {option.key: option.kinds for option in options_of(Options)}
    assert kinds["clip.height"] == {int, type(None)}
    assert kinds["from"] == {Path}
    assert kinds["prompts"] == {str, list, type(None)}
    assert [option.key for option in options_of(Options) if option.is_component] == ["part"]


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (Count | None, "a whole number, at least 1, or null"),
        (Seed, "a whole number, at least 0"),
        (NotNegative, "a number, at least 0"),
        (Positive, "a number above 0"),
        (Share, "a number, at least 0 and at most 1"),
        (ShareBelowOne, "a number, at least 0 and below 1"),
        (Literal["auto"] | bool, "auto, true or false"),
        (Literal["a", "b"] | None, "a or b, or null"),
        (list[Size], "a list, of each a whole number, at least 1 and at most 1000000"),
        (bool | str | None, "true, false or text, or null"),
    ],
)
def test_annotation_is_put_into_words(annotation: Any, words: str) -> None:
    assert described(annotation) == words
