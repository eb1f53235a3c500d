"""One of each kind is added from outside the package: a class, a YAML of its own, and nothing else."""

import os
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from data_pipelines.cli import COMMANDS
from tests.cli.conftest import RunVdm, run_vdm
from tests.extending.parts import OwnAutoencoder
from tests.training.runs import TINY
from vdm.assembly.model import VideoDiffusionModel
from vdm.checkpoints.run_record import load_config
from vdm.cli.commands import run_program
from vdm.diffusion.samplers.ddim import DDIM
from vdm.types import ClipSize

__all__ = ["run_vdm"]  # a fixture

EXAMPLE = Path(__file__).parents[2] / "docs" / "example"
OWN = f"hydra.searchpath=[file://{Path(__file__).parent / 'conf'},file://{EXAMPLE / 'conf'}]"
TINY_TRAINING = [option for option in TINY if not option.startswith(("model.network", "sampler."))]


@pytest.fixture(autouse=True)
def parts_are_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in (EXAMPLE, Path(__file__).parents[2]):
        monkeypatch.syspath_prepend(os.fspath(folder))


def _vdm_data(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["vdm-data", *arguments])
    return run_program("vdm-data", COMMANDS)


def test_source_network_autoencoder_objective_and_sampler(
    run_vdm: RunVdm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    clip = ("clip.num_frames=5", "clip.height=16", "clip.width=16")
    built = _vdm_data(monkeypatch, "build", "source=own", "input=abcd", "output=shards", *clip, "num_workers=0", OWN)
    assert built == 0
    assert capfd.readouterr().out.startswith("shards: clips: train 9, validation 3\nNext: ")

    chosen = ("model=my_network", "encoder=own", "objective=my_objective", "sampler=my_sampler", "text_encoder=bytes")
    code, err = run_vdm(
        "train", "data.path=shards", *chosen, *TINY_TRAINING, "sampler.num_steps=3", "hydra.run.dir=run", OWN
    )
    assert code == 0, err
    model = VideoDiffusionModel.from_checkpoint(tmp_path / "run", allow_own_code=True)
    parts = (model.network, model.encoder, model.sampler)
    assert [type(part).__name__ for part in parts] == ["TwoConvolutions", "OwnAutoencoder", "MySampler"]
    assert load_config(tmp_path / "run")["objective"]["_target_"] == "my_package.objective.AbsoluteError"

    code, err = run_vdm("sample", "checkpoint=run", "prompts=letter a", "output=out", "allow_own_code=true")
    assert code == 0, err
    assert (tmp_path / "out" / "0000-letter-a.mp4").is_file()
    code, err = run_vdm("evaluate", "checkpoint=run", "num_levels=2", "allow_own_code=true")
    assert code == 0, err
    code, err = run_vdm("sample", "checkpoint=run", "prompts=letter a", "output=other")
    assert code == 2
    assert err.startswith("encoder._target_: 'tests.extending.parts.OwnAutoencoder' is not allowed")

    noise = torch.randn(1, *OwnAutoencoder().latent_shape(ClipSize(5, 16, 16)))
    ours = model.sample(noise, ["letter a"])
    model.sampler = DDIM(num_steps=3)
    torch.testing.assert_close(ours, model.sample(noise, ["letter a"]))


def test_published_family(run_vdm: RunVdm, tmp_path: Path) -> None:
    from my_package.network import TwoConvolutions

    family, weights = "+pretrained@families.OwnPipeline=own", TwoConvolutions(3, width=4).state_dict()
    (tmp_path / "published").mkdir()
    (tmp_path / "published" / "model_index.json").write_text('{"_class_name": "OwnPipeline"}')
    save_file(weights, tmp_path / "published" / "network.safetensors")

    code, err = run_vdm("import", "from=published", "to=run", family, OWN)
    assert code == 0, err
    found = VideoDiffusionModel.from_checkpoint(tmp_path / "run", allow_own_code=True).network.state_dict()
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in weights.items())
