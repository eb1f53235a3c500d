"""What is said of the time shift is what training and sampling do."""

import sys
from pathlib import Path

import pytest
import torch

from tests.data.shard_sets import write_set
from tests.training.runs import configuration, train
from vdm.assembly.time_shift import said_shift, shifts_by_size, time_shifts
from vdm.cli.commands import run_program
from vdm.cli.main import COMMANDS
from vdm.diffusion.samplers.euler import Euler
from vdm.diffusion.samplers.spacing import FlowSteps
from vdm.training.training_run import build_training
from vdm.types import ClipSize

CLIP = ClipSize(5, 16, 16)
FLOW = ("diffusion=rectified_flow", "diffusion/time_shift=constant", "diffusion.time_shift.shift=4")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("shards"), {"train": (5,), "validation": (2,)})


def test_shift_of_sampling_is_that_of_training_unless_told_otherwise(tmp_path: Path, shards: Path) -> None:
    model = build_training(configuration(shards, *FLOW), tmp_path).module.model
    shape = model.encoder.latent_shape(CLIP)
    assert time_shifts(model, CLIP) == (4.0, 4.0)
    assert said_shift(model, CLIP) == "4 in training and sampling"
    t = torch.tensor([0.5])
    alpha, sigma = model.diffusion.sampling_schedule(shape).alpha_sigma(t)
    assert float(sigma / alpha) == pytest.approx(4.0)

    model.sampler = Euler(4, spacing=FlowSteps(shift=12.0))
    assert said_shift(model, CLIP) == "4 in training, 12 in sampling"
    assert shifts_by_size(model, [(5, 16, 16)]) == {"5x16x16": "4 in training, 12 in sampling"}


def test_nothing_is_said_without_a_shift(tmp_path: Path, shards: Path) -> None:
    model = build_training(configuration(shards), tmp_path).module.model
    assert shifts_by_size(model, [(5, 16, 16)]) == {}


def test_sampling_with_another_shift_says_so(
    tmp_path: Path, shards: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tmp_path / "run", configuration(shards, *FLOW, "trainer.max_steps=1"))
    call = ("sample", f"checkpoint={tmp_path / 'run'}", "prompts=[a]", "sampler=euler", "sampler.num_steps=1")
    said = []
    for options in ((), ("sampler/spacing=flow", "sampler.spacing.shift=12")):
        monkeypatch.setattr(sys, "argv", ["vdm", *call, *options])
        assert run_program("vdm", COMMANDS) == 0
        said.append(capsys.readouterr().out)
    assert "Time shift" not in said[0]
    assert "Time shift: 4 in training, 12 in sampling" in said[1]
