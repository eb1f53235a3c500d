"""Which expert trains in which step, on which noise levels, and what of it is averaged."""

import math
import re
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy import stats
from torch import nn

from tests.training.experts import of_experts
from tests.training.runs import configuration, train
from tests.training.saved import content, curve
from vdm.assembly.build_model import build_model
from vdm.config import ConfigError
from vdm.diffusion.gaussian import GaussianDiffusion
from vdm.diffusion.loss_weights import Simple
from vdm.diffusion.noise_levels import Bell, DiscreteUniform, LogitNormal, Mode, NoiseLevels, Uniform
from vdm.diffusion.parameterizations import FlowTimestep, Velocity
from vdm.diffusion.schedules.rectified_flow import RectifiedFlow
from vdm.diffusion.time_ranges import TimeRange
from vdm.diffusion.time_shifts import ConstantShift, RootShift
from vdm.models.dit.transformer import SpaceTimeTransformer
from vdm.models.experts import HIGH, LOW, OneOnDevice, TwoExperts, move_but_experts
from vdm.training.ema import EMA
from vdm.training.step_experts import ExpertSchedule
from vdm.training.training_run import build_training
from vdm.types import Conditioning

SHAPE = (16, 21, 60, 104)


def diffusion(noise_levels: NoiseLevels, shift: float = 5.0) -> GaussianDiffusion:
    parameterization = Velocity(FlowTimestep())
    return GaussianDiffusion(RectifiedFlow(), parameterization, noise_levels, Simple(), time_shift=ConstantShift(shift))


def experts(boundary: float = 0.875) -> TwoExperts:
    return TwoExperts(nn.Linear(1, 1), nn.Linear(1, 1), boundary)


@pytest.mark.parametrize(("boundary", "shift"), [(0.875, 12.0), (0.9, 5.0), (0.875, 1.0)])
def test_mass_below_the_boundary_is_that_of_the_shifted_distribution(boundary: float, shift: float) -> None:
    before_shift = boundary / (shift - (shift - 1) * boundary)  # the inverse of s t / (1 + (s - 1) t)
    logit = math.log(before_shift / (1 - before_shift))
    cases = [
        (LogitNormal(mean=0.3, std=0.8), stats.norm(0.3, 0.8).cdf(logit)),
        (Uniform(), before_shift),
        (Bell(), stats.beta(2, 2).cdf(before_shift)),
        (DiscreteUniform(num_timesteps=10), (math.ceil(10 * before_shift) - 1) / 10),
    ]
    for noise_levels, expected in cases:
        assert diffusion(noise_levels, shift).share_below(boundary, SHAPE) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("low_discrepancy", [False, True])
@pytest.mark.parametrize("kind", [LogitNormal, Uniform, Mode, Bell])
def test_times_of_an_expert_have_the_distribution_of_all_times_on_its_side(
    kind: type[NoiseLevels], low_discrepancy: bool
) -> None:
    formula, positions = diffusion(kind(low_discrepancy=low_discrepancy)), torch.arange(4000)
    everywhere = formula.draw_times(0, positions, 4, SHAPE).t
    for within in (TimeRange(0.875), TimeRange(end=0.875)):
        times = formula.draw_times(1, positions, 4, SHAPE, within=within).t
        of_side = everywhere[(everywhere >= within.start) & (everywhere < within.end)]
        assert bool((times >= within.start).all())
        assert bool((times < within.end).all())
        # Kolmogorov-Smirnov; samples of one step are not independent with low discrepancy, which brings them closer
        assert stats.ks_2samp(times.numpy(), of_side.numpy()).pvalue > 1e-3


def test_rounding_does_not_put_a_time_on_the_other_side() -> None:
    times = torch.tensor([0.9, math.nextafter(0.9, 0), 0.2, 1.0])
    assert bool((TimeRange(0.9).clamp(times).double() >= 0.9).all())
    assert bool((TimeRange(end=0.9).clamp(times).double() < 0.9).all())


def test_experts_get_steps_in_proportion_to_their_mass_by_a_function_of_seed_and_step() -> None:
    formula = diffusion(LogitNormal(), shift=12.0)
    share = 1 - formula.share_below(0.875, SHAPE)
    schedule = ExpertSchedule(3, experts(), formula, [SHAPE])
    order = [schedule.step(0, number).in_use for number in range(20_000)]
    assert Counter(order)[HIGH] / len(order) == pytest.approx(share, abs=1e-3)
    again = ExpertSchedule(3, experts(), formula, [SHAPE])
    assert [again.step(0, number).in_use for number in (19_999, 7, 512)] == [
        order[number] for number in (19_999, 7, 512)
    ]
    other = ExpertSchedule(4, experts(), formula, [SHAPE])
    assert [other.step(0, number).in_use for number in range(1000)] != order[:1000]


def test_each_shape_has_the_shares_of_its_own_shift() -> None:
    shapes = [(16, 5, 30, 52), (16, 21, 90, 160)]
    formula = replace(diffusion(LogitNormal()), time_shift=RootShift(base_tokens=8190, base_shift=3.0))
    schedule = ExpertSchedule(0, experts(), formula, shapes)
    for bucket, shape in enumerate(shapes):
        counts = Counter(schedule.step(bucket, number).in_use for number in range(10_000))
        assert counts[LOW] / 10_000 == pytest.approx(formula.share_below(0.875, shape), abs=2e-3)
    assert formula.share_below(0.875, shapes[0]) > formula.share_below(0.875, shapes[1]) + 0.1


def test_a_frozen_expert_gets_no_steps() -> None:
    network = experts()
    network.low_noise.requires_grad_(False)
    schedule = ExpertSchedule(0, network, diffusion(Uniform()), [SHAPE])
    assert {schedule.step(0, number).in_use for number in range(100)} == {HIGH}
    assert schedule.step(0, 0).idle == LOW


@pytest.mark.parametrize("trained", [HIGH, LOW])
def test_an_expert_without_noise_levels_is_refused(trained: str) -> None:
    network = experts(0.01 if trained == LOW else 0.999)
    shift = 1.0
    levels = Uniform(t_min=0.5) if trained == LOW else DiscreteUniform(num_timesteps=1)
    if trained == HIGH:
        network = experts(0.5)
        levels = _Lowest()
    with pytest.raises(
        ValueError, match=rf"^diffusion\.noise_levels: {trained} is trained on times .* has none of them"
    ):
        ExpertSchedule(0, network, diffusion(levels, shift), [SHAPE])


class _Lowest(Uniform):
    """Times below 0.25."""

    def quantile(self, u: torch.Tensor, schedule: object) -> torch.Tensor:
        return u / 4


class Marked(nn.Module):
    """A network that returns a number, and counts its calls."""

    def __init__(self, number: float) -> None:
        super().__init__()
        self.number, self.num_clips = number, []

    def forward(
        self, xt: torch.Tensor, c_noise: torch.Tensor, condition: Conditioning, num_images: int
    ) -> torch.Tensor:
        self.num_clips.append(len(xt))
        assert condition.text is not None
        return xt * 0 + self.number + condition.text[:, 0, 0].reshape(-1, 1, 1, 1, 1)


def test_each_clip_goes_to_the_expert_of_its_timestep_with_its_own_condition() -> None:
    network = TwoExperts(Marked(1.0), Marked(2.0), 0.9)
    xt, text = torch.zeros(4, 1, 1, 2, 2), torch.tensor([10.0, 20.0, 30.0, 40.0]).reshape(4, 1, 1)
    timesteps = torch.tensor([900.0, 899.0, 0.0, 1000.0])
    output = network(xt, timesteps, Conditioning(text=text))
    assert output[:, 0, 0, 0, 0].tolist() == [11.0, 22.0, 32.0, 41.0]
    frames = torch.stack([torch.zeros(4), timesteps], dim=1)  # the first frame of each clip is clean
    assert torch.equal(network(xt, frames, Conditioning(text=text)), output)
    with network.only(LOW):
        assert network(xt, timesteps, Conditioning(text=text))[0, 0, 0, 0, 0] == 12.0


def test_all_processes_call_the_experts_that_any_of_them_needs() -> None:
    network = TwoExperts(Marked(1.0), Marked(2.0), 0.9)
    xt, condition = torch.zeros(3, 1, 1, 2, 2), Conditioning(text=torch.zeros(3, 1, 1))
    with network.agreeing(lambda needed: [True, True]):
        output = network(xt, torch.full((3,), 950.0), condition)
    assert bool((output == 1).all())
    assert (network.high_noise.num_clips, network.low_noise.num_clips) == ([3], [1])
    network(xt, torch.full((3,), 950.0), condition)
    assert network.low_noise.num_clips == [1]


def test_averages_of_an_expert_are_those_of_a_run_of_its_own_steps() -> None:
    options = {"half_lives": (3.0,), "warm_up": 0.5, "sigma_rels": (0.1,)}
    both, alone = EMA(**options), EMA(**options)
    weights = {"high": torch.zeros(2), "low": torch.ones(2)}
    only = {"high": torch.zeros(2)}
    both.follow(weights, 2, owners={"high": HIGH, "low": LOW})
    alone.follow(only, 2)
    for step, idle in enumerate([LOW, HIGH, HIGH, LOW, LOW, HIGH, LOW]):
        weights["high"].fill_(step) if idle == LOW else weights["low"].fill_(step)
        both.update(idle)
        if idle == LOW:
            only["high"].fill_(step)
            alone.update()
    for name, averages in alone.weights.items():
        torch.testing.assert_close(both.weights[name]["high"], averages["high"])
    assert (both.num_updates, both.num_updates_of) == (7, {HIGH: 4, LOW: 3})


def test_steps_train_on_the_noise_levels_of_their_expert(tmp_path: Path, shards: Path) -> None:
    seen: list[tuple[str, float, float]] = []
    training = build_training(of_experts(shards, "trainer.max_steps=6", "data.micro_batch_size=2"), tmp_path)
    step = training.module.training_step

    def watched(batch: Any, batch_idx: int) -> object:
        outputs = step(batch, batch_idx)
        seen.append((training.module.expert.in_use or "", float(outputs["t"].min()), float(outputs["t"].max())))
        return outputs

    training.module.training_step = watched  # type: ignore[method-assign]  # to see what it is given
    training.record()
    training.fit()
    assert len(seen) == 12
    assert all((expert == HIGH) == (low >= 0.5) and (expert == LOW) == (high < 0.5) for expert, low, high in seen)
    assert all(seen[2 * number][0] == seen[2 * number + 1][0] for number in range(6))
    assert {expert for expert, _, _ in seen} == {HIGH, LOW}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("model.network.boundary=1",), "model.network.boundary: 1 is not allowed"),
        (("model.network.boundary=875",), "model.network.boundary: 875 is not allowed"),
        (("model.network.boundary=0.0",), "model.network.boundary: 0.0 is not allowed"),
        (
            ("model.network.boundary=0.8755", "diffusion.parameterization.c_noise.whole=true"),
            "model.network.boundary=0.8755: must be a whole number of thousandths",
        ),
        (
            ("diffusion/parameterization=velocity",),
            "diffusion: two experts are told apart by the timesteps of diffusion=wan",
        ),
        (
            ("diffusion/frame_levels=independent",),
            "diffusion.frame_levels: with two experts all noised frames of a clip need the same level",
        ),
        (
            ("diffusion/noise_levels=uniform", "diffusion.noise_levels.t_min=0.5"),
            "experts: diffusion.noise_levels: low_noise is trained on times below 0.5, but Uniform",
        ),
    ],
)
def test_wrong_settings_are_one_line(tmp_path: Path, shards: Path, overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}") as refused:
        build_training(of_experts(shards, *overrides), tmp_path)
    assert "\n" not in str(refused.value)


def test_experts_of_a_single_network_are_refused(tmp_path: Path, shards: Path) -> None:
    with pytest.raises(ConfigError, match=r"^experts: high: the network does not consist of two experts"):
        build_training({**configuration(shards), "experts": "high"}, tmp_path)
    model = build_model(configuration(shards, "guidance.low_noise_scale=3"))
    with pytest.raises(ValueError, match=r"^guidance\.low_noise_scale=3: the network does not consist of two experts"):
        model.sample(torch.zeros(1, 3, 4, 16, 32), ["a dog"])


def test_one_expert_alone_is_trained(tmp_path: Path, shards: Path) -> None:
    run = train(tmp_path, {**of_experts(shards, "trainer.max_steps=2"), "experts": "high"})
    assert set(run.module.ema.first) == {n for n, w in run.module.named_parameters() if w.requires_grad}
    assert not any(".low_noise." in name for name in run.module.ema.first)
    assert run.module.ema.num_updates_of[HIGH] == 2


def test_an_offloaded_idle_expert_changes_nothing_but_where_it_lies(
    tmp_path: Path, shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("trainer.max_steps=4", "validate.every_steps=2", "save.every_steps=2", "trainer.gradient_clip_val=1.0")
    train(tmp_path / "plain", of_experts(shards, *options))
    moves: list[tuple[OneOnDevice, bool]] = []

    def moved(network: SpaceTimeTransformer, place: torch.device) -> SpaceTimeTransformer:
        """Give the weights other memory, as a move to another device does; there is none here."""
        for weight in network.parameters():
            weight.data = weight.data.clone()
        return network

    def note(self: OneOnDevice, expert: Any, place: torch.device) -> None:
        moves.append((self, expert == self.present))
        move(self, expert, place)

    move = OneOnDevice._move
    monkeypatch.setattr(SpaceTimeTransformer, "to", moved)
    monkeypatch.setattr(OneOnDevice, "_move", note)
    config = of_experts(shards, *options, "strategy=single", "strategy.offload_idle_expert=true", "trainer.devices=1")
    train(tmp_path / "offloaded", {**config, "trainer": {**config["trainer"], "max_steps": 2}})
    train(tmp_path / "offloaded", config, resume=True)
    expected, found = content(tmp_path / "plain"), content(tmp_path / "offloaded")
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert curve(tmp_path / "offloaded", "val/loss") == curve(tmp_path / "plain", "val/loss")
    assert len(moves) > 4
    in_one_run = [(before, leaves) for (run, before), (same, leaves) in pairwise(moves) if run is same]
    assert all(leaves != before for before, leaves in in_one_run), "one leaves before the other comes"


def test_offloading_needs_two_experts_and_one_device(tmp_path: Path, shards: Path) -> None:
    offloading = ("strategy=single", "strategy.offload_idle_expert=true", "trainer.devices=1")
    with pytest.raises(ConfigError, match=r"^strategy\.offload_idle_expert=true: the network does not consist of two"):
        build_training(configuration(shards, *offloading), tmp_path)
    with pytest.raises(ConfigError, match=r"^strategy: needs trainer\.devices=1, but there are 2 devices"):
        build_training(configuration(shards, "strategy=single", "trainer.devices=2"), tmp_path)


def test_everything_but_idle_experts_is_moved_to_the_device() -> None:
    model = nn.ModuleDict({"network": experts(), "other": nn.BatchNorm1d(2)})
    move_but_experts(model, torch.device("meta"))
    network = model["network"]
    assert isinstance(network, TwoExperts)
    assert network.device.type == "meta"
    assert {tensor.device.type for tensor in model["other"].state_dict().values()} == {"meta"}
    assert {weight.device.type for weight in network.parameters()} == {"cpu"}
    OneOnDevice(network).bring(HIGH)
    assert {weight.device.type for weight in network.high_noise.parameters()} == {"meta"}
    assert {weight.device.type for weight in network.low_noise.parameters()} == {"cpu"}
