"""EMAs against their formulas, and post-hoc EMAs against averages of the weights of all steps."""

import math
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from omegaconf import OmegaConf
from scipy.integrate import quad
from torch import Tensor, nn

from tests.training.runs import configuration, train
from vdm.checkpoints.folder import CHECKSUMS_NAME
from vdm.checkpoints.latest import latest_checkpoint
from vdm.checkpoints.layout import ema_snapshots_of, step_of
from vdm.checkpoints.run_config import RunConfig
from vdm.checkpoints.weights import load_weights
from vdm.cli import ema as command
from vdm.config import ConfigError
from vdm.training.callbacks import samples
from vdm.training.ema import EMA
from vdm.training.power_functions import MAX_SIGMA_REL, PowerFunction, gamma_of, reconstruct
from vdm.training.training_run import build_training


def averaged(ema: EMA, trajectory: Tensor) -> dict[str, float]:
    """Return the averages of a weight that takes one value after another, the first before training."""
    weight = trajectory[:1].clone()
    ema.follow({"w": weight}, clips_per_step=4)
    for value in trajectory[1:]:
        weight.fill_(value)
        ema.update()
    return {name: average["w"].item() for name, average in ema.weights.items()}


def shares_of_steps(sigma_rel: float, num_steps: int) -> np.ndarray:
    """Return the integral of the power function over each step, which is that step's share of the average."""
    return np.diff((np.arange(num_steps + 1) / num_steps) ** (gamma_of(sigma_rel) + 1))


def test_share_of_a_step_halves_within_a_half_life() -> None:
    trajectory = torch.zeros(1 + 200)
    trajectory[100] = 1.0  # as the 100th of 200 steps leaves it
    at_end = averaged(EMA(half_lives=[40, 80], warm_up=1e9), trajectory)
    share = {half_life: 1 - 0.5 ** (4 / half_life) for half_life in (40, 80)}
    assert at_end["half_life_40"] == pytest.approx(share[40] * 0.5 ** (100 * 4 / 40), rel=1e-4)
    assert at_end["half_life_80"] == pytest.approx(share[80] * 0.5 ** (100 * 4 / 80), rel=1e-4)


def test_half_life_is_a_share_of_the_past_while_warming_up() -> None:
    trajectory = torch.tensor([1.0, 0.0, 0.0, 0.0])
    expected = math.prod(0.5 ** (1 / (0.5 * step)) for step in (1, 2, 3))
    assert averaged(EMA(half_lives=[1e6], warm_up=0.5), trajectory)["half_life_1000000"] == pytest.approx(expected)
    assert averaged(EMA(half_lives=[1e6], warm_up=0.0), trajectory)["half_life_1000000"] == 0


@pytest.mark.parametrize("sigma_rel", [0.05, 0.1, 0.25])
def test_power_function_average_is_the_weighted_mean_of_all_steps(sigma_rel: float) -> None:
    trajectory = torch.randn(1 + 60, generator=torch.Generator().manual_seed(0))
    expected = shares_of_steps(sigma_rel, 60) @ trajectory[1:].double().numpy()
    found = averaged(EMA(half_lives=[], sigma_rels=[sigma_rel]), trajectory)
    assert found == {f"sigma_rel_{sigma_rel}": pytest.approx(expected, abs=1e-5)}


@pytest.mark.parametrize("sigma_rel", [0.02, 0.1, 0.28])
def test_profile_has_the_deviation_asked_for(sigma_rel: float) -> None:
    density = PowerFunction(sigma_rel, 10).density
    first_step = quad(lambda x: float(density(np.array(x))), 0, 1)[0]
    assert first_step == pytest.approx(shares_of_steps(sigma_rel, 10)[0])
    total, mean, square = (quad(lambda x, k=k: x**k * float(density(np.array(x))), 0, 10)[0] for k in (0, 1, 2))
    assert total == pytest.approx(1)
    assert math.sqrt(square - mean**2) / 10 == pytest.approx(sigma_rel, rel=1e-6)
    assert mean / 10 == pytest.approx((gamma_of(sigma_rel) + 1) / (gamma_of(sigma_rel) + 2))


def test_products_and_errors_of_profiles_are_integrals() -> None:
    one, other = PowerFunction(0.1, 7), PowerFunction(0.05, 10)
    product = quad(lambda x: float(one.density(np.array(x)) * other.density(np.array(x))), 0, 7)[0]
    assert one.dot(other) == pytest.approx(product)
    assert other.dot(one) == pytest.approx(product)

    found = reconstruct(PowerFunction(0.15, 10), [PowerFunction(s, t) for t in (4, 7, 10) for s in (0.05, 0.1)])

    def difference(x: float) -> float:
        made = sum(s * float(p.density(np.array(x))) for p, s in zip(found.sources, found.shares, strict=True))
        return made - float(found.target.density(np.array(x)))

    squares = sum(quad(lambda x: difference(x) ** 2, *ends)[0] for ends in ((0, 4), (4, 7), (7, 10)))
    assert found.error == pytest.approx(math.sqrt(squares / found.target.dot(found.target)), rel=1e-6)
    assert sum(found.shares) == pytest.approx(1)


@pytest.mark.parametrize(("sigma_rel", "most"), [(0.03, 0.03), (0.07, 0.003), (0.15, 0.006), (0.2, 0.02)])
def test_ema_of_any_length_is_made_of_twenty_snapshots_of_two(sigma_rel: float, most: float) -> None:
    snapshots = [PowerFunction(s, step) for step in range(50, 1001, 50) for s in (0.05, 0.1)]
    found = reconstruct(PowerFunction(sigma_rel, 1000), snapshots)
    assert found.error < most
    # On a trajectory: weights that settle with noise, as those in training do.
    steps = np.arange(1, 1001)
    weights = 5 * np.exp(-steps / 300) + np.random.default_rng(0).standard_normal(1000)
    wanted = shares_of_steps(sigma_rel, 1000) @ weights
    made = sum(
        share * (shares_of_steps(p.sigma_rel, p.step) @ weights[: p.step])
        for p, share in zip(snapshots, found.shares, strict=True)
    )
    assert made == pytest.approx(wanted, abs=most)


def test_post_hoc_ema_is_the_average_of_the_weights_of_all_steps(tmp_path: Path, shards: Path) -> None:
    seen: list[dict[str, Tensor]] = []

    class Record(Callback):
        def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: Any, *args: object) -> None:
            seen.append({name: weight.detach().clone() for name, weight in pl_module.named_parameters()})

    every_step = ("callbacks.averages.every_steps=1", "callbacks.averages.dtype=fp32")
    config = configuration(shards, "averages=post_hoc", *every_step, "trainer.max_steps=8")
    training = build_training(config, tmp_path)
    training.trainer.callbacks.append(Record())  # type: ignore[attr-defined]
    training.record()
    training.fit()
    assert len(ema_snapshots_of(tmp_path)) == 8

    command.run(OmegaConf.create({"checkpoint": str(tmp_path), "sigma_rel": 0.2, "output": None}))

    made = tmp_path / "ema" / "sigma_rel_0.2"
    assert latest_checkpoint(made).name == "step=00000008"
    assert RunConfig.read(made).plain() == RunConfig.read(tmp_path).plain()
    assert (made / "profile.png").stat().st_size > 0
    shares = shares_of_steps(0.2, 8)
    found, last = load_weights(made), load_weights(tmp_path, ema=False)
    assert found.keys() == last.keys()
    for name in seen[0]:
        expected = sum(share * weights[name].double() for share, weights in zip(shares, seen, strict=True))
        moved = (seen[-1][name] - seen[0][name]).abs().max().item()
        torch.testing.assert_close(found[name].double(), expected, rtol=0, atol=0.02 * moved + 1e-6, msg=name)
    for name in ("half_life_110000", "sigma_rel_0.05", "sigma_rel_0.1"):
        torch.testing.assert_close(
            load_weights(tmp_path, ema=name)[min(seen[0])], training.module.ema.weights[name][min(seen[0])]
        )
    with pytest.raises(ValueError, match=r"^ema=long: EMAs in .*: half_life_110000, sigma_rel_0\.05, sigma_rel_0\.1"):
        load_weights(tmp_path, ema="long")


def test_snapshot_is_there_where_its_checkpoint_is(
    tmp_path: Path, shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampling = "{_target_: vdm.training.callbacks.samples.SampleVideos, every_steps: 2, num_videos: 1}"
    every_two = ("callbacks.averages.every_steps=2", "save.every_steps=2", f"callbacks.samples={sampling}")
    config = configuration(shards, "averages=post_hoc", *every_two)
    train(tmp_path / "whole", config)

    def die(*args: object) -> None:
        raise RuntimeError("killed")

    monkeypatch.setattr(samples, "generate", die)
    with pytest.raises(RuntimeError, match="killed"):
        train(tmp_path / "parts", config)
    monkeypatch.undo()
    assert step_of(latest_checkpoint(tmp_path / "parts")) == 2
    stale = tmp_path / "parts" / "averages" / ".step=00000003.partial"
    stale.mkdir(parents=True)
    train(tmp_path / "parts", config, resume=True)
    folders = {run: sorted((tmp_path / run / "averages").iterdir()) for run in ("whole", "parts")}
    assert [folder.name for folder in folders["parts"]] == ["step=00000002", "step=00000004"]
    for found, expected in zip(folders["parts"], folders["whole"], strict=True):
        assert (found / CHECKSUMS_NAME).read_text() == (expected / CHECKSUMS_NAME).read_text()


def test_damaged_snapshot_is_passed_over(tmp_path: Path, shards: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = configuration(shards, "averages=post_hoc", "callbacks.averages.every_steps=1")
    train(tmp_path, config)
    damaged = ema_snapshots_of(tmp_path)[1] / "sigma_rel_0.1.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    command.run(OmegaConf.create({"checkpoint": str(tmp_path), "sigma_rel": 0.1, "output": str(tmp_path / "made")}))
    assert f"{damaged}: damaged" in caplog.text
    expected = load_weights(tmp_path, ema="sigma_rel_0.1")
    for name, weight in load_weights(tmp_path / "made").items():
        torch.testing.assert_close(weight, expected[name])


@pytest.mark.parametrize("sigma_rel", ["long", 0, MAX_SIGMA_REL, -1, True])
def test_impossible_length_is_one_line(tmp_path: Path, sigma_rel: object) -> None:
    with pytest.raises(ConfigError, match=rf"^sigma_rel={str(sigma_rel).lower()}: [^\n]*$"):
        command.run(OmegaConf.create({"checkpoint": str(tmp_path), "sigma_rel": sigma_rel, "output": None}))


def test_swapped_in_ema_is_swapped_out_again_even_after_an_error() -> None:
    module = nn.Linear(2, 2)
    spread: list[float] = []
    ema = EMA(half_lives=[8])
    ema.follow({"weight": module.weight.detach()}, 4, lambda: spread.append(module.weight.sum().item()))
    nn.init.ones_(module.weight)
    average = ema.first["weight"].clone()

    def fail() -> None:
        with ema.swapped_in():
            torch.testing.assert_close(module.weight.detach(), average)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    torch.testing.assert_close(module.weight.detach(), torch.ones(2, 2))
    torch.testing.assert_close(ema.first["weight"], average)
    assert spread == [pytest.approx(average.sum().item()), 4.0]
