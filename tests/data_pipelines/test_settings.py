import re
from pathlib import Path

import pytest

from data_pipelines.settings import BuildSettings, ClipOptions, ClipSettings
from vdm.config.options import parse


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"clip": {"fps": -1}}, "clip.fps=-1: must be a number above 0, or null"),
        ({"clip": {"height": 33}}, "clip.height=33: must be an even whole number, at least 2"),
        ({"clip": {"num_frames": "many"}}, "clip.num_frames=many: must be a whole number, at least 1"),
        (
            {"clip": {"lenght": 1}},
            "clip.lenght: unknown key: did you mean 'clip.height'? (allowed: fps, height, num_frames, ",
        ),
        ({"validation_fraction": 1.0}, "validation_fraction=1.0: must be a number, at least 0 and below 1"),
        (
            {"output": "s3://bucket/set"},
            "output=s3://bucket/set: must be a path of this machine or of a file system th",
        ),
        ({"input": "https://host/videos"}, "input=https://host/videos: must be a path of this machine or of a file"),
        ({"num_workers": -1}, "num_workers=-1: must be a whole number, at least 0 and at most 1024, or null"),
    ],
)
def test_mistake_is_one_line_with_key_and_value(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        parse(BuildSettings, {"input": "a", "output": "b", **values})

    assert "\n" not in str(error.value)


def test_what_is_not_given_is_by_kind_of_input() -> None:
    videos = parse(BuildSettings, {"input": "a", "output": "b", "clip": {"fps": 4, "width": None}})
    digits = parse(BuildSettings, {"input": "moving_digits", "output": "b"})

    assert videos.resolved_clip() == ClipSettings(16, 4, 64, 64, stride_seconds=4)
    assert digits.resolved_clip() == ClipSettings(8, 8, 32, 32, stride_seconds=1)
    assert videos.output == Path("b")


def test_stride_is_the_length_of_a_clip_unless_given() -> None:
    assert ClipOptions(num_frames=10).resolve(1, 5, 2, 2).stride_seconds == 2
    assert ClipOptions(stride_seconds=0.5).resolve(1, 5, 2, 2).stride_seconds == 0.5
