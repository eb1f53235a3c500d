"""Sampler and guidance of ``vdm sample`` and ``vdm evaluate`` are the run's, and single keys of them can be changed."""

from pathlib import Path

import pytest

from tests.assembly.small_model import save_run, small_model
from tests.cli.conftest import RunVdm

UNIPC = {"_target_": "vdm.diffusion.samplers.unipc.UniPC", "num_steps": 5, "order": 2}
LINSPACE = {"_target_": "vdm.diffusion.samplers.spacing.Linspace"}
CLIP = {"num_frames": 2, "height": 8, "width": 8, "fps": 8, "label_names": []}


@pytest.fixture
def run(tmp_path: Path) -> None:
    """A run that samples by UniPC, which has keys that the DDIM of ``conf/sample.yaml`` lacks."""
    sampler = {**UNIPC, "spacing": LINSPACE}
    save_run(tmp_path / "run", small_model(), sampler=sampler, clip=CLIP, guidance_scale=1.0)


@pytest.mark.usefixtures("run")
@pytest.mark.parametrize("command", ["sample", "evaluate"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("sampler.order=9", "sampler.order: 9 is not allowed: must be 1, 2 or 3"),
        ("sampler.ordre=1", "sampler.ordre: unknown key: did you mean 'sampler.order'?"),
        ("sampler.eta=0", "sampler.eta: unknown key"),
        ("guidance.scael=2", "guidance.scael: unknown key: did you mean 'guidance.scale'?"),
    ],
)
def test_single_keys_are_held_to_the_components_of_the_run(
    run_vdm: RunVdm, command: str, change: str, message: str
) -> None:
    code, err = run_vdm(command, "checkpoint=run", change, "device=cpu")

    assert code == 2
    assert err.startswith(message)
    assert err.count("\n") == 1


@pytest.mark.usefixtures("run")
def test_single_key_changes_the_sampler_of_the_run(run_vdm: RunVdm, tmp_path: Path) -> None:
    code, err = run_vdm("sample", "checkpoint=run", "sampler.order=1", "sampler.num_steps=2", "device=cpu")

    assert code == 0, err
    (settings,) = tmp_path.rglob("settings.json")
    assert '"order": 1' in settings.read_text()
    assert '"vdm.diffusion.samplers.unipc.UniPC"' in settings.read_text()
