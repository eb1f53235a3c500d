"""Measuring of videos by metrics: what is read, described, refused and said."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import pytest
import torch
from torch import Tensor

from vdm.evaluation.base import EvaluatedClip, Features
from vdm.evaluation.clip_rule import ClipRule
from vdm.evaluation.feature_cache import FeatureCache
from vdm.evaluation.measure import NamedMetric, measure, num_videos_read
from vdm.evaluation.metric import Metric
from vdm.evaluation.sources.base import Block, UnusableClip, Views, view
from vdm.evaluation.statistics.frechet import FrechetDistance
from vdm.evaluation.statistics.mean import Mean, MeanDifference


@dataclass
class Numbers:
    """A source of clips whose brightness is drawn from a normal distribution."""

    num_videos: int
    mean: float
    name: str = "numbers"
    identity: str | None = None
    block_size: int = 3
    bad: Collection[int] = ()
    is_unreadable: bool = False
    sizes: Sequence[int] = (8,)
    num_read: int = 0

    def __len__(self) -> int:
        return self.num_videos

    def views(self, blocks: Sequence[Block], rules: Collection[ClipRule]) -> Iterator[tuple[int, Views]]:
        for number in (number for block in blocks for number in block):
            self.num_read += 1
            if number in self.bad:
                yield number, dict.fromkeys(rules, UnusableClip(str(number), "is bad", self.is_unreadable))
                continue
            generator = torch.Generator().manual_seed(number)
            size = self.sizes[number % len(self.sizes)]
            level = self.mean + 20 * torch.randn(3, 1, 1, 1, generator=generator)
            video = level.clamp(0, 255).to(torch.uint8).expand(3, 4, size, size)
            yield number, {rule: view(video, rule, str(number), 8.0) for rule in rules}


@dataclass
class MeanColor:
    """Describes a clip by its mean colour."""

    checksum: str | None = "abc"
    files: Mapping[str, str] = field(default_factory=dict)
    batch_size: int = 4
    batches: list[tuple[int, ...]] = field(default_factory=list)

    def to(self, device: torch.device) -> "MeanColor":
        return self

    def describe(self, clips: Sequence[EvaluatedClip]) -> Features:
        self.batches.append(tuple(clip.video.shape[-1] for clip in clips))
        return torch.stack([clip.video.float().mean((1, 2, 3)) for clip in clips])[:, None]


class Brightness(MeanColor):
    """Describes a clip by one number."""

    def describe(self, clips: Sequence[EvaluatedClip]) -> Features:
        return super().describe(clips).mean(2, keepdim=True)


class Difference:
    """Compares brightness with that of the true clip."""

    checksum = None
    files: Mapping[str, str] = MappingProxyType({})
    batch_size = 4

    def to(self, device: torch.device) -> "Difference":
        return self

    def compare(self, clips: Sequence[EvaluatedClip], truth: Sequence[EvaluatedClip]) -> Features:
        pairs = zip(clips, truth, strict=True)
        return torch.stack([(a.video.float() - b.video.float()).mean().view(1, 1) for a, b in pairs])


def named(metric: Metric) -> NamedMetric:
    return NamedMetric("m", metric, {"extractor": {"_target_": "MeanColor"}, "num_frames": metric.num_frames})


def colors(source: Numbers) -> Tensor:
    rule = ClipRule(2)
    clips = [views[rule] for _, views in source.views([range(len(source))], [rule])]
    return MeanColor().describe([clip for clip in clips if isinstance(clip, EvaluatedClip)])


def test_a_distance_is_that_of_the_descriptions_of_all_clips() -> None:
    videos, reference = Numbers(10, 100.0), Numbers(14, 130.0)
    metric = named(Metric(MeanColor(), FrechetDistance(), num_frames=2))
    found = measure({"frechet": metric}, videos, reference).whole()["frechet"]
    assert found.value == pytest.approx(FrechetDistance().value(colors(videos), colors(reference)), rel=1e-12)
    assert (found.num_videos, found.num_reference, found.checksum) == (10, 14, "abc")
    assert found.interval is not None
    assert found.interval[0] < found.value < found.interval[1]
    assert found.reliable


def test_videos_are_read_once_whatever_the_number_of_metrics() -> None:
    videos, reference = Numbers(9, 100.0), Numbers(9, 100.0)
    metrics = {
        "a": named(Metric(MeanColor(), FrechetDistance(), num_frames=2)),
        "b": named(Metric(Brightness(), Mean(), num_frames=3, num_videos=5)),
    }
    found = measure(metrics, videos, reference).whole()
    assert (videos.num_read, reference.num_read) == (9, 9)
    assert num_videos_read(metrics, videos, reference) == 18
    assert (found["a"].num_videos, found["b"].num_videos, found["b"].num_reference) == (9, 5, None)


def test_extractors_see_every_clip_once_a_batch_at_a_time() -> None:
    extractor = Brightness()
    videos = Numbers(10, 100.0, sizes=(8, 8, 16))
    found = measure({"mean": named(Metric(extractor, Mean(), num_frames=2))}, videos, None).whole()["mean"]
    assert list(map(len, extractor.batches)) == [4, 4, 2]
    equal = measure({"mean": named(Metric(Brightness(), Mean(), num_frames=2))}, Numbers(10, 100.0), None).whole()[
        "mean"
    ]
    assert found.value == pytest.approx(equal.value, abs=1e-4)


def test_videos_alone_are_reversed() -> None:
    class FirstFrame(Brightness):
        def describe(self, clips: Sequence[EvaluatedClip]) -> Features:
            return torch.stack([clip.video[:, 0].float().mean().view(1, 1) for clip in clips])

    class Brightening(Numbers):
        def views(self, blocks: Sequence[Block], rules: Collection[ClipRule]) -> Iterator[tuple[int, Views]]:
            levels = torch.tensor([10, 20, 30, 40], dtype=torch.uint8).view(1, 4, 1, 1).expand(3, 4, 8, 8)
            for number in (number for block in blocks for number in block):
                yield number, {rule: view(levels, rule, str(number), 8.0) for rule in rules}

    metric = named(Metric(FirstFrame(), MeanDifference(), num_frames=3, reverse=True))
    assert measure({"m": metric}, Brightening(4, 0.0), Brightening(4, 0.0)).whole()["m"].value == 30.0 - 10.0


def test_pairs_are_compared_number_by_number() -> None:
    metric = named(Metric(Difference(), Mean(), num_frames=2))
    found = measure({"difference": metric}, Numbers(6, 100.0), None, Numbers(6, 90.0)).whole()["difference"]
    assert found.value == pytest.approx(10.0, abs=0.5)


@pytest.mark.parametrize("strict", [False, True])
def test_bad_videos_are_listed_or_refused(strict: bool, caplog: pytest.LogCaptureFixture) -> None:
    metric = named(Metric(Brightness(), Mean(), num_frames=2, strict=strict))
    videos = Numbers(6, 100.0, bad=(1, 4))
    if strict:
        with pytest.raises(ValueError, match=r"^m: is strict, and 2 of the videos can't be looked at: 1: is bad$"):
            measure({"m": metric}, videos, None).whole()
        return
    found = measure({"m": metric}, videos, None).whole()["m"]
    assert (found.num_videos, found.num_unusable, found.unusable) == (4, 2, ("1: is bad", "4: is bad"))
    assert caplog.messages == ["m: 2 of the videos can't be looked at and are left out: 1: is bad"]


def test_a_figure_of_too_few_videos_is_not_reliable_or_refused(caplog: pytest.LogCaptureFixture) -> None:
    def metric(strict: bool) -> NamedMetric:
        return named(Metric(MeanColor(), FrechetDistance(), num_frames=2, strict=strict))

    few, many = Numbers(3, 100.0), Numbers(9, 100.0)
    found = measure({"m": metric(strict=False)}, few, many).whole()["m"]
    assert not found.reliable
    needed = FrechetDistance().min_clips(3)
    assert caplog.messages == [f"m: needs {needed} videos on each side to be reliable, and has 3"]
    with pytest.raises(ValueError, match=rf"^m: needs {needed} videos on each side .* has 3; it is strict$"):
        measure({"m": metric(strict=True)}, few, many).whole()


@pytest.mark.parametrize(
    ("metric", "videos", "reference", "message"),
    [
        (Metric(MeanColor(), FrechetDistance()), 9, None, "m: compares with other videos; reference=FOLDER names them"),
        (Metric(Brightness(), Mean(), num_videos=10), 9, None, "m: takes 10 videos, but numbers has 9"),
        (
            Metric(MeanColor(), FrechetDistance(), num_reference=10),
            9,
            9,
            "m: takes 10 reference videos, but numbers has 9",
        ),
        (Metric(Difference(), Mean()), 9, 8, "m: compares each of 9 videos with a true one, but numbers has 8"),
        (
            Metric(Brightness(), Mean(), num_frames=5),
            9,
            None,
            "m: none of 9 videos can be looked at; the first: 0: has 4 ",
        ),
    ],
)
def test_sources_that_do_not_fit_the_protocol_are_one_line(
    metric: Metric, videos: int, reference: int | None, message: str
) -> None:
    true = None if reference is None else Numbers(reference, 100.0)
    with pytest.raises(ValueError, match=f"^{message}"):
        measure({"m": named(metric)}, Numbers(videos, 100.0), true, true).whole()


def test_true_clips_are_read_only_for_metrics_that_compare_with_them() -> None:
    metrics = {
        "pairs": named(Metric(Difference(), Mean(), num_frames=2, num_videos=3)),
        "mean": named(Metric(Brightness(), Mean(), num_frames=2)),
    }
    truth = Numbers(3, 90.0)
    found = measure(metrics, Numbers(8, 100.0), None, truth).whole()
    assert (found["pairs"].num_videos, found["mean"].num_videos, truth.num_read) == (3, 8, 3)


def test_a_metric_without_a_figure_leaves_the_others_theirs() -> None:
    class Refusing(Brightness):
        def describe(self, clips: Sequence[EvaluatedClip]) -> Features:
            return super().describe(clips) * float("nan")

    metrics = {
        "strict": named(Metric(MeanColor(), FrechetDistance(), num_frames=2, strict=True)),
        "nan": named(Metric(Refusing(), Mean(), num_frames=2)),
        "good": named(Metric(Brightness(), Mean(), num_frames=2)),
    }
    measured = measure(metrics, Numbers(3, 100.0), Numbers(3, 100.0))
    assert list(measured.found) == ["good"]
    assert {name: message.partition(":")[0] for name, message in measured.failed.items()} == {
        "strict": "strict",
        "nan": "nan",
    }


def test_descriptions_of_a_reference_are_kept_by_its_content(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    metric = named(Metric(MeanColor(), FrechetDistance(), num_frames=2))
    reference = Numbers(9, 130.0, identity="content")
    first = measure({"m": metric}, Numbers(9, 100.0), reference, cache=cache).whole()["m"]
    again = Numbers(9, 130.0, identity="content")
    assert measure({"m": metric}, Numbers(9, 100.0), again, cache=cache).whole()["m"] == first
    assert again.num_read == 0
    others = (
        (metric, Numbers(9, 130.0, identity="other")),
        (named(Metric(MeanColor(), FrechetDistance(), num_frames=3)), Numbers(9, 130.0, identity="content")),
        (
            named(Metric(MeanColor("other weights"), FrechetDistance(), num_frames=2)),
            Numbers(9, 130.0, identity="content"),
        ),
        (
            named(Metric(MeanColor(files={"rule.json": "other"}), FrechetDistance(), num_frames=2)),
            Numbers(9, 130.0, identity="content"),
        ),
        (metric, Numbers(9, 130.0, identity=None)),
    )
    for other, source in others:
        measure({"m": other}, Numbers(9, 100.0), source, cache=cache).whole()
        assert source.num_read == 9


def test_unusable_reference_videos_are_kept_and_said_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache, metric = FeatureCache(tmp_path), named(Metric(MeanColor(), FrechetDistance(), num_frames=2))
    videos = Numbers(9, 100.0)
    first = measure({"m": metric}, videos, Numbers(9, 130.0, "n", "content", bad=(2, 5)), cache=cache).whole()["m"]
    assert (first.num_reference, first.unusable) == (7, ("2: is bad", "5: is bad"))
    said = list(caplog.messages)
    again = Numbers(9, 130.0, "n", "content", bad=(2, 5))
    assert measure({"m": metric}, videos, again, cache=cache).whole()["m"] == first
    assert again.num_read == 0
    assert caplog.messages == 2 * said
    strict = named(Metric(MeanColor(), FrechetDistance(), num_frames=2, strict=True))
    with pytest.raises(ValueError, match=r"^m: is strict, and 2 of the videos can't be looked at: 2: is bad$"):
        measure({"m": strict}, videos, again, cache=cache).whole()


def test_reference_video_that_could_not_be_read_is_tried_again(tmp_path: Path) -> None:
    def reference(bad: Collection[int]) -> Numbers:
        return Numbers(9, 130.0, identity="content", bad=bad, is_unreadable=True)

    cache, metric = FeatureCache(tmp_path), named(Metric(MeanColor(), FrechetDistance(), num_frames=2))
    measure({"m": metric}, Numbers(9, 100.0), reference((2, 5)), cache=cache).whole()
    still, repaired, kept = reference((2, 5)), reference((2,)), reference((2,))
    found = [
        measure({"m": metric}, Numbers(9, 100.0), one, cache=cache).whole()["m"] for one in (still, repaired, kept)
    ]
    assert [one.num_reference for one in found] == [7, 8, 8]
    assert (still.num_read, repaired.num_read, kept.num_read) == (2, 2 + 9, 1)


def test_damaged_kept_descriptions_are_made_again(tmp_path: Path) -> None:
    cache, metric = FeatureCache(tmp_path), named(Metric(MeanColor(), FrechetDistance(), num_frames=2))
    first = measure({"m": metric}, Numbers(9, 100.0), Numbers(9, 130.0, identity="content"), cache=cache).whole()["m"]
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-8])
    again = Numbers(9, 130.0, identity="content")
    assert measure({"m": metric}, Numbers(9, 100.0), again, cache=cache).whole()["m"] == first
    assert again.num_read == 9


@pytest.mark.parametrize("strict", [False, True])
def test_the_name_fvd_is_that_of_its_own_networks(strict: bool) -> None:
    metric = Metric(MeanColor(), FrechetDistance(), strict=strict)
    metric.check_name("frechet_color")
    with pytest.raises(ValueError, match=r"^fvd_x: a figure of another extractor must not be called FVD"):
        metric.check_name("fvd_x")
    with pytest.raises(ValueError, match="must not be called FVD"):
        metric.check_name("my_FVD")
    published = MeanColor()
    published.is_of_fvd = True  # pyright: ignore[reportAttributeAccessIssue]
    own = Metric(published, FrechetDistance(), strict=strict)
    if strict:
        own.check_name("fvd_x")
    else:
        with pytest.raises(ValueError, match=r"^fvd_x: is always strict"):
            own.check_name("fvd_x")
