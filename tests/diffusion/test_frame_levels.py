"""How frames share noise levels: draws in training."""

import pytest
import torch
from torch import Tensor

from vdm import randomness
from vdm.diffusion.frame_levels import (
    FrameLevels,
    IndependentFrames,
    KnownFramesClean,
    LevelPerClip,
    Times,
    trained_on_clean_frames,
)
from vdm.diffusion.gaussian import GaussianDiffusion
from vdm.diffusion.loss_weights import Simple
from vdm.diffusion.noise_levels import DiscreteUniform, LogitNormal, NoiseLevels, Uniform
from vdm.diffusion.parameterizations import V
from vdm.diffusion.schedules.cosine import Cosine
from vdm.known_frames import FirstFrames

NUM_FRAMES = 4
POSITIONS = torch.arange(4000)


def _draw(
    frame_levels: FrameLevels,
    noise_levels: NoiseLevels | None = None,
    num_images: int = 0,
    positions: Tensor = POSITIONS,
) -> Times:
    diffusion = GaussianDiffusion(Cosine(), V(), noise_levels or Uniform(), Simple(), frame_levels=frame_levels)
    return diffusion.draw_times(3, positions, 8, (3, NUM_FRAMES + num_images, 8, 8), num_images)


@pytest.mark.parametrize("noise_levels", [Uniform(), DiscreteUniform(), LogitNormal(low_discrepancy=False)], ids=str)
def test_a_level_a_clip_is_drawn_for_the_purpose_of_old_runs(noise_levels: NoiseLevels) -> None:
    positions = POSITIONS[:24]
    if noise_levels.low_discrepancy:
        steps, slots = positions // 8, positions % 8
        u = torch.frac(randomness.uniform(3, "noise level", map(int, steps)) + slots / 8)
    else:
        u = randomness.uniform(3, "noise level", map(int, positions))
    times = _draw(LevelPerClip(), noise_levels, num_images=2, positions=positions)

    assert times.counted is None
    assert torch.equal(times.t, noise_levels.quantile(u, Cosine()))


@pytest.mark.parametrize("low_discrepancy", [True, False])
def test_independent_frames_have_the_distribution_each_and_do_not_depend_on_each_other(low_discrepancy: bool) -> None:
    t = _draw(IndependentFrames(), Uniform(low_discrepancy), num_images=1).t

    assert t.shape == (len(POSITIONS), NUM_FRAMES + 1)
    # Kolmogorov-Smirnov: the distance exceeds 1.95 / sqrt(n) once in a thousand times.
    ideal = (torch.arange(len(POSITIONS))[:, None] + 0.5) / len(POSITIONS)
    assert (t.sort(0).values - ideal).abs().max() < 1.95 / len(POSITIONS) ** 0.5
    assert t.T.corrcoef().fill_diagonal_(0).abs().max() < 4 / (len(POSITIONS) / 8) ** 0.5


def test_independent_frames_are_a_function_of_the_position() -> None:
    whole = _draw(IndependentFrames(), positions=POSITIONS[:16]).t

    assert torch.equal(_draw(IndependentFrames(), positions=POSITIONS[5:7]).t, whole[5:7])


def test_clean_prefixes_have_time_0_and_do_not_count() -> None:
    times = _draw(KnownFramesClean(FirstFrames(2, 2)), num_images=1)
    assert times.counted is not None

    assert not times.t[:, :2].any()
    assert torch.equal(times.counted, torch.tensor([False, False, True, True, True]).expand_as(times.counted))
    assert torch.equal(times.t[:, 2:], _draw(LevelPerClip()).t[:, None].expand(-1, 3))
    torch.testing.assert_close(times.of_clips, _draw(LevelPerClip()).t)


def test_length_of_clean_prefixes_is_uniform_and_leaves_a_frame_to_train() -> None:
    counted = _draw(KnownFramesClean(FirstFrames(1, 6), probability=0.75)).counted
    assert counted is not None
    num_clean = (~counted).sum(1)
    shares = torch.bincount(num_clean, minlength=4) / len(POSITIONS)

    assert torch.equal(counted.int().cummax(1).values, counted.int())  # nothing clean after a noised frame
    # 1 to 6 clean frames are equally likely, but 3 at most fit into 4 frames.
    expected = torch.tensor([0.25, 0.125, 0.125, 0.5])
    assert (shares - expected).abs().max() < 4 * (0.25 / len(POSITIONS)) ** 0.5


def test_frames_after_a_clean_prefix_may_be_independent() -> None:
    independent = _draw(IndependentFrames(), num_images=1).t
    times = _draw(KnownFramesClean(FirstFrames(1, 1), others=IndependentFrames()), num_images=1)

    assert torch.equal(times.t[:, 1:], independent[:, 1:])
    torch.testing.assert_close(times.of_clips, independent[:, 1:].mean(1))


def test_clips_of_one_frame_and_their_images_are_noised() -> None:
    diffusion = GaussianDiffusion(Cosine(), V(), Uniform(), Simple(), frame_levels=KnownFramesClean(FirstFrames(2, 3)))
    counted = diffusion.draw_times(0, POSITIONS[:5], 1, (3, 3, 8, 8), num_images=2).counted

    assert counted is not None
    assert counted.all()


@pytest.mark.parametrize(("least", "most"), [(0, 1), (3, 2)])
def test_lengths_must_be_in_order(least: int, most: int) -> None:
    message = rf"^min_frames and max_frames must be at least 1, .*, but are {least} and {most}$"
    with pytest.raises(ValueError, match=message):
        FirstFrames(least, most)


def test_probability_is_a_share() -> None:
    with pytest.raises(ValueError, match=r"^probability must lie in \[0, 1\], but is 1\.5$"):
        KnownFramesClean(probability=1.5)


@pytest.mark.parametrize(
    ("frame_levels", "clean", "expected"),
    [
        (LevelPerClip(), [0], False),
        (IndependentFrames(), [0, 3], True),
        (KnownFramesClean(FirstFrames(1, 2)), [0, 1], True),
        (KnownFramesClean(FirstFrames(1, 2)), [0, 1, 2], False),
        (KnownFramesClean(FirstFrames(2, 3)), [0], False),
        (KnownFramesClean(FirstFrames(1, 2)), [0, 2], False),
        (KnownFramesClean(FirstFrames(1, 2), others=IndependentFrames()), [0, 2], True),
    ],
    ids=str,
)
def test_which_clean_frames_a_model_has_seen(frame_levels: FrameLevels, clean: list[int], expected: bool) -> None:
    assert trained_on_clean_frames(frame_levels, clean, 4) is expected
