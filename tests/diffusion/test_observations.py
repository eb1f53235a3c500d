"""Sampling with observations: operators, methods, and what they make of a Gaussian process, which is known exactly.

Longer than other files: all methods are held to the same process and the same closed forms.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.diffusion.gaussian_process import (
    LinearRun,
    Normal,
    Shape,
    conditioned,
    denoiser,
    matrix,
    rough_process,
    smooth_process,
)
from tests.diffusion.latents import random_latents
from vdm.diffusion.denoiser import Denoise, Denoised
from vdm.diffusion.observations import (
    CleanFrames,
    Frames,
    Observation,
    ObservationMethod,
    ReconstructionGuidance,
    Replacement,
)
from vdm.diffusion.samplers.base import GridSampler
from vdm.diffusion.samplers.ddim import DDIM
from vdm.diffusion.samplers.ddpm import DDPM
from vdm.diffusion.samplers.dpm_solver_pp_2m import DPMSolverPP2M
from vdm.diffusion.samplers.euler import Euler
from vdm.diffusion.samplers.heun import Heun
from vdm.diffusion.samplers.unipc import UniPC
from vdm.diffusion.shapes import over_latents, per_frame

FILM: Shape = (1, 8, 1, 1)
PICTURE: Shape = (1, 1, 4, 4)
TIMES = torch.arange(8, dtype=torch.float64)[:, None]
PIXELS = torch.cartesian_prod(*[torch.arange(4.0)] * 2).double()

TASKS: dict[str, tuple[Shape, Frames, Tensor]] = {
    "extend, smooth": (FILM, Frames((0, 1, 2), 8), smooth_process(TIMES, 2.0)),
    "extend, rough": (FILM, Frames((0, 1, 2), 8), rough_process(TIMES, 4.0)),
    "interpolate, smooth": (FILM, Frames((0, 3, 6), 8), smooth_process(TIMES, 2.0)),
    "interpolate, rough": (FILM, Frames((0, 3, 6), 8), rough_process(TIMES, 4.0)),
    "enlarge, smooth": (PICTURE, Frames((0,), 1, factor=2), smooth_process(PIXELS, 1.5)),
    "enlarge, rough": (PICTURE, Frames((0,), 1, factor=2), rough_process(PIXELS, 4.0)),
}


def _observed(task: str) -> tuple[Shape, Frames, Tensor, Tensor]:
    """Return a task and what is observed in it, drawn from the process."""
    shape, operator, covariance = TASKS[task]
    draw = torch.randn(len(covariance), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    x0 = (torch.linalg.cholesky(covariance) @ draw).reshape(1, *shape)
    return shape, operator, covariance, operator(x0)[0]


def _sampled(task: str, sampler: GridSampler, method: ObservationMethod) -> tuple[Normal, Normal, float]:
    """Return the distribution of samples, that wanted, and the divergence between them on what is not observed."""
    shape, operator, covariance, y = _observed(task)
    observed = matrix(operator, shape)
    wanted = conditioned(covariance, observed, y.flatten())
    num_draws = 0 if isinstance(sampler, DDIM) else sampler.num_steps
    samples = LinearRun(sampler, shape, y, operator, num_draws).distribution(method, denoiser(covariance))
    return samples, wanted, samples.kl_from(wanted, torch.linalg.svd(observed).Vh[len(observed) :])


def _name(sampler: GridSampler) -> str:
    return type(sampler).__name__


@pytest.mark.parametrize("operator", [Frames((4, 1), 5), Frames((0, 2), 3, factor=2), Frames((0,), 1, 4)], ids=str)
def test_pseudo_inverse_is_that_of_the_matrix(operator: Frames) -> None:
    shape = (2, operator.num_frames, 4, 8)
    observed = matrix(operator, shape)
    y = torch.eye(len(observed), dtype=torch.float64)
    small = y.reshape(-1, 2, len(operator.indices), 4 // operator.factor, 8 // operator.factor)

    torch.testing.assert_close(operator.pseudo_inverse(small).flatten(1).T, torch.linalg.pinv(observed))


def test_frames_are_observed_in_the_order_asked_for_and_averaged() -> None:
    x0 = torch.arange(2 * 16, dtype=torch.float64).reshape(1, 1, 2, 4, 4)

    assert torch.equal(Frames((1, 0), 2)(x0), x0[:, :, [1, 0]])
    assert Frames((1,), 2, factor=2)(x0).flatten().tolist() == [18.5, 20.5, 26.5, 28.5]


@pytest.mark.parametrize("indices", [(0, 0), (3,), (-1,)])
def test_frames_that_are_not_there_are_refused(indices: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"^indices must be different frames from 0 to 2, but are \["):
        Frames(indices, 3)


METHODS = [Replacement(), ReconstructionGuidance(1.0), ReconstructionGuidance()]


@pytest.mark.parametrize("method", METHODS, ids=str)
@pytest.mark.parametrize("task", TASKS)
def test_samples_agree_with_the_observation(task: str, method: ObservationMethod) -> None:
    shape, operator, _, y = _observed(task)
    samples = _sampled(task, DDIM(10), method)[0]
    observed = matrix(operator, shape)

    torch.testing.assert_close(observed @ samples.mean, y.flatten())
    torch.testing.assert_close(observed @ samples.covariance, torch.zeros_like(observed), rtol=0, atol=1e-12)


@pytest.mark.parametrize("sampler", [DDIM(100), DDPM(100)], ids=str)
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("scale", [1.0, ReconstructionGuidance().scale])
def test_reconstruction_guidance_comes_nearer_to_the_conditional_distribution_than_replacement(
    task: str, sampler: GridSampler, scale: float
) -> None:
    """What Ho et al. 2022 (section 3.1 and table 6) claim, without a network and without sampling error."""
    replaced, guided = (
        _sampled(task, sampler, Replacement())[2],
        _sampled(task, sampler, ReconstructionGuidance(scale))[2],
    )

    assert guided < replaced


@pytest.mark.parametrize("task", TASKS)
def test_reconstruction_guidance_betters_both_mean_and_covariance(task: str) -> None:
    replaced, wanted, _ = _sampled(task, DDIM(100), Replacement())
    guided, _, _ = _sampled(task, DDIM(100), ReconstructionGuidance(1.0))

    assert (guided.mean - wanted.mean).norm() < (replaced.mean - wanted.mean).norm()
    assert (guided.covariance - wanted.covariance).norm() < (replaced.covariance - wanted.covariance).norm()


@pytest.mark.parametrize("task", TASKS)
def test_replacement_does_not_become_exact_with_more_steps(task: str) -> None:
    few, many = (_sampled(task, DDIM(num_steps), Replacement())[2] for num_steps in (50, 200))

    assert many > few / 2


@pytest.mark.parametrize("sampler", [DDIM(7), Euler(7), Heun(7), DPMSolverPP2M(7), UniPC(7)], ids=_name)
@pytest.mark.parametrize("method", METHODS, ids=str)
@pytest.mark.parametrize("task", ["extend, smooth", "enlarge, smooth"])
def test_deterministic_sampler_sees_the_observation_with_one_and_the_same_noise(
    task: str, method: ObservationMethod, sampler: GridSampler
) -> None:
    """``A xt = alpha y + sigma n``, where ``n = A noise``, less the signal that the first noised latents lack."""
    shape, operator, covariance, y = _observed(task)
    run = LinearRun(sampler, shape, y, operator, num_draws=0)
    run.distribution(method, denoiser(covariance))
    first_alpha, first_sigma, noised = run.seen[0]
    noise = operator(noised) / first_sigma
    noise[-1] -= first_alpha / first_sigma * y

    assert len(run.seen) >= 7
    for alpha, sigma, xt in run.seen:
        torch.testing.assert_close(operator(xt)[:-1], sigma * noise[:-1])
        torch.testing.assert_close(operator(xt)[-1], alpha * y + sigma * noise[-1])


@pytest.mark.parametrize(
    "sampler",
    [DDIM(7, eta=0.6), DDIM(7, eta=1.0), DDPM(7), DPMSolverPP2M(7, eta=1.0), Euler(7, s_churn=3.0)],
    ids=_name,
)
@pytest.mark.parametrize("task", ["extend, smooth", "enlarge, smooth"])
def test_stochastic_sampler_sees_the_observation_with_noise_of_its_distribution(
    task: str, sampler: GridSampler
) -> None:
    """The observed part of ``xt`` has mean ``alpha y`` and covariance ``sigma^2 A A^T`` at every step."""
    shape, operator, covariance, y = _observed(task)
    run = LinearRun(sampler, shape, y, operator, num_draws=sampler.num_steps)
    run.distribution(Replacement(), denoiser(covariance))
    observed = matrix(operator, shape)
    missing = run.seen[0][0] / run.seen[0][1]

    for alpha, sigma, xt in run.seen:
        seen = run.moments(operator(xt))
        torch.testing.assert_close(seen.covariance, sigma**2 * observed @ observed.T)
        torch.testing.assert_close(seen.mean, alpha * y.flatten(), rtol=0, atol=2 * missing * float(y.abs().max()))


def _nonlinear(xt: Tensor, alpha: Tensor, sigma: Tensor) -> Denoised:
    """A denoising function of ``xt / alpha`` and ``sigma / alpha``, in which frames and pixels matter to each other."""
    x = xt / over_latents(alpha)
    return Denoised(torch.sin(x * x.roll(1, 2)) / over_latents(1 + sigma / alpha) + x.mean((2, 4), keepdim=True))


def _observation(factor: int = 1) -> Observation:
    operator = Frames((2, 0), 3, factor)
    return Observation(operator(random_latents("data")[..., :4]), operator)


XT = random_latents("xt")[..., :4]
ALPHA, SIGMA = torch.linspace(0.2, 0.9, 5, dtype=torch.float64), torch.linspace(1.5, 0.3, 5, dtype=torch.float64)


@pytest.mark.parametrize("factor", [1, 2])
def test_reconstruction_guidance_is_the_equation_of_the_paper(factor: int) -> None:
    """Ho et al. 2022, eq. 7 and below, with the gradient by finite differences and its weight ``factor^2`` here."""
    known, scale, step = _observation(factor), 3.0, 1e-5

    def error(xt: Tensor) -> Tensor:
        return ((known.y - known.operator(_nonlinear(xt, ALPHA, SIGMA).x0)) ** 2).flatten(1).sum(1)

    gradient = torch.zeros_like(XT)
    for place in torch.eye(XT[0].numel(), dtype=torch.float64).reshape(-1, *XT.shape[1:]):
        gradient += over_latents((error(XT + step * place) - error(XT - step * place)) / (2 * step)) * place
    x0 = _nonlinear(XT, ALPHA, SIGMA).x0 - over_latents(scale * factor**2 * ALPHA / 2) * gradient

    with torch.no_grad():
        guided = ReconstructionGuidance(scale)(_nonlinear, [known])(XT, ALPHA, SIGMA)
    torch.testing.assert_close(guided.x0, x0 + known.residual(x0), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_scale_of_the_latents_does_not_matter(method: ObservationMethod) -> None:
    """Variance preserving or exploding: the same signal-to-noise ratio gives the same denoised latents."""
    denoise = method(_nonlinear, [_observation()])

    torch.testing.assert_close(
        denoise(XT, ALPHA, SIGMA).x0, denoise(XT / over_latents(ALPHA), torch.ones_like(ALPHA), SIGMA / ALPHA).x0
    )


def test_reconstruction_guidance_of_scale_0_is_replacement() -> None:
    known = [_observation(2)]

    assert torch.equal(
        ReconstructionGuidance(0.0)(_nonlinear, known)(XT, ALPHA, SIGMA).x0,
        Replacement()(_nonlinear, known)(XT, ALPHA, SIGMA).x0,
    )


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_frames_as_they_are_and_others_in_small_are_observed_together(method: ObservationMethod) -> None:
    x0 = random_latents("data")[..., :4]
    whole, small = Frames((1,), 3), Frames((2, 0), 3, factor=2)
    known = [Observation(whole(x0), whole), Observation(small(x0), small)]
    denoised = method(_nonlinear, known)(XT, ALPHA, SIGMA).x0

    torch.testing.assert_close(whole(denoised), whole(x0))
    torch.testing.assert_close(small(denoised), small(x0))


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_clips_do_not_influence_each_other(method: ObservationMethod) -> None:
    known = _observation()
    together = method(_nonlinear, [known])(XT, ALPHA, SIGMA).x0
    alone = method(_nonlinear, [known.map(lambda y: y[3:4])])(XT[3:4], ALPHA[3:4], SIGMA[3:4]).x0

    torch.testing.assert_close(together[3:4], alone)


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_variances_are_passed_on_and_nothing_is_left_to_differentiate(method: ObservationMethod) -> None:
    weight = torch.ones((), dtype=torch.float64, requires_grad=True)

    def denoise(xt: Tensor, alpha: Tensor, sigma: Tensor) -> Denoised:
        return Denoised(weight * xt.roll(1, 2), weight * xt)

    with torch.no_grad():
        denoised = method(denoise, [_observation()])(XT, ALPHA, SIGMA)

    assert denoised.variance_share is not None
    assert torch.equal(denoised.variance_share, XT)
    assert not denoised.x0.requires_grad
    assert not denoised.variance_share.requires_grad
    assert weight.grad is None


@pytest.mark.parametrize("make", [lambda: ReconstructionGuidance(-1.0), lambda: Frames((0,), 1, factor=0)])
def test_impossible_options_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"^(scale must be >= 0, but is -1\.0|factor must be at least 1, but is 0)$"):
        make()


def _told_levels(covariance: Tensor) -> Denoise:
    """Return ``E[x0 | xt]`` for x0 of mean 0 and any noise level a frame, the same for all clips."""

    def denoise(xt: Tensor, alpha: Tensor, sigma: Tensor) -> Denoised:
        a, s = (torch.diag(per_frame(level, xt.shape[2])[0]) for level in (alpha, sigma))
        gain = covariance @ a @ torch.linalg.inv(a @ covariance @ a + s**2)
        return Denoised((xt.flatten(1) @ gain.T).reshape(xt.shape))

    return denoise


@pytest.mark.parametrize("sampler", [DDIM(100), DDPM(300), UniPC(40)], ids=_name)
@pytest.mark.parametrize("task", [task for task in TASKS if "enlarge" not in task])
def test_clean_frames_make_the_conditional_distribution(task: str, sampler: GridSampler) -> None:
    """A model that knows clean frames among noised ones is exact, but for the steps of the sampler."""
    shape, operator, covariance, y = _observed(task)
    observed = matrix(operator, shape)
    wanted = conditioned(covariance, observed, y.flatten())
    run = LinearRun(sampler, shape, y, operator, num_draws=sampler.num_steps if isinstance(sampler, DDPM) else 0)
    told = _told_levels(covariance)
    samples = run.distribution(lambda _, observations: CleanFrames()(told, observations), told)
    unobserved = torch.linalg.svd(observed).Vh[len(observed) :]

    torch.testing.assert_close(samples.mean, wanted.mean, rtol=0, atol=0.02)
    assert samples.kl_from(wanted, unobserved) < 0.03
    assert samples.kl_from(wanted, unobserved) < _sampled(task, DDIM(100), ReconstructionGuidance())[2]


@pytest.mark.parametrize("per_frame_levels", [False, True])
def test_the_network_is_given_known_frames_clean_and_the_others_as_they_are(per_frame_levels: bool) -> None:
    known, seen = _observation(), list[Tensor]()
    alpha, sigma = (per_frame(level, 3) if per_frame_levels else level for level in (ALPHA, SIGMA))

    def denoise(xt: Tensor, alpha: Tensor, sigma: Tensor) -> Denoised:
        seen.extend((xt, alpha, sigma))
        return _nonlinear(xt, alpha, sigma)

    denoised = CleanFrames()(denoise, [known])(XT, alpha, sigma)
    xt, told_alpha, told_sigma = seen

    assert torch.equal(known.operator(xt), known.y)
    assert torch.equal(known.operator(denoised.x0), known.y)
    assert torch.equal(xt[:, :, 1], XT[:, :, 1])
    ones = torch.ones_like(ALPHA)
    assert torch.equal(told_alpha, torch.stack([ones, ALPHA, ones], dim=1))
    assert torch.equal(told_sigma, torch.stack([0 * ones, SIGMA, 0 * ones], dim=1))


def test_only_whole_frames_can_be_given_clean() -> None:
    with pytest.raises(
        ValueError, match=r"^clean frames: observations must be of whole frames, but one is Frames\(.*factor=2"
    ):
        CleanFrames()(_nonlinear, [_observation(2)])
