"""``vdm sample`` goes on from a video, interpolates it and enlarges it."""

import re
from pathlib import Path

import av
import numpy as np
import pytest

from tests.cli.calling import composed, sampled
from tests.data_pipelines.videos import write_video
from vdm.cli import sample


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of 6 frames of one colour each, of another size than the run's."""
    path = tmp_path_factory.mktemp("film") / "film.mkv"
    return write_video(path, [np.full((40, 50, 3), 40 * n, dtype=np.uint8) for n in range(6)], fps=4)


def grays(frames: np.ndarray) -> list[float]:
    return [float(frame.mean()) for frame in frames]


def fps_of(path: Path) -> float:
    with av.open(str(path)) as container:
        return float(container.streams.video[0].average_rate or 0)


def test_video_is_extended_by_any_number_of_frames(trained: Path, film: Path, tmp_path: Path) -> None:
    options = ["task=extend", f"input={film}", "prompts=[a red dog,a blue cat]", "num_videos=2", "num_frames=11"]
    given = ["input_frames=all", "input_fps=4", "overlap=3"]
    videos = sampled(trained, tmp_path, *options, *given, "guidance_scale=2")
    assert [video.shape for video in videos] == [(11, 16, 32, 3)] * 4
    for video in videos:
        assert grays(video[:6]) == pytest.approx([40 * n for n in range(6)], abs=3)
    assert fps_of(tmp_path / "0000-a-red-dog.mp4") == 4


@pytest.mark.parametrize(
    ("overrides", "num_frames"),
    [
        ("task=extend", 4),
        ("task=extend input_frames=1", 4),
        ("task=extend input_frames=3", 5),
        ("task=extend input_frames=all input_fps=4", 8),
        ("task=extend block_frames=6 overlap=1", 6),
        ("task=interpolate", 11),
        ("task=interpolate every=3", 16),
        ("num_frames=7", 7),
    ],
)
def test_number_of_frames_is_that_asked_for_or_one_that_makes_sense(
    trained: Path, film: Path, tmp_path: Path, overrides: str, num_frames: int
) -> None:
    given = [f"input={film}", "method=replacement"] if "task" in overrides else []
    assert len(sampled(trained, tmp_path, *overrides.split(), *given)[0]) == num_frames


def test_known_frames_may_be_given_clean(trained: Path, film: Path, tmp_path: Path) -> None:
    known = ["task=extend", f"input={film}", "input_frames=all", "input_fps=4"]
    (video,) = sampled(trained, tmp_path, *known, "method=clean_frames")
    assert grays(video[:6]) == pytest.approx([40 * n for n in range(6)], abs=3)


@pytest.mark.parametrize(
    ("overrides", "begins_with"),
    [
        ("", [5, 5]),
        ("overlap=3", [4, 5, 5]),
        ("input_frames=1", [5]),
        ("input_fps=4", [4, 5]),
        ("input_fps=2", [3, 5]),
        ("input_fps=2 input_frames=all", [1, 3, 5]),
        ("from=start input_fps=4", [0, 1]),
        ("from=start input_frames=3", [0, 0, 1]),
    ],
)
def test_video_goes_on_from_the_end_of_the_input_at_the_model_s_rate(
    trained: Path, film: Path, tmp_path: Path, overrides: str, begins_with: list[int]
) -> None:
    """The film has 4 frames a second, the run was trained at 8, and a block knows 2 frames of the one before."""
    options = ["task=extend", f"input={film}", "method=replacement", *overrides.split()]
    (video,) = sampled(trained, tmp_path, *options)
    assert grays(video[: len(begins_with)]) == pytest.approx([40 * n for n in begins_with], abs=3)
    assert len(video) > len(begins_with)
    assert fps_of(tmp_path / "0000.mp4") == next(
        (float(word.removeprefix("input_fps=")) for word in overrides.split() if word.startswith("input_fps")), 8
    )


def test_frames_are_interpolated_at_the_input_s_speed(trained: Path, film: Path, tmp_path: Path) -> None:
    (video,) = sampled(trained, tmp_path, "task=interpolate", f"input={film}", "every=2")
    assert grays(video[::2]) == pytest.approx([40 * n for n in range(6)], abs=3)
    assert fps_of(tmp_path / "0000.mp4") == 8


def test_input_of_another_speed_than_in_training_is_remarked_on(
    trained: Path, film: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The run was trained at 8 frames a second, the film has 4."""
    extend = ["task=extend", f"input={film}", "method=replacement"]
    sampled(trained, tmp_path, *extend)
    sampled(trained, tmp_path, *extend, "input_fps=4")
    assert [record.getMessage() for record in caplog.records if "The input" in record.getMessage()] == [
        "The input has 4 frames a second, fewer than the model's 8, so that some are repeated: input_fps=4 takes each "
        "once",
        "The input's speed makes 4 frames a second, but the model was trained at 8: input_fps=8 takes frames as far "
        "apart as in training",
    ]
    caplog.clear()
    sampled(trained, tmp_path, "task=interpolate", f"input={film}", "method=replacement")
    assert not [record for record in caplog.records if "speed" in record.getMessage()]


def test_video_is_enlarged_in_blocks(trained: Path, tmp_path: Path) -> None:
    small = write_video(tmp_path / "small.mkv", [np.full((4, 8, 3), 100 + 10 * n, np.uint8) for n in range(6)])
    (video,) = sampled(trained, tmp_path / "out", "task=superres", f"input={small}")
    assert video.shape == (6, 16, 32, 3)
    assert grays(video) == pytest.approx([100 + 10 * n for n in range(6)], abs=20)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("task=extend", "task=extend: needs a video, input=FILE"),
        ("task=outpaint", "task=outpaint: no such choice: (allowed: extend, interpolate, superres)"),
        ("task=extent", "task=extent: no such choice: did you mean 'extend'? (allowed: extend, interpolate, superres)"),
        ("FILM", "say what to do with it: task=extend, interpolate or superres"),
        ("task=extend input=nowhere.mp4", "input=nowhere.mp4: no such file"),
        ("task=extend input=pyproject.toml", "input=pyproject.toml: "),
        ("task=extend FILM num_frames=2", "num_frames=2: the input alone has 2"),
        ("task=extend FILM input_frames=some", "input_frames=some: must be a whole number, at least 1"),
        ("task=extend FILM from=middle", "from=middle: no such choice"),
        ("task=superres FILM from=start", "from=start: only task=extend takes frames from one end of its input"),
        ("task=extend FILM overlap=4", "overlap=4: must be at least 1 and below the 4 frames of a block"),
        ("task=extend FILM overlap=0", "overlap=0: must be a whole number, at least 1"),
        ("num_frames=8 block_frames=1", "block_frames=1: must be at least 2"),
        (
            "task=superres FILM method=clean_frames",
            "method=clean_frames: task=superres has no frames that are known as they are",
        ),
        ("task=extend FILM method=magic", "method=magic: no such choice"),
        ("task=extend FILM reconstruction_scale=-1", "reconstruction_scale=-1: must be a number, at least 0"),
        ("task=extend FILM reconstruction_scale=much", "reconstruction_scale=much: must be a number, at least 0"),
        ("task=extend FILM input_fps=0", "input_fps=0: must be a number above 0"),
        ("task=extend FILM input_frames=0", "input_frames=0: must be a whole number, at least 1"),
        ("task=extend FILM image=a.png", "image=a.png: task=extend has its first frame from input"),
        ("task=interpolate FILM every=4", "every=4: must be below the 4 frames of a block"),
        ("task=interpolate FILM every=1", "every=1: must be at least 2"),
        ("task=interpolate FILM num_frames=10", "num_frames=10: the input's 6 frames, 2 apart, need 11"),
        ("task=interpolate FILM input_frames=1", "input: interpolation needs two frames or more"),
        ("task=superres FILM", "input: has frames of 40x50, but must have 16x32 divided by 2 or a greater number"),
        ("task=superres FILM num_frames=3", "num_frames=3: must be that of the input, 6"),
        ("batch_size=0", "batch_size=0: must be a whole number, at least 1"),
        ("guide=nowhere", "nowhere: not a run"),
        ("guide=RUN negative=blurred guidance_scale=2", "negative=blurred: has no effect with an autoguidance model"),
        ("guidance.interval=[2,1]", "guidance: interval must be two rising noise levels >= 0, but is [2.0, 1.0]"),
    ],
)
def test_bad_wish_for_a_video_is_one_line(
    trained: Path, film: Path, tmp_path: Path, overrides: str, message: str
) -> None:
    filled = overrides.replace("FILM", f"input={film}").replace("RUN", str(trained))
    with pytest.raises(ValueError, match=re.escape(message)) as refused:
        sample.run(composed("sample", f"checkpoint={trained}", f"output={tmp_path}", *filled.split()))
    assert "\n" not in str(refused.value)
