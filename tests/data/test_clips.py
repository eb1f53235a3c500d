from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import interpolate

from tests.data.shard_sets import encode_pixels
from vdm.data.clips import ClipSampling, Cut, speaks_of_sides
from vdm.data.decoding import decode_clip
from vdm.data.shards import Shape

STORED: Shape = (20, 36, 64)


def test_by_default_clips_are_seen_as_they_are_stored() -> None:
    sampling = ClipSampling()
    assert sampling.shape_of(STORED) == STORED
    assert sampling.cut(STORED, STORED, "", 0, 5) == Cut.whole(STORED)


def test_a_clip_goes_to_the_nearest_aspect_ratio_then_the_longest_then_the_largest_that_it_fills() -> None:
    shapes = [(8, 16, 16), (8, 18, 32), (16, 18, 32), (16, 36, 64), (16, 72, 128), (32, 36, 64)]
    sampling = ClipSampling(shapes)
    assert sampling.shape_of((20, 36, 64)) == (16, 36, 64)
    assert sampling.shape_of((20, 35, 63)) == (16, 18, 32)
    assert sampling.shape_of((20, 9, 16)) == (16, 18, 32)  # too small for all: the smallest
    assert sampling.shape_of((15, 360, 640)) == (8, 18, 32)
    assert sampling.shape_of((99, 480, 480)) == (8, 16, 16)
    assert sampling.shape_of((7, 36, 64)) is None


@pytest.mark.parametrize("frame_stride", [1, 2, 3, 4])
def test_frames_have_the_stride_and_any_start(frame_stride: int) -> None:
    shape = (5, 36, 64)
    sampling = ClipSampling([shape], frame_stride, start="random")
    room = STORED[0] - (4 * frame_stride + 1)
    starts = Counter(sampling.cut(STORED, shape, "", 0, p).frames.start for p in range(100 * (room + 1)))
    assert set(starts) == set(range(room + 1))
    assert max(starts.values()) < 150  # of 100 on average, with a standard deviation of 10
    for where, start in (("first", 0), ("center", room // 2)):
        cut = replace(sampling, start=where).cut(STORED, shape, "", 0, 7)
        assert list(cut.frames) == [start + frame_stride * i for i in range(5)]


def test_a_stride_needs_longer_clips() -> None:
    sampling = ClipSampling([(5, 8, 8)], frame_stride=4)
    assert sampling.shape_of((16, 8, 8)) is None
    assert sampling.shape_of((17, 8, 8)) == (5, 8, 8)


def test_crops_cover_the_scaled_frame() -> None:
    shape = (1, 18, 18)
    sampling = ClipSampling([shape], crop="random")
    cuts = [sampling.cut(STORED, shape, "", 0, p) for p in range(500)]
    assert {cut.scaled for cut in cuts} == {(18, 32)}
    assert {(cut.top, cut.left) for cut in cuts} == {(0, left) for left in range(15)}
    assert replace(sampling, crop="center").cut(STORED, shape, "", 0, 0).left == 7


def test_what_is_chosen_is_a_function_of_seed_and_position() -> None:
    sampling = ClipSampling([(4, 9, 9)], crop="random", mirror_fraction=0.5)
    cuts = [sampling.cut(STORED, (4, 9, 9), "", 3, p) for p in range(50)]
    assert [sampling.cut(STORED, (4, 9, 9), "", 3, p) for p in range(50)] == cuts
    assert [sampling.cut(STORED, (4, 9, 9), "", 4, p) for p in range(50)] != cuts


def test_the_share_of_mirrored_clips_is_that_asked_for_and_sides_in_captions_forbid_it() -> None:
    sampling = ClipSampling(mirror_fraction=0.25)
    mirrored = [sampling.cut(STORED, STORED, "a dog in bright light", 0, p).mirrored for p in range(2000)]
    assert sum(mirrored) == pytest.approx(500, abs=4 * (2000 * 0.25 * 0.75) ** 0.5)
    assert not any(sampling.cut(STORED, STORED, "a dog runs to the Left", 0, p).mirrored for p in range(100))
    assert not any(sampling.without_chance().cut(STORED, STORED, "", 0, p).mirrored for p in range(100))


@pytest.mark.parametrize(
    ("caption", "speaks"),
    [
        ("the digit moves to the right", True),
        ("leftmost door", True),
        ("a right-handed player", True),
        ("Turning CLOCKWISE", True),
        ("turns counter-clockwise", True),
        ("walks leftwards", True),
        ("push_left_to_right", True),
        ("SwipeLeft", True),
        ("bright upright cleft", False),
        ("BrightLight_cleft", False),
        ("", False),
    ],
)
def test_words_about_sides_are_known(caption: str, speaks: bool) -> None:
    assert speaks_of_sides(caption) == speaks


def test_a_cut_is_applied_as_tensor_operations_would() -> None:
    ramp = torch.linspace(40, 200, 32).expand(3, 4, 16, 32).to(torch.uint8)  # c t h w, brighter to the right
    data = encode_pixels(ramp)
    whole = decode_clip(data, (4, 16, 32))
    cut = Cut(range(1, 4, 2), (16, 32), top=3, left=5, size=(8, 10))
    expected = whole[:, 1:4:2, 3:11, 5:15]
    assert torch.equal(decode_clip(data, (4, 16, 32), cut), expected)
    assert torch.equal(decode_clip(data, (4, 16, 32), replace(cut, mirrored=True)), expected.flip(-1))
    halved = decode_clip(data, (4, 16, 32), Cut(range(4), (8, 16), 0, 0, (8, 16)))
    peer = interpolate(whole[:, 0].float()[None], size=(8, 16), mode="bicubic", antialias=True)[0]
    assert (halved[:, 0].float() - peer)[:, :, 1:-1].abs().max() <= 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shapes": []}, r"^shapes=\[\]: must be a list of"),
        ({"shapes": [(0, 8, 8)]}, r"^shapes=\[\(0, 8, 8\)\]: must be a list of"),
        ({"frame_stride": 0}, "^frame_stride=0: must be at least 1$"),
        ({"mirror_fraction": 1.5}, "^mirror_fraction=1.5: must lie between 0 and 1$"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClipSampling(**settings)  # type: ignore[arg-type]
