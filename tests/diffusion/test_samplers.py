"""Samplers against Gaussian data, whose best denoiser is known, and against diffusers."""

from collections.abc import Callable, Iterator

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from torch import Tensor

from tests.diffusion.latents import random_latents
from vdm.diffusion.denoiser import Denoiser
from vdm.diffusion.parameterizations import X0, Eps, Parameterization, V, per_clip
from vdm.diffusion.samplers import DDIM, DDPM, Sampler
from vdm.diffusion.schedules import Cosine, Linear, NoiseSchedule
from vdm.types import Conditioning

MEAN, DEVIATION = 0.7, 0.5


def _gaussian_denoiser(mean: float, deviation: float) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Return E[x0 | xt] for x0 ~ N(mean, deviation^2): Gaussian conditioning in closed form."""

    def denoise(xt: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        a, s = per_clip(alpha), per_clip(sigma)
        return mean + a * deviation**2 / (a**2 * deviation**2 + s**2) * (xt - a * mean)

    return denoise


def _moments(sampler: Sampler, schedule: NoiseSchedule, mean: float, deviation: float) -> tuple[float, float]:
    """Return mean and variance of what a sampler makes of all noise, exactly.

    With this denoiser samples are linear in the noises, so an impulse in each gives its factor.
    """
    impulses = torch.eye(sampler.num_steps + 2, dtype=torch.float64)[:, :, None, None, None, None]
    samples = sampler(
        _gaussian_denoiser(mean, deviation), impulses[0], schedule, lambda step: impulses[step], None
    ).flatten()
    at_rest = samples[-1]  # its clip has no impulse: row num_steps + 1 is never drawn
    return at_rest.item(), ((samples[:-1] - at_rest) ** 2).sum().item()


SAMPLERS: list[Callable[[int], Sampler]] = [
    lambda steps: DDIM(steps),
    lambda steps: DDIM(steps, eta=0.5),
    lambda steps: DDIM(steps, eta=1.0),
    lambda steps: DDPM(steps, gamma=0.0),
    lambda steps: DDPM(steps, gamma=0.3),
    lambda steps: DDPM(steps, gamma=1.0),
]


@pytest.mark.parametrize("make", SAMPLERS, ids=lambda make: str(make(1)))
@pytest.mark.parametrize("schedule", [Cosine(), Linear()], ids=str)
def test_samples_approach_the_distribution_of_the_data(make: Callable[[int], Sampler], schedule: NoiseSchedule) -> None:
    errors = []
    for num_steps in (40, 320):
        mean, variance = _moments(make(num_steps), schedule, MEAN, DEVIATION)
        errors.append((abs(mean - MEAN), abs(variance - DEVIATION**2)))

    assert errors[1][0] < max(0.01, errors[0][0] / 4)
    assert errors[1][1] < 0.05 * DEVIATION**2
    assert errors[1][1] < errors[0][1] / 4


@pytest.mark.parametrize("sampler", [DDIM(1), DDIM(7, eta=1.0), DDPM(1), DDPM(7)], ids=str)
def test_a_single_possible_clip_is_hit_whatever_the_number_of_steps(sampler: Sampler) -> None:
    mean, variance = _moments(sampler, Cosine(), MEAN, 0.0)

    assert mean == pytest.approx(MEAN, abs=1e-12)
    assert variance == pytest.approx(0, abs=1e-12)


def test_error_of_ddim_halves_with_twice_the_steps() -> None:
    """DDIM is Euler's method in its own variable, of first order (Song et al. 2021, section 4.3).

    The flow carries noise z to mean + deviation z where log-SNR is low enough at t = 1 for xt to be noise alone.
    """
    noise = random_latents("z")
    errors = [
        (
            DDIM(num_steps)(_gaussian_denoiser(MEAN, DEVIATION), noise, Cosine(), lambda step: noise)
            - (MEAN + DEVIATION * noise)
        )
        .abs()
        .max()
        .item()
        for num_steps in (64, 128, 256)
    ]

    assert errors[0] / errors[1] == pytest.approx(2, rel=0.1)
    assert errors[1] / errors[2] == pytest.approx(2, rel=0.1)


def test_forward_variance_is_exact_for_standard_normal_data() -> None:
    """Ho et al. 2020, section 3.2: the variance of the forward step is optimal for x0 ~ N(0, I), in any step size."""
    impulses = torch.eye(8, dtype=torch.float64)[:, :, None, None, None, None]
    best = _gaussian_denoiser(0.0, 1.0)
    variances = []

    def denoise(xt: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        variances.append((xt**2).sum().item())
        return best(xt, alpha, sigma)

    DDPM(7, gamma=1.0)(denoise, impulses[0], Cosine(-10, 10), lambda step: impulses[step])

    assert variances == pytest.approx([1.0] * 7)


@pytest.mark.parametrize("num_steps", [1, 2, 30])
def test_ddim_with_full_noise_is_ddpm_with_posterior_variance(num_steps: int) -> None:
    noise = random_latents("z")
    results = [
        sampler(_gaussian_denoiser(MEAN, DEVIATION), noise, Cosine(), lambda step: random_latents(f"step {step}"), None)
        for sampler in (DDIM(num_steps, eta=1.0), DDPM(num_steps, gamma=0.0))
    ]

    torch.testing.assert_close(results[0], results[1])


PEERS: list[tuple[Parameterization, str]] = [(Eps(), "epsilon"), (X0(), "sample"), (V(), "v_prediction")]
NUM_STEPS = 12


def _network(xt: Tensor, c_noise: Tensor, condition: Conditioning, num_images: int = 0) -> Tensor:
    return torch.tanh(1.3 * xt + 0.2) - 0.1 * xt.mean(dim=2, keepdim=True)


def _noises() -> Iterator[Tensor]:
    """Yield the noises that diffusers draws from this generator."""
    generator = torch.Generator().manual_seed(3)
    while True:
        yield torch.randn(random_latents("z").shape, generator=generator, dtype=torch.float64)


def _ours(sampler: Sampler, parameterization: Parameterization, clip: float | None) -> list[Tensor]:
    """Return the noised latents at each step, then the sample."""
    denoiser, steps, noises = Denoiser(_network, parameterization, clip), [], _noises()

    def denoise(xt: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        steps.append(xt)
        return denoiser(xt, alpha, sigma, Conditioning())

    sample = sampler(denoise, random_latents("z"), Cosine(-10.0, 10.0), lambda step: next(noises), None)
    return [*steps, sample]


def _peer(scheduler: DDIMScheduler | DDPMScheduler, **options: float | bool) -> list[Tensor]:
    times = torch.linspace(0, 1, NUM_STEPS + 1, dtype=torch.float64)
    alpha, _ = Cosine(-10.0, 10.0).alpha_sigma(times)
    scheduler.alphas_cumprod = alpha[1:] ** 2
    scheduler.final_alpha_cumprod = alpha[0] ** 2
    scheduler.set_timesteps(NUM_STEPS)
    generator = torch.Generator().manual_seed(3)
    xt, steps = random_latents("z"), []
    for timestep in scheduler.timesteps:
        steps.append(xt)
        output = scheduler.step(_network(xt, alpha, Conditioning()), int(timestep), xt, generator=generator, **options)
        xt, x0 = output.prev_sample, output.pred_original_sample
    return [*steps, x0]


@pytest.mark.parametrize("clip", [None, 0.8])
@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
@pytest.mark.parametrize(("parameterization", "prediction_type"), PEERS, ids=lambda peer: str(peer))
def test_ddim_equals_that_of_diffusers(
    parameterization: Parameterization, prediction_type: str, eta: float, clip: float | None
) -> None:
    peer = DDIMScheduler(
        NUM_STEPS, prediction_type=prediction_type, clip_sample=clip is not None, clip_sample_range=clip or 1.0
    )

    torch.testing.assert_close(
        _ours(DDIM(NUM_STEPS, eta), parameterization, clip),
        _peer(peer, eta=eta, use_clipped_model_output=clip is not None),
        rtol=1e-5,
        atol=1e-5,
    )


@pytest.mark.parametrize("clip", [None, 0.8])
@pytest.mark.parametrize(("gamma", "variance_type"), [(0.0, "fixed_small"), (1.0, "fixed_large")])
@pytest.mark.parametrize(("parameterization", "prediction_type"), PEERS, ids=lambda peer: str(peer))
def test_ddpm_equals_that_of_diffusers(
    parameterization: Parameterization, prediction_type: str, gamma: float, variance_type: str, clip: float | None
) -> None:
    peer = DDPMScheduler(
        NUM_STEPS,
        prediction_type=prediction_type,
        variance_type=variance_type,
        clip_sample=clip is not None,
        clip_sample_range=clip or 1.0,
    )

    torch.testing.assert_close(_ours(DDPM(NUM_STEPS, gamma), parameterization, clip), _peer(peer), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sampler", [DDIM(5), DDIM(5, eta=1.0), DDPM(5)], ids=str)
def test_each_step_is_reported_once_with_its_denoised_latents(sampler: Sampler) -> None:
    reported: list[tuple[int, Tensor]] = []
    noise = random_latents("z")
    sample = sampler(
        _gaussian_denoiser(MEAN, DEVIATION),
        noise,
        Cosine(),
        lambda step: noise,
        lambda step, x0: reported.append((step, x0)),
    )

    assert [step for step, _ in reported] == [1, 2, 3, 4, 5]
    assert torch.equal(reported[-1][1], sample)


@pytest.mark.parametrize("sampler", [DDIM(250), DDIM(250, eta=1.0), DDPM(250)], ids=str)
def test_fp32_is_close_to_float64_over_many_steps(sampler: Sampler) -> None:
    samples = []
    for dtype in (torch.float32, torch.float64):

        def draw(step: int, dtype: torch.dtype = dtype) -> Tensor:
            return random_latents(f"step {step}").to(dtype)

        denoise = _gaussian_denoiser(MEAN, DEVIATION)
        samples.append(sampler(denoise, random_latents("z").to(dtype), Cosine(), draw, None).double())

    torch.testing.assert_close(samples[0], samples[1], rtol=0, atol=1e-4)


@pytest.mark.parametrize("make", [DDIM, DDPM])
def test_no_steps_are_refused(make: type[DDIM] | type[DDPM]) -> None:
    with pytest.raises(ValueError, match=r"^num_steps must be at least 1, but is 0$"):
        make(0)


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_shares_of_noise_outside_0_to_1_are_refused(share: float) -> None:
    with pytest.raises(ValueError, match=rf"^eta must lie in \[0, 1\], but is {share}$"):
        DDIM(5, share)
    with pytest.raises(ValueError, match=rf"^gamma must lie in \[0, 1\], but is {share}$"):
        DDPM(5, share)
