from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.diffusion.latents import levels, random_latents
from vdm.diffusion.denoiser import Denoise, Denoised
from vdm.diffusion.guidance import Extrapolation
from vdm.diffusion.parameterizations import X0, Eps, Parameterization, V
from vdm.diffusion.shapes import over_latents

ON, OFF, XT, SHARE = (random_latents(name) for name in ("on", "off", "xt", "share"))


class Saying:
    """A denoising function that always says the same and counts how often."""

    def __init__(self, x0: Tensor, share: Tensor | None = None) -> None:
        self.denoised, self.num_calls = Denoised(x0, share), 0

    def __call__(self, xt: Tensor, alpha: Tensor, sigma: Tensor) -> Denoised:
        self.num_calls += 1
        return self.denoised


def _guided(guidance: Extrapolation) -> Tensor:
    return guidance(Saying(ON), Saying(OFF))(XT, *levels()).x0


def test_scale_1_is_the_strong_model_and_scale_0_the_weak_one() -> None:
    assert torch.equal(_guided(Extrapolation(1.0)), ON)
    assert torch.equal(_guided(Extrapolation(0.0)), OFF)


@pytest.mark.parametrize("scale", [-1.0, 0.5, 3.0, 7.5])
def test_guidance_goes_from_the_weak_prediction_through_the_strong_one(scale: float) -> None:
    torch.testing.assert_close(_guided(Extrapolation(scale)), OFF + scale * (ON - OFF))


@pytest.mark.parametrize("parameterization", [Eps(), V()], ids=str)
def test_guiding_x0_is_guiding_what_the_network_predicts(parameterization: Parameterization) -> None:
    """Ho & Salimans 2022, eq. 6 with (1 + w) = scale: eps = (1 + w) eps_cond - w eps_uncond."""
    scale, (alpha, sigma) = 4.0, levels()

    def denoising(prediction: Tensor) -> Denoise:
        return Saying(parameterization.x0(prediction, XT, alpha, sigma))

    guided = Extrapolation(scale)(denoising(ON), denoising(OFF))(XT, alpha, sigma)

    torch.testing.assert_close(guided.x0, parameterization.x0(scale * ON - (scale - 1) * OFF, XT, alpha, sigma))


@pytest.mark.parametrize(("scale", "calls"), [(1.0, (1, 0)), (0.0, (0, 1)), (2.0, (1, 1))])
def test_only_the_models_that_matter_are_called(scale: float, calls: tuple[int, int]) -> None:
    strong, weak = Saying(ON), Saying(OFF)
    Extrapolation(scale)(strong, weak)(XT, *levels())

    assert (strong.num_calls, weak.num_calls) == calls


@pytest.mark.parametrize("guidance", [Extrapolation(3.0), Extrapolation(3.0, interval=(0.0, 1e-9))], ids=str)
def test_what_the_strong_model_says_of_variance_is_kept(guidance: Extrapolation) -> None:
    denoised = guidance(Saying(ON, SHARE), Saying(OFF))(XT, *levels())

    assert denoised.variance_share is SHARE


def test_each_clip_is_guided_where_its_noise_level_lies_in_the_interval() -> None:
    """Kynkäänniemi et al. 2024, eq. 6: above the lower bound, up to the upper one, in sigma of alpha = 1."""
    noise_levels = torch.tensor([0.1, 0.28, 0.5, 5.42, 80.0], dtype=torch.float64)
    alpha = torch.tensor([1.0, 0.5, 0.1, 1.0, 1e-3], dtype=torch.float64)
    denoise = Extrapolation(3.0, interval=(0.28, 5.42))(Saying(ON), Saying(OFF))
    x0 = denoise(XT, alpha, noise_levels * alpha).x0

    for clip, guided in enumerate([False, False, True, True, False]):
        torch.testing.assert_close(x0[clip], OFF[clip] + 3 * (ON - OFF)[clip] if guided else ON[clip])


@pytest.mark.parametrize(("noise_level", "calls"), [(0.1, 0), (1.0, 1), (10.0, 0), (float("inf"), 0)])
def test_outside_of_the_interval_the_weak_model_is_not_called(noise_level: float, calls: int) -> None:
    weak = Saying(OFF)
    alpha = torch.full((5,), 0.0 if noise_level == float("inf") else 1.0, dtype=torch.float64)
    sigma = torch.full_like(alpha, min(noise_level, 100.0))
    Extrapolation(3.0, interval=(0.28, 5.42))(Saying(ON), weak)(XT, alpha, sigma)

    assert weak.num_calls == calls


def test_scale_changes_linearly_over_frames() -> None:
    """Stable Video Diffusion: from 1 at the first frame to 3 at the last; here of three frames."""
    x0 = _guided(Extrapolation(3.0, first_scale=1.0))

    for frame, scale in enumerate([1.0, 2.0, 3.0]):
        torch.testing.assert_close(x0[:, :, frame], (OFF + scale * (ON - OFF))[:, :, frame])


def test_last_frame_alone_may_be_unguided() -> None:
    x0 = _guided(Extrapolation(1.0, first_scale=2.0))

    torch.testing.assert_close(x0[:, :, 0], (2 * ON - OFF)[:, :, 0])
    torch.testing.assert_close(x0[:, :, 2], ON[:, :, 2])


@pytest.mark.parametrize("of", [Eps, X0, V], ids=lambda make: make.__name__)
@pytest.mark.parametrize("phi", [0.7, 1.0])
def test_rescaling_is_that_of_v_whatever_is_predicted(phi: float, of: Callable[[], Parameterization]) -> None:
    """Lin et al. 2023, eq. 14 to 16, in the words of the paper: positive, negative, cfg, rescaled."""
    scale, (alpha, sigma) = 7.5, levels()
    skip, out = over_latents(V().c_skip(alpha, sigma)), over_latents(V().c_out(alpha, sigma))
    positive, negative = (of().x0(prediction, XT, alpha, sigma) for prediction in (ON, OFF))
    v_positive, v_negative = ((x0 - skip * XT) / out for x0 in (positive, negative))
    v_cfg = v_negative + scale * (v_positive - v_negative)
    rescaled = v_cfg * v_positive.std((1, 2, 3, 4), keepdim=True) / v_cfg.std((1, 2, 3, 4), keepdim=True)
    final = phi * rescaled + (1 - phi) * v_cfg

    guided = Extrapolation(scale, rescale=phi)(Saying(positive), Saying(negative))(XT, alpha, sigma)

    torch.testing.assert_close(guided.x0, V().x0(final, XT, alpha, sigma))


def test_wholly_rescaled_pure_noise_is_denoised_to_the_strong_contrast() -> None:
    alpha, sigma = torch.zeros(5, dtype=torch.float64), torch.ones(5, dtype=torch.float64)
    x0 = Extrapolation(9.0, rescale=1.0)(Saying(ON), Saying(OFF))(XT, alpha, sigma).x0

    torch.testing.assert_close(x0.flatten(1).std(1), ON.flatten(1).std(1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"interval": (1.0, 0.5)}, r"interval must be two rising noise levels >= 0, but is \[1\.0, 0\.5\]"),
        ({"interval": (-1.0, 0.5)}, r"interval must be two rising noise levels"),
        ({"rescale": 1.5}, r"rescale must lie in \[0, 1\], but is 1\.5"),
    ],
)
def test_impossible_guidance_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        Extrapolation(2.0, **options)
