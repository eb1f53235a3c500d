"""``vdm evaluate`` with metrics by name, of finished videos and of those that a small real run samples."""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.cli.conftest import RunVdm
from tests.data.shard_sets import write_set
from vdm.generation.video_files import write_mp4

BOTH = "metric=[static_clips,motion_difference]"
FIELDS = {"value", "protocol", "checksum", "num_videos", "num_reference", "interval", "reliable"}
ONE_LEVEL = 1 / 255
"""What a level of brightness adds to motion; H.264 rounds by at most about one."""
FREE = ("device=cpu", "keep_features=false")


def write_videos(folder: Path, steps: Sequence[int], num_frames: int = 16) -> Path:
    """Write videos whose brightness goes up and down by a step, from frame to frame."""
    folder.mkdir()
    for number, step in enumerate(steps):
        levels = 60 + step * (torch.arange(num_frames) % 2)
        video = levels.to(torch.uint8).view(1, -1, 1, 1).expand(3, -1, 32, 32)
        write_mp4(folder / f"{number}.mp4", video, 8.0)
    return folder


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four videos, of which two stand still, and the others change by 40 and 80 levels a frame."""
    return write_videos(tmp_path_factory.mktemp("finished") / "videos", (0, 0, 40, 80))


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three videos that change by 10 levels a frame on average."""
    return write_videos(tmp_path_factory.mktemp("true") / "reference", (6, 10, 14))


Measured = Callable[..., dict[str, Any]]


@pytest.fixture
def measured(run_vdm: RunVdm, tmp_path: Path) -> Measured:
    """Run ``vdm evaluate``, expect that it succeeds, and return its results."""

    def run(*arguments: str) -> dict[str, Any]:
        code, said = run_vdm("evaluate", *FREE, f"output={tmp_path / 'out'}", *arguments)
        assert code == 0, said
        return json.loads((tmp_path / "out" / "results.json").read_text())

    return run


Refused = Callable[..., str]


@pytest.fixture
def refused(run_vdm: RunVdm) -> Refused:
    """Run ``vdm evaluate``, expect that it is refused as a mistake of the user, and return the one line it says."""

    def run(*arguments: str) -> str:
        code, said = run_vdm("evaluate", *FREE, *arguments)
        assert code == 2, said
        (line,) = [line for line in said.splitlines() if line and "video/s]" not in line]
        return line

    return run


def test_finished_videos_are_measured_by_each_metric(measured: Measured, videos: Path, reference: Path) -> None:
    found = measured(f"videos={videos}", f"reference={reference}", BOTH)["metrics"]
    assert found.keys() == {"static_clips", "motion_difference"}
    for one in found.values():
        assert one.keys() >= FIELDS
        assert one["checksum"] is None
        assert one["reliable"] is True
        low, high = one["interval"]
        assert low < one["value"] < high
        assert one["files"] == {}
        assert one["protocol"]["num_frames"] == 16
        assert one["protocol"]["videos"] == str(videos)
    static, motion = found["static_clips"], found["motion_difference"]
    assert (static["num_videos"], static["num_reference"]) == (4, None)
    assert (motion["num_videos"], motion["num_reference"]) == (4, 3)
    assert static["value"] == 0.5
    assert 0 <= static["interval"][0] < static["interval"][1] <= 1
    assert static["protocol"]["extractor"]["threshold"] == 0.5
    assert motion["value"] == pytest.approx((0 + 0 + 40 + 80) / 4 / 255 - 10 / 255, abs=ONE_LEVEL)


def test_changed_protocol_is_in_the_name_and_applied(measured: Measured, videos: Path) -> None:
    one = ["metric=[static_clips]", "metric.static_clips.num_frames=4", "metric.static_clips.extractor.threshold=60"]
    found = measured(f"videos={videos}", *one)["metrics"]
    assert found.keys() == {"static_clips[extractor.threshold=60,num_frames=4]"}
    (entry,) = found.values()
    assert entry["value"] == 0.75
    assert entry["protocol"]["num_frames"] == 4


def test_how_the_work_is_done_is_not_in_the_name(measured: Measured, videos: Path) -> None:
    same = ["metric.static_clips.num_resamples=0", "metric.static_clips.num_videos=2", "strict=true"]
    found = measured(f"videos={videos}", "metric=[static_clips]", *same)["metrics"]
    (entry,) = found.values()
    assert found.keys() == {"static_clips"}
    assert (entry["value"], entry["num_videos"], entry["interval"]) == (0.5, 2, None)


def test_shard_sets_are_measured_too(measured: Measured, tmp_path: Path) -> None:
    shards = write_set(tmp_path / "shards", {"train": (5,), "validation": (3,)})
    options = [f"videos={shards}", "metric=[static_clips]", "metric.static_clips.num_frames=4"]
    (held_out,) = measured(*options)["metrics"].values()
    (trained,) = measured(*options, "split=train", f"output={tmp_path / 'out'}")["metrics"].values()
    assert (held_out["num_videos"], trained["num_videos"], held_out["value"]) == (3, 5, 0.0)


def test_strict_refuses_too_few_videos(refused: Refused, videos: Path, reference: Path) -> None:
    metric = ["metric=[frechet_transnet]", "metric.frechet_transnet.num_frames=4"]
    said = refused(f"videos={videos}", f"reference={reference}", *metric, "strict=true")
    assert re.fullmatch(
        r"frechet_transnet\[num_frames=4\]: needs \d+ videos on each side to be reliable, and has 3; it is strict", said
    )


def test_strict_refuses_unreadable_videos_which_are_else_left_out(
    refused: Refused, measured: Measured, tmp_path: Path
) -> None:
    folder = write_videos(tmp_path / "videos", (0, 40))
    (folder / "bad.mp4").write_bytes(b"no video")
    options = [f"videos={folder}", "metric=[static_clips]"]
    said = refused(*options, "strict=true", f"output={tmp_path / 'refused'}")
    assert said.startswith("static_clips: is strict, and 1 of the videos can't be looked at: bad: ")
    (found,) = measured(*options)["metrics"].values()
    assert (found["value"], found["num_videos"], found["num_unusable"]) == (0.5, 2, 1)
    assert found["unusable"][0].startswith("bad: ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "checkpoint: no value given; add checkpoint=RUN, or videos=FOLDER for finished videos"),
        ("checkpoint=RUN videos=VIDEOS", "videos=VIDEOS: give either a checkpoint, which samples videos, or videos"),
        ("videos=VIDEOS data_path=SHARDS", "data_path=SHARDS: is for a model; give checkpoint=RUN instead of videos"),
        ("videos=VIDEOS sampler=ddim", "sampler: is for a model; give checkpoint=RUN instead of videos"),
        ("videos=VIDEOS sampler.num_steps=3", "sampler: is for a model; give checkpoint=RUN instead of videos"),
        ("videos=VIDEOS guidance=classifier_free", "guidance: is for a model; give checkpoint=RUN instead of videos"),
        ("videos=VIDEOS guidance_scale=2", "guidance_scale=2.0: is for a model; give checkpoint=RUN instead of videos"),
        ("videos=VIDEOS bits_per_dim=exact", "bits_per_dim: is for a model; give checkpoint=RUN instead of videos"),
        ("videos=nowhere", "videos=nowhere: no such folder; give a folder of videos, or of shards"),
        ("videos=VIDEOS reference=nowhere", "reference=nowhere: no such folder; give a folder of videos, or of shards"),
        ("videos=EMPTY", "videos: EMPTY: no videos in it"),
        ("videos=VIDEOS reference=EMPTY", "reference: EMPTY: no videos in it"),
        (
            "videos=VIDEOS metric=[motion_difference]",
            "motion_difference: compares with other videos; reference=FOLDER names them",
        ),
        (
            "videos=VIDEOS metric=[static_clips] metric.static_clips.num_frames=17",
            "static_clips[num_frames=17]: none of 4 videos can be looked at; the first: 0: has 16 frames; 17 take 17",
        ),
        (
            "videos=VIDEOS reference=VIDEOS metric=[fvd_2048_16f_styleganv]",
            "metric.fvd_2048_16f_styleganv.extractor.path: no value given; add "
            "metric.fvd_2048_16f_styleganv.extractor.path=...",
        ),
        (
            "videos=VIDEOS reference=VIDEOS +metric.fvd_x._target_=vdm.evaluation.metric.Metric "
            "+metric.fvd_x.extractor._target_=vdm.evaluation.extractors.transnet.TransNet "
            "+metric.fvd_x.statistic._target_=vdm.evaluation.statistics.frechet.FrechetDistance "
            "+metric.fvd_x.strict=true",
            "metric: fvd_x: a figure of another extractor must not be called FVD; name it frechet_...",
        ),
    ],
)
def test_bad_wishes_are_one_line(
    refused: Refused, trained: Path, videos: Path, tmp_path: Path, arguments: str, message: str
) -> None:
    (tmp_path / "empty").mkdir()
    places = {"RUN": trained, "VIDEOS": videos, "SHARDS": trained.parent / "shards", "EMPTY": tmp_path / "empty"}
    for word, place in places.items():
        arguments = arguments.replace(f"={word}", f"={place}")
        message = message.replace(f"={word}:", f"={place}:").replace(f" {word}:", f" {place}:")
    assert refused(*arguments.split()) == message


@pytest.mark.parametrize("choice", ["metric=static_clip", "metric=[static_clip]", "metric=[lpips,static_clip]"])
def test_name_that_is_no_metrics_is_told_with_the_nearest(refused: Refused, videos: Path, choice: str) -> None:
    said = refused(f"videos={videos}", choice)
    assert said.startswith("metric=static_clip: no such option: did you mean 'static_clips'? (allowed: clip_text, ")


OF_RUN = ("sampler=ddim", "sampler.num_steps=2", "num_levels=1", "batch_size=2", "prompted_digits=false")


def test_model_samples_once_for_all_metrics_beside_its_loss(
    measured: Measured, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vdm.evaluation.sources import sampled

    made: list[int] = []
    generate = sampled.generate

    def counted(*args: Any, **more: Any) -> torch.Tensor:
        videos = generate(*args, **more)
        made.append(len(videos))
        return videos

    monkeypatch.setattr(sampled, "generate", counted)
    four = ["metric.static_clips.num_frames=4", "metric.motion_difference.num_frames=4"]
    results = measured(f"checkpoint={trained}", BOTH, "num_samples=3", *four, *OF_RUN, "seed=5")
    assert made == [2, 2]
    static, motion = (results["metrics"][f"{name}[num_frames=4]"] for name in ("static_clips", "motion_difference"))
    assert (static["num_videos"], static["num_reference"]) == (3, None)
    assert (motion["num_videos"], motion["num_reference"]) == (3, 3)
    sampling = static["protocol"]["sampling"]
    assert sampling["checkpoint"] == results["checkpoint"]
    assert sampling["sampler"]["num_steps"] == 2
    assert (sampling["ema"], sampling["seed"]) == (True, 5)
    assert "guidance" in sampling
    assert results["held_out_loss"] > 0
    assert results["num_held_out_clips"] == 3
    assert results["options"]["num_samples"] == 3


def test_metric_of_more_frames_than_the_models_clips_is_refused_before_sampling(
    refused: Refused, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vdm.evaluation.sources import sampled

    monkeypatch.setattr(sampled, "generate", lambda *_, **__: pytest.fail("has sampled"))
    said = refused(f"checkpoint={trained}", "metric=[static_clips]", *OF_RUN, f"output={tmp_path / 'out'}")
    assert said == (
        "metric.static_clips: a video of the model has 4 frames; 16 take 16; metric.static_clips.num_frames=4 looks at "
        "all of its frames"
    )


def test_metrics_without_a_figure_are_named_and_the_others_are_written(
    run_vdm: RunVdm, tmp_path: Path, videos: Path, reference: Path
) -> None:
    own = ("metric.frechet_transnet.strict=true", "metric.frechet_transnet.num_frames=4")
    given = (f"videos={videos}", f"reference={reference}", f"output={tmp_path / 'out'}")
    code, said = run_vdm("evaluate", *FREE, *given, "metric=[static_clips,frechet_transnet]", *own)
    assert code == 2
    assert said.splitlines()[-1].startswith("frechet_transnet[num_frames=4]: needs 257 videos on each side")
    assert json.loads((tmp_path / "out" / "results.json").read_text())["metrics"].keys() == {"static_clips"}


@pytest.mark.parametrize(
    "option", ["max_clips=2", "num_samples=2", "ema=false", "num_levels=3", "prompted_digits=false"]
)
def test_options_that_do_nothing_for_finished_videos_are_refused(run_vdm: RunVdm, videos: Path, option: str) -> None:
    code, said = run_vdm("evaluate", f"videos={videos}", "metric=static_clips", option)
    assert (code, said) == (2, f"{option.partition('=')[0]}: does nothing with videos=\n")


def test_a_metric_that_is_null_is_left_out(measured: Measured, videos: Path, reference: Path) -> None:
    found = measured(f"videos={videos}", f"reference={reference}", BOTH, "metric.motion_difference=null")
    assert found["metrics"].keys() == {"static_clips"}


def test_pairs_are_those_of_equal_names(measured: Measured, tmp_path: Path) -> None:
    videos = write_videos(tmp_path / "videos", (0, 20, 40))
    true = write_videos(tmp_path / "true", (0, 20, 40, 60))
    (true / "3.mp4").rename(true / "0-more.mp4")
    found = measured(f"videos={videos}", f"reference={true}", "metric=psnr")["metrics"]["psnr"]
    assert (found["num_videos"], found["value"]) == (3, 100.0)
