"""Trajectories against those of diffusers' schedulers: the same network, noise and noise levels.

Schedulers that compute in the type of the latents are compared in float64, with their tables replaced by the same
noise levels in float64; those that cast latents to fp32 in each step, within 1e-5. Their sigma is noise to signal, and
the latents of most are ``xt / alpha``.

Longer than other files, as all samplers are compared on one network, one noise and one reading of diffusers' loop.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EDMDPMSolverMultistepScheduler,
    EDMEulerScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    HeunDiscreteScheduler,
    ScoreSdeVeScheduler,
    UniPCMultistepScheduler,
)
from torch import Tensor

from tests.diffusion.latents import random_latents
from vdm.diffusion.denoiser import Denoised, Denoiser, bounded
from vdm.diffusion.parameterizations import EDM, X0, Eps, Parameterization, V, Velocity
from vdm.diffusion.samplers.base import GridSampler
from vdm.diffusion.samplers.ddim import DDIM
from vdm.diffusion.samplers.ddpm import DDPM
from vdm.diffusion.samplers.dpm_solver_pp_2m import DPMSolverPP2M
from vdm.diffusion.samplers.euler import Euler
from vdm.diffusion.samplers.heun import Heun
from vdm.diffusion.samplers.predictor_corrector import PredictorCorrector
from vdm.diffusion.samplers.spacing import Karras, Leading, Linspace, Spacing, Trailing, UniformLogSNR
from vdm.diffusion.samplers.unipc import UniPC
from vdm.diffusion.schedules.base import NoiseSchedule
from vdm.diffusion.schedules.cosine import Cosine
from vdm.diffusion.schedules.discrete import ScaledLinearBetas
from vdm.diffusion.schedules.rectified_flow import RectifiedFlow
from vdm.diffusion.schedules.shifted import Shifted
from vdm.diffusion.schedules.variance_exploding import VarianceExploding
from vdm.diffusion.schedules.variance_preserving import VariancePreserving
from vdm.diffusion.shapes import Latents, Level
from vdm.types import Conditioning

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of NumPy, in diffusers

NUM_STEPS = 12
SPACING = Karras(0.02, 40.0)
COSINE = Cosine(-10.0, 10.0)
PEERS: list[tuple[Parameterization, str]] = [(Eps(), "epsilon"), (X0(), "sample"), (V(), "v_prediction")]
FLOAT64 = {"rtol": 1e-9, "atol": 1e-9}
FLOAT32 = {"rtol": 1e-5, "atol": 1e-5}


def _network(xt: Tensor, c_noise: Tensor, condition: Conditioning, num_images: int = 0) -> Tensor:
    return torch.tanh(1.3 * xt + 0.2) - 0.1 * xt.mean(dim=2, keepdim=True)


def _output(xt: Tensor) -> Tensor:
    return _network(xt, torch.empty(0), Conditioning())


def _noises(num_clips: int = 5) -> Iterator[Tensor]:
    """Yield the noises that diffusers draws from ``_generator``."""
    generator = _generator()
    while True:
        yield torch.randn(random_latents("z", num_clips).shape, generator=generator, dtype=torch.float64)


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def _ours(
    sampler: GridSampler,
    schedule: NoiseSchedule,
    parameterization: Parameterization,
    clip: float | None = None,
    noise: Tensor | None = None,
) -> list[Tensor]:
    """Return the latents that the network is called with, as ``xt / alpha``, then the sample."""
    start = random_latents("z") if noise is None else noise
    denoiser = bounded(partial(Denoiser(_network, parameterization), condition=Conditioning()), clip)
    called_with, noises = list[Tensor](), _noises(len(start))

    def denoise(xt: Latents, alpha: Level, sigma: Level) -> Denoised:
        called_with.append(xt / alpha[:, None, None, None, None])
        return denoiser(xt, alpha, sigma)

    sample = sampler(denoise, start, schedule, lambda number: next(noises))
    return [*called_with, sample]


def _sigmas(spacing: Spacing, schedule: NoiseSchedule) -> Tensor:
    """Return the noise levels of the grid, the last of them 0, in float64."""
    return torch.tensor(
        [point.noise_to_signal for point in Euler(NUM_STEPS, spacing).grid(schedule)], dtype=torch.float64
    )


def _peer(scheduler: Any, sigmas: Tensor, start: Tensor, **options: object) -> list[Tensor]:
    """Return the latents at each of the scheduler's steps, then the sample."""
    scheduler.set_timesteps(NUM_STEPS)
    scheduler.sigmas = sigmas
    scheduler.timesteps = torch.arange(len(sigmas) - 1, 0, -1) / 7  # distinct, and of no further meaning
    xt, steps = start, list[Tensor]()
    for timestep in scheduler.timesteps:
        steps.append(xt)
        xt = scheduler.step(_output(scheduler.scale_model_input(xt, timestep)), timestep, xt, **options).prev_sample
    return [*steps, xt]


def _discrete_peer(scheduler: Any, **options: float | bool) -> list[Tensor]:
    """Return the steps of a scheduler with as many timesteps as steps, whose latents are ``xt``."""
    alpha, sigma = COSINE.alpha_sigma(torch.linspace(0, 1, NUM_STEPS + 1, dtype=torch.float64))
    scheduler.alphas_cumprod, scheduler.final_alpha_cumprod = alpha[1:] ** 2, alpha[0] ** 2
    scheduler.set_timesteps(NUM_STEPS)
    generator = _generator()
    xt, steps = sigma[-1] * random_latents("z"), list[Tensor]()
    for timestep in scheduler.timesteps:
        steps.append(xt / alpha[timestep + 1])
        output = scheduler.step(_output(xt), int(timestep), xt, generator=generator, **options)
        xt, x0 = output.prev_sample, output.pred_original_sample
    return [*steps, x0]


@pytest.mark.parametrize("clip", [None, 0.8])
@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
@pytest.mark.parametrize(("parameterization", "prediction_type"), PEERS, ids=str)
def test_ddim_equals_that_of_diffusers(
    parameterization: Parameterization, prediction_type: str, eta: float, clip: float | None
) -> None:
    peer = DDIMScheduler(
        NUM_STEPS, prediction_type=prediction_type, clip_sample=clip is not None, clip_sample_range=clip or 1.0
    )

    torch.testing.assert_close(
        _ours(DDIM(NUM_STEPS, eta=eta), COSINE, parameterization, clip),
        _discrete_peer(peer, eta=eta, use_clipped_model_output=clip is not None),
        **FLOAT64,
    )


@pytest.mark.parametrize("set_alpha_to_one", [False, True])
@pytest.mark.parametrize(("parameterization", "prediction_type"), PEERS, ids=str)
def test_published_ways_to_begin_and_to_end_equal_those_of_diffusers(
    parameterization: Parameterization, prediction_type: str, set_alpha_to_one: bool
) -> None:
    """As Stable Diffusion and what is tuned from it are sampled: from unit noise to the first timestep's noise."""
    table = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    peer = DDIMScheduler(
        **table,
        clip_sample=False,
        set_alpha_to_one=set_alpha_to_one,
        steps_offset=1,
        timestep_spacing="leading",
        prediction_type=prediction_type,
    )
    peer.set_timesteps(20)
    xt = random_latents("z")
    for timestep in peer.timesteps:
        xt = peer.step(_output(xt), int(timestep), xt).prev_sample

    t_end = 0.0 if set_alpha_to_one else 0.001
    sampler = DDIM(20, Leading(t_min=0.002), t_end=t_end, unit_variance=True)
    torch.testing.assert_close(_ours(sampler, ScaledLinearBetas(), parameterization)[-1], xt, **FLOAT32)


@pytest.mark.parametrize("clip", [None, 0.8])
@pytest.mark.parametrize(("gamma", "variance_type"), [(0.0, "fixed_small"), (1.0, "fixed_large")])
@pytest.mark.parametrize(("parameterization", "prediction_type"), PEERS, ids=str)
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

    torch.testing.assert_close(
        _ours(DDPM(NUM_STEPS, gamma=gamma), COSINE, parameterization, clip), _discrete_peer(peer), **FLOAT64
    )


@pytest.mark.parametrize(("parameterization", "prediction_type"), PEERS, ids=str)
def test_euler_equals_that_of_diffusers(parameterization: Parameterization, prediction_type: str) -> None:
    sigmas = _sigmas(SPACING, VariancePreserving())
    scheduler = EulerDiscreteScheduler(prediction_type=prediction_type)

    torch.testing.assert_close(
        _ours(Euler(NUM_STEPS, SPACING), VariancePreserving(), parameterization),
        _peer(scheduler, sigmas, sigmas[0] * random_latents("z")),
        **FLOAT32,
    )


@pytest.mark.parametrize(("parameterization", "prediction_type"), [PEERS[0], PEERS[2]], ids=str)
def test_ancestral_euler_of_diffusers_is_ddim_with_full_noise(
    parameterization: Parameterization, prediction_type: str
) -> None:
    sigmas = _sigmas(SPACING, VariancePreserving())
    scheduler = EulerAncestralDiscreteScheduler(prediction_type=prediction_type)

    torch.testing.assert_close(
        _ours(DDIM(NUM_STEPS, SPACING, eta=1.0), VariancePreserving(), parameterization),
        _peer(scheduler, sigmas, sigmas[0] * random_latents("z"), generator=_generator()),
        **FLOAT32,
    )


@pytest.mark.parametrize("clip", [None, 0.8])
@pytest.mark.parametrize(("parameterization", "prediction_type"), PEERS, ids=str)
def test_heun_equals_that_of_diffusers(
    parameterization: Parameterization, prediction_type: str, clip: float | None
) -> None:
    sigmas = _sigmas(SPACING, VariancePreserving())
    scheduler = HeunDiscreteScheduler(
        prediction_type=prediction_type, clip_sample=clip is not None, clip_sample_range=clip or 1.0
    )
    twice = torch.cat([sigmas[:1], sigmas[1:-1].repeat_interleave(2), sigmas[-1:]])

    torch.testing.assert_close(
        _ours(Heun(NUM_STEPS, SPACING), VariancePreserving(), parameterization, clip),
        _peer(scheduler, twice, sigmas[0] * random_latents("z")),
        **FLOAT64,
    )


@pytest.mark.parametrize(("parameterization", "prediction_type"), PEERS, ids=str)
def test_dpm_solver_equals_that_of_diffusers(parameterization: Parameterization, prediction_type: str) -> None:
    """diffusers' latents are ``xt``."""
    sigmas = _sigmas(SPACING, VariancePreserving())
    scheduler = DPMSolverMultistepScheduler(prediction_type=prediction_type)
    steps = _peer(scheduler, sigmas, sigmas[0] * torch.rsqrt(1 + sigmas[0] ** 2) * random_latents("z"))

    torch.testing.assert_close(
        _ours(DPMSolverPP2M(NUM_STEPS, SPACING), VariancePreserving(), parameterization),
        [torch.sqrt(1 + sigma**2) * step for sigma, step in zip(sigmas, steps, strict=True)],
        **FLOAT32,
    )


@pytest.mark.parametrize("variant", ["bh1", "bh2"])
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("corrector", [True, False])
@pytest.mark.parametrize(("parameterization", "prediction_type"), PEERS, ids=str)
def test_unipc_equals_that_of_diffusers(
    parameterization: Parameterization, prediction_type: str, order: int, variant: Any, corrector: bool
) -> None:
    """diffusers' latents are ``xt``."""
    sigmas = _sigmas(SPACING, VariancePreserving())
    scheduler = UniPCMultistepScheduler(
        prediction_type=prediction_type,
        solver_order=order,
        solver_type=variant,
        disable_corrector=[] if corrector else list(range(NUM_STEPS)),
    )
    steps = _peer(scheduler, sigmas, sigmas[0] * torch.rsqrt(1 + sigmas[0] ** 2) * random_latents("z"))

    sampler = UniPC(NUM_STEPS, SPACING, order=order, variant=variant, corrector=corrector)
    ours = _ours(sampler, VariancePreserving(), parameterization)
    theirs = [torch.sqrt(1 + sigma**2) * step for sigma, step in zip(sigmas, steps, strict=True)]
    if variant == "bh1":  # diffusers multiplies B(h), which is infinite in the step to clean latents, by 0
        assert theirs.pop().isnan().all()
        assert ours.pop().isfinite().all()

    torch.testing.assert_close(ours, theirs, **FLOAT64)


class AlmostPureNoise(Linspace):
    """diffusers does not begin at ``sigma = 1``, where it would divide by 0."""

    def __call__(self, schedule: NoiseSchedule, num_steps: int) -> Level:
        return super().__call__(schedule, num_steps) - 1e-6


@pytest.mark.parametrize("name", ["dpm_solver_pp_2m", "unipc"])
def test_solvers_of_higher_order_equal_those_of_diffusers_on_rectified_flows(name: str) -> None:
    """diffusers' sigma is t here."""
    kinds = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
    scheduler, make, tolerance = {
        "dpm_solver_pp_2m": (DPMSolverMultistepScheduler(**kinds), DPMSolverPP2M, FLOAT32),
        "unipc": (UniPCMultistepScheduler(**kinds), UniPC, FLOAT64),
    }[name]
    spacing = AlmostPureNoise()
    times = [*spacing(RectifiedFlow(), NUM_STEPS).tolist(), 0.0]
    steps = _peer(scheduler, torch.tensor(times, dtype=torch.float64), times[0] * random_latents("z"))

    ours = _ours(make(NUM_STEPS, spacing), RectifiedFlow(), Velocity())

    torch.testing.assert_close([(1 - t) * x for t, x in zip(times, ours, strict=True)], steps, **tolerance)


@pytest.mark.parametrize(("spacing", "shift"), [(Linspace(), 1.0), (Trailing(), 1.0), (Trailing(), 3.0)], ids=str)
def test_euler_on_rectified_flows_equals_flow_matching_of_diffusers(spacing: Spacing, shift: float) -> None:
    """The scheduler's own spacing ends at the first of 1000 timesteps, and shifts that one twice; pipelines hand
    trailing noise levels to it."""
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    given = {"sigmas": np.linspace(1, 1 / NUM_STEPS, NUM_STEPS)} if isinstance(spacing, Trailing) else {}
    scheduler.set_timesteps(NUM_STEPS, **given)
    schedule = Shifted(RectifiedFlow(), -2 * float(np.log(shift)))
    sigmas = [point.sigma for point in Euler(NUM_STEPS, spacing).grid(schedule)]
    steps = [random_latents("z")]
    for timestep in scheduler.timesteps:
        steps.append(scheduler.step(_output(steps[-1]), timestep, steps[-1]).prev_sample)

    ours = _ours(Euler(NUM_STEPS, spacing), schedule, Velocity())[1:]  # pure noise has no xt / alpha

    assert sigmas == pytest.approx(scheduler.sigmas.tolist(), rel=1e-5)
    torch.testing.assert_close([(1 - s) * x for s, x in zip(sigmas[1:], ours, strict=True)], steps[1:], **FLOAT32)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_edm_solvers_equal_those_of_diffusers(eta: float) -> None:
    """The noise levels are diffusers' own."""
    schedule, options = VarianceExploding(0.002, 80.0), {"generator": _generator()} if eta else {}
    sigmas = _sigmas(Karras(), schedule)
    start = 80.0 * random_latents("z")
    algorithm = "sde-dpmsolver++" if eta else "dpmsolver++"
    dpm_solver = EDMDPMSolverMultistepScheduler(algorithm_type=algorithm)

    torch.testing.assert_close(
        _ours(DPMSolverPP2M(NUM_STEPS, Karras(), eta), schedule, EDM()),
        _peer(dpm_solver, sigmas, start, **options),
        **FLOAT64,
    )


def test_edm_euler_equals_that_of_diffusers() -> None:
    schedule = VarianceExploding(0.002, 80.0)

    torch.testing.assert_close(
        _ours(Euler(NUM_STEPS, Karras()), schedule, EDM()),
        _peer(EDMEulerScheduler(), _sigmas(Karras(), schedule), 80.0 * random_latents("z")),
        **FLOAT32,
    )


def test_dpm_solver_of_the_sde_equals_that_of_diffusers() -> None:
    sigmas = _sigmas(SPACING, VariancePreserving())
    scheduler, noises = DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++"), _noises()
    scheduler.set_timesteps(NUM_STEPS)
    scheduler.sigmas = sigmas
    steps = [sigmas[0] * torch.rsqrt(1 + sigmas[0] ** 2) * random_latents("z")]
    for timestep in scheduler.timesteps:
        output = scheduler.step(_output(steps[-1]), timestep, steps[-1], variance_noise=next(noises))
        steps.append(output.prev_sample)

    torch.testing.assert_close(
        _ours(DPMSolverPP2M(NUM_STEPS, SPACING, eta=1.0), VariancePreserving(), Eps()),
        [torch.sqrt(1 + sigma**2) * step for sigma, step in zip(sigmas, steps, strict=True)],
        **FLOAT32,
    )


def test_predictor_corrector_equals_that_of_diffusers() -> None:
    """For a single clip: diffusers averages the size of Langevin steps over the batch, and keeps it in fp32."""
    schedule, spacing = VarianceExploding(0.01, 50.0), UniformLogSNR()
    sigmas = _sigmas(spacing, schedule)
    scheduler = ScoreSdeVeScheduler(snr=0.16)
    scheduler.set_timesteps(NUM_STEPS, sampling_eps=0.0)
    scheduler.discrete_sigmas = sigmas[:-1].flip(0)

    def score(xt: Tensor, sigma: Tensor) -> Tensor:
        alpha = torch.ones(1, dtype=torch.float64)
        return (Denoiser(_network, EDM())(xt, alpha, sigma[None], Conditioning()).x0 - xt) / sigma**2

    generator = _generator()
    steps = [50.0 * random_latents("z", num_clips=1)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "diffusers.schedulers.scheduling_sde_ve.randn_tensor",
            lambda shape, **_: torch.randn(shape, generator=generator, dtype=torch.float64),
        )
        for index, sigma in enumerate(sigmas[:-1]):
            steps.append(scheduler.step_correct(score(steps[-1], sigma), steps[-1]).prev_sample)
            timestep = torch.tensor(1 - index / (NUM_STEPS - 1) + 1e-6)
            predicted = scheduler.step_pred(score(steps[-1], sigma), timestep, steps[-1])
            steps.append(predicted.prev_sample)

    ours = _ours(PredictorCorrector(NUM_STEPS, spacing), schedule, EDM(), noise=random_latents("z", num_clips=1))

    torch.testing.assert_close(ours[:-1], steps[:-1], **FLOAT32)
