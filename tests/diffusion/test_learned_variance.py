import math

import pytest
import torch
from diffusers import DDPMScheduler
from torch import Tensor

from tests.diffusion.latents import random_latents
from vdm.diffusion.denoiser import Denoised, Denoiser
from vdm.diffusion.gaussian import GaussianDiffusion
from vdm.diffusion.guidance import Extrapolation
from vdm.diffusion.learned_variance import LearnedVariance
from vdm.diffusion.loss_weights import Simple
from vdm.diffusion.noise_levels import DiscreteUniform
from vdm.diffusion.parameterizations import X0, Eps
from vdm.diffusion.samplers.ddpm import DDPM
from vdm.diffusion.schedules.discrete import LinearBetas
from vdm.diffusion.variational_bound import density_term, pixel_term, step_term
from vdm.types import Conditioning

T = 1000
SCHEDULE = LinearBetas(T)
TIMESTEPS = torch.tensor([1.0, 2.0, 17.0, 500.0, 1000.0])


def _diffusion(learned_variance: LearnedVariance | None, parameterization: Eps | X0 | None = None) -> GaussianDiffusion:
    return GaussianDiffusion(
        SCHEDULE, parameterization or Eps(), DiscreteUniform(), Simple(), learned_variance=learned_variance
    )


def _output(seed: str = "output") -> Tensor:
    return torch.cat([random_latents(f"{seed} {part}", dtype=torch.float32) for part in ("mean", "variance")], dim=1)


def _pixels() -> Tensor:
    return ((random_latents("x0", dtype=torch.float32).clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1


def test_hybrid_loss_is_the_simple_loss_and_a_share_of_the_bound() -> None:
    """Nichol & Dhariwal 2021, eq. 16; their code has T / 1000 times the clip's term in bits per dimension."""
    x0, output = _pixels(), _output()
    noised = _diffusion(None).add_noise(x0, random_latents("noise", dtype=torch.float32), TIMESTEPS / T)
    prediction, raw = output.chunk(2, dim=1)
    denoised = Eps().x0(prediction, noised.xt, noised.alpha, noised.sigma)
    share = (raw + 1) / 2
    now = TIMESTEPS.clamp(min=2) / T
    term = step_term(x0, denoised, share, SCHEDULE, now, now - 1 / T)
    # In the first step, the variance lies between the posterior's of the second and beta of the first.
    betas = torch.linspace(1e-4, 0.02, T, dtype=torch.float64)
    posterior = betas[1] * betas[0] / (1 - (1 - betas[0]) * (1 - betas[1]))
    log_variance = (1 - share[:1]) * posterior.log() + share[:1] * betas[0].log()
    term[:1] = pixel_term(x0[:1], denoised[:1], log_variance.float(), 256)
    bound = T * term.flatten(1).mean(1) / math.log(2)

    loss = _diffusion(LearnedVariance(T, vlb_weight=0.002)).loss(output, noised)
    torch.testing.assert_close(loss, _diffusion(None).loss(prediction, noised) + 0.002 * bound, rtol=1e-3, atol=0)


def test_only_the_variance_learns_from_the_bound() -> None:
    noised = _diffusion(None).add_noise(_pixels(), random_latents("noise", dtype=torch.float32), TIMESTEPS / T)
    gradients = []
    for learned_variance in (LearnedVariance(T), None):
        output = _output()
        output = (output if learned_variance else output.chunk(2, dim=1)[0]).requires_grad_()
        _diffusion(learned_variance).loss(output, noised).sum().backward()
        gradients.append(output.grad)

    torch.testing.assert_close(gradients[0][:, :2], gradients[1])
    assert (gradients[0][:, 2:] != 0).all()


def test_latents_that_are_no_pixels_have_a_density_in_the_first_step() -> None:
    x0, denoised, share = (random_latents(name, 1, torch.float32) for name in ("x0", "denoised", "share"))
    first = torch.tensor([1 / T])
    noised = _diffusion(None).add_noise(x0, random_latents("noise", 1, torch.float32), first)
    learned = LearnedVariance(T, num_pixel_values=None)
    log_variances = torch.tensor([math.log(1e-4)])
    share = torch.ones_like(share)
    expected = density_term(x0, denoised, log_variances.view(1, 1, 1, 1, 1).expand_as(x0)).mean() / math.log(2)

    torch.testing.assert_close(learned.loss(denoised, share, noised, SCHEDULE), expected[None], rtol=1e-3, atol=0)


def test_best_share_is_that_of_the_best_variance() -> None:
    """For x0 ~ N(0, 1), the step back has the forward step's variance (Ho et al. 2020, section 3.2): share 1."""
    num_clips = 4000
    x0, noise = (torch.randn(num_clips, 1, 1, 1, 1, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    noised = _diffusion(None).add_noise(x0, noise, torch.full((num_clips,), 0.3))
    denoised = noised.alpha[0] * noised.xt  # E[x0 | xt]
    learned = LearnedVariance(20)  # few steps, whose two bounds lie apart
    losses = [
        learned.loss(denoised, torch.full_like(x0, share), noised, SCHEDULE).mean().item() for share in (0.8, 1.0, 1.2)
    ]

    assert min(losses) == losses[1]


def test_times_between_timesteps_count_as_the_later_one_and_rounding_does_not_matter() -> None:
    learned = LearnedVariance(T)
    x0, denoised, share = (random_latents(name, 4, torch.float32) for name in ("x0", "denoised", "share"))
    losses = []
    for t in (torch.tensor([0.0071, 0.0079, 0.008, 0.0080000005]), torch.full((4,), 0.008)):
        noised = _diffusion(None).add_noise(x0, x0, t)
        losses.append(learned.loss(denoised, share, noised, SCHEDULE))

    torch.testing.assert_close(losses[0], losses[1])


def test_gradient_is_finite_at_the_first_and_the_last_time_whatever_the_network_says() -> None:
    t = torch.tensor([0.0, 1 / T, 2 / T, 0.999, 1.0])
    noised = _diffusion(None).add_noise(_pixels(), random_latents("noise", dtype=torch.float32), t)
    output = (100 * _output()).requires_grad_()
    loss = _diffusion(LearnedVariance(T)).loss(output.tanh() * 100, noised)
    loss[1:].sum().backward()

    assert loss[1:].isfinite().all()
    assert output.grad.isfinite().all()


def _network(xt: Tensor, c_noise: Tensor, condition: Conditioning, num_images: int = 0) -> Tensor:
    strength = 1.0 if condition.vector is None else float(condition.vector.mean())
    return torch.cat([strength * torch.tanh(xt), torch.full_like(xt, strength)], dim=1)


def test_sampler_draws_with_the_learned_variance() -> None:
    """A share of 1 everywhere is the forward step's variance, which is gamma = 1 of a fixed one."""
    denoiser = Denoiser(_network, X0(), learned_variance=LearnedVariance(T))
    plain = Denoiser(lambda *inputs: _network(*inputs).chunk(2, dim=1)[0], X0())

    def sample(sampler: DDPM, model: Denoiser) -> Tensor:
        def denoise(xt: Tensor, alpha: Tensor, sigma: Tensor) -> Denoised:
            return model(xt, alpha, sigma, Conditioning())

        return sampler(denoise, random_latents("z"), SCHEDULE, lambda step: random_latents(f"step {step}"), None)

    learned = sample(DDPM(10, gamma=0.0), denoiser)

    torch.testing.assert_close(learned, sample(DDPM(10, gamma=1.0), plain))
    assert (learned - sample(DDPM(10, gamma=0.0), plain)).abs().max() > 0.01


def test_sampling_equals_that_of_diffusers() -> None:
    """With variance_type="learned_range"; its noise for the steps comes from one generator."""
    peer = DDPMScheduler(
        12, 0.01, 0.5, "linear", variance_type="learned_range", prediction_type="sample", clip_sample=False
    )
    denoiser = Denoiser(_wavy_network, X0(), learned_variance=LearnedVariance())
    noises, theirs = torch.Generator().manual_seed(0), torch.Generator().manual_seed(0)
    schedule, noise = LinearBetas(12, beta_start=0.01, beta_end=0.5), random_latents("z")
    _, sigma = schedule.alpha_sigma(torch.ones(1, dtype=torch.float64))

    sample = DDPM(12)(
        lambda xt, alpha, sigma: denoiser(xt, alpha, sigma, Conditioning()),
        noise / sigma,
        schedule,
        lambda step: torch.randn(noise.shape, generator=noises, dtype=torch.float64),
    )
    for timestep in peer.timesteps:
        output = _wavy_network(noise, noise, Conditioning())
        noise = peer.step(output, int(timestep), noise, generator=theirs).prev_sample

    torch.testing.assert_close(sample, noise, rtol=1e-5, atol=1e-5)


def _wavy_network(xt: Tensor, c_noise: Tensor, condition: Conditioning, num_images: int = 0) -> Tensor:
    return torch.cat([torch.tanh(xt), torch.sin(3 * xt)], dim=1)


def test_guidance_keeps_the_variance_of_the_conditional_model() -> None:
    denoiser = Denoiser(_network, X0(), learned_variance=LearnedVariance(T))
    conditions = [Conditioning(vector=torch.full((5, 1), strength)) for strength in (0.5, 0.1)]

    def of(condition: Conditioning) -> object:
        return lambda xt, alpha, sigma: denoiser(xt, alpha, sigma, condition)

    guided = Extrapolation(3.0)(*map(of, conditions))
    xt = random_latents("xt")
    denoised = guided(xt, torch.full((5,), 0.6, dtype=torch.float64), torch.full((5,), 0.8, dtype=torch.float64))

    torch.testing.assert_close(denoised.x0, torch.tanh(xt) * (0.1 + 3 * 0.4))
    torch.testing.assert_close(denoised.variance_share, torch.full_like(xt, 0.75))


def test_network_without_channels_for_the_variance_is_named() -> None:
    noised = _diffusion(None).add_noise(_pixels(), random_latents("noise", dtype=torch.float32), TIMESTEPS / T)
    with pytest.raises(
        ValueError, match=r"network must output 4 channels, two for each of the latents' 2, but it outp"
    ):
        _diffusion(LearnedVariance(T)).loss(noised.x0, noised)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_timesteps": 1}, "num_timesteps must be at least 2, but is 1"),
        ({"vlb_weight": 0.0}, r"vlb_weight must be > 0, but is 0\.0"),
        ({"num_pixel_values": 1}, "num_pixel_values must be at least 2, or null, but is 1"),
    ],
)
def test_impossible_settings_are_named(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        LearnedVariance(**options)
