"""Each diffusion preset on moving digits, through the real configuration: it trains, in half precision too."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from tests.models.networks import random_input, randomized
from tests.training.runs import configuration, train
from vdm.assembly.model import VideoDiffusionModel
from vdm.cli.run_folder import register_run_folder
from vdm.config import ConfigError, build
from vdm.config.conf_dir import conf_dir
from vdm.diffusion.denoiser import Denoiser
from vdm.diffusion.gaussian import GaussianDiffusion
from vdm.diffusion.loss_weights import VLB, ErrorOf, MinSNR, SigmoidWeight, Simple
from vdm.diffusion.parameterizations import EDM, V
from vdm.diffusion.samplers.ddpm import DDPM
from vdm.models.space_time_unet import SpaceTimeUNet
from vdm.training.training_run import TrainingRun, build_training
from vdm.types import ClipBatch, Conditioning

PRESETS = sorted(path.stem for path in (conf_dir() / "diffusion").glob("*.yaml"))
PARTS = sorted(path.relative_to(conf_dir() / "diffusion") for path in (conf_dir() / "diffusion").glob("*/*.yaml"))
NETWORK = (
    "text_encoder=none",
    "model.network.channels=[16]",
    "model.network.attention_levels=[]",
    "model.network.temporal_levels=[]",
    "model.network.head_channels=16",
    "model.network.patch_size=2",
    "data.global_batch_size=16",
    "data.micro_batch_size=16",
    "optimizer.lr=2e-2",
    "trainer.max_steps=16",
    "trainer.log_every_n_steps=16",
)


@cache
def _diffusion(*overrides: str) -> GaussianDiffusion:
    register_run_folder()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose("train", list(overrides))
    return build(OmegaConf.to_container(config.diffusion, resolve=True), "diffusion")


def _built(run: Path, digits: Path, preset: str) -> TrainingRun:
    config = configuration(digits, *NETWORK, f"diffusion={preset}", without=("text_encoder",))
    return build_training(config, run)


@torch.no_grad()
def _held_out_loss(training: TrainingRun) -> float:
    """Return the mean loss of all validation clips over the preset's own noise levels."""
    model, (batch,) = training.module.model, training.data.val_dataloader()
    assert isinstance(batch, ClipBatch)
    x0, noise = model.encoder.encode(batch.video), torch.Generator().manual_seed(0)
    prompts = model.prompts(batch.captions, batch.labels.tolist())
    losses = []
    for u in (torch.arange(16) + 0.5) / 16:
        t = model.diffusion.noise_levels.quantile(u.expand(len(batch)), model.diffusion.schedule)
        losses.append(model.denoising_loss(x0, torch.randn(x0.shape, generator=noise), t, prompts))
    return torch.cat(losses).mean().item()


@pytest.mark.parametrize("preset", PRESETS)
def test_short_run_lowers_the_held_out_loss(tmp_path: Path, digits: Path, preset: str) -> None:
    training = _built(tmp_path, digits, preset)
    before = _held_out_loss(training)
    training.fit()
    after = _held_out_loss(training)

    assert after < 0.9 * before


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("preset", PRESETS)
def test_half_precision_is_finite_at_the_first_and_the_last_level(preset: str, dtype: torch.dtype) -> None:
    diffusion = _diffusion(f"diffusion={preset}")
    network = SpaceTimeUNet([8], out_channels=diffusion.out_channels(3), head_channels=8, temporal_levels=[0])
    randomized(network)
    ends = diffusion.noise_levels.quantile(torch.tensor([0.0, 1 - 2**-24]), diffusion.schedule)
    t = torch.cat([ends, torch.tensor([2**-24, 1.0])])
    x0, noise = random_input("x0", 4, 3, 2, 8, 8).clamp(-1, 1), random_input("noise", 4, 3, 2, 8, 8)
    noised = diffusion.add_noise(x0, noise, t)
    denoiser = Denoiser(network, diffusion.parameterization, learned_variance=diffusion.learned_variance)
    with torch.autocast("cpu", dtype):
        output = denoiser.predict(noised.xt, noised.alpha, noised.sigma, Conditioning())
        loss = diffusion.loss(output, noised)
        denoised = denoiser(noised.xt, noised.alpha, noised.sigma, Conditioning())
    loss[:2].sum().backward()

    assert output.dtype == dtype
    assert loss.dtype == denoised.x0.dtype == torch.float32
    assert loss[:2].isfinite().all()
    assert denoised.x0.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters() if parameter.grad is not None)


@pytest.mark.parametrize("part", PARTS, ids=str)
def test_each_part_builds_and_goes_with_a_preset(part: Path) -> None:
    field = part.parent.name
    # What parts say of the schedule beside them, they say of a table of betas.
    table = OmegaConf.load(conf_dir() / "diffusion" / "schedule" / "scaled_linear_betas.yaml")
    whole = OmegaConf.create({"schedule": table, field: OmegaConf.load(conf_dir() / "diffusion" / part)})
    node = OmegaConf.to_container(whole, resolve=True)[field]
    node.pop("defaults", None)  # of the part's own parts, for which it has defaults in code too
    preset = _diffusion("diffusion=vp" if field == "loss_weight" else "diffusion=ho2022_video")

    built = getattr(replace(preset, **{field: build(node, field)}), field)

    assert f"{type(built).__module__}.{type(built).__qualname__}" == node.pop("_target_")
    for name, value in node.items():
        if not isinstance(value, dict):  # a part of its own
            assert getattr(built, name) == (tuple(value) if isinstance(value, list) else value)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_weight_is_finite_over_all_levels_that_a_preset_trains_on(preset: str) -> None:
    diffusion = _diffusion(f"diffusion={preset}")
    u = torch.cat([torch.arange(1024) / 1024, torch.tensor([1 - 2**-24])])
    t = diffusion.noise_levels.quantile(u, diffusion.schedule)
    nothing = torch.zeros(len(t), 1, 1, 1, 1)
    noised = diffusion.add_noise(nothing, nothing, t)
    for weight in (Simple(), MinSNR(), ErrorOf(V()), ErrorOf(EDM()), VLB(), SigmoidWeight()):
        if preset == "zero_terminal_snr" and isinstance(weight, VLB | SigmoidWeight):
            continue  # whose derivative of log-SNR is infinite at its last timestep: refused, see test_gaussian
        factors = weight(noised, diffusion.parameterization, diffusion.schedule)

        assert factors.isfinite().all()
        assert (factors >= 0).all()


def test_part_of_a_preset_is_replaced_as_a_whole() -> None:
    diffusion = _diffusion("diffusion=min_snr", "diffusion/loss_weight=sigmoid", "diffusion.loss_weight.bias=-2")
    assert diffusion.loss_weight == SigmoidWeight(-2)
    diffusion = _diffusion("diffusion=edm", "diffusion.loss_weight._target_=vdm.diffusion.loss_weights.MinSNR")
    assert diffusion.loss_weight == MinSNR()


def test_impossible_part_is_named_in_one_line() -> None:
    with pytest.raises(ConfigError, match=r"^diffusion: parameterization=Eps\(.*choose V, X0, Velocity or EDM$"):
        _diffusion("diffusion=ddpm", "diffusion/schedule=rectified_flow")


def test_learned_variances_are_resumed_and_sampled_with(tmp_path: Path, shards: Path) -> None:
    config = configuration(shards, "diffusion=iddpm", "sampler=ddpm")
    whole = train(tmp_path / "whole", config)
    train(tmp_path / "parts", {**config, "trainer": {**config["trainer"], "max_steps": 2}})
    resumed = train(tmp_path / "parts", config, resume=True)
    for ours, theirs in zip(resumed.module.model.parameters(), whole.module.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)

    model = VideoDiffusionModel.from_checkpoint(tmp_path / "parts")
    assert isinstance(model.sampler, DDPM)
    exit_weights = model.network.exit.weight
    assert exit_weights.shape[0] == 2 * 3 * 2**2
    noise = random_input("noise", 2, 3, 4, 16, 32)
    video = model(noise, ["clip 1", "clip 2"])
    assert video.shape == noise.shape
    with torch.no_grad():
        exit_weights[12:] += 1.0  # those of the variances
    assert (model(noise, ["clip 1", "clip 2"]) != video).any()


@pytest.mark.parametrize(("name", "factor"), [("wan22_t2v", 12), ("wan22_i2v", 5)])
def test_time_shifts_of_wan_are_presets_by_name(name: str, factor: float) -> None:
    shift = _diffusion("diffusion=wan", f"diffusion/time_shift={name}").time_shift
    assert shift is not None
    assert shift.factor((16, 21, 60, 104)) == factor
