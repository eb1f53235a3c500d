"""The same noise gives the same video on a GPU and on the CPU: all that is random is drawn on the CPU."""

import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from tests.assembly.small_model import small_model
from tests.training.runs import configuration, train
from vdm.diffusion.samplers.base import Sampler
from vdm.diffusion.samplers.ddim import DDIM
from vdm.diffusion.samplers.ddpm import DDPM
from vdm.diffusion.samplers.unipc import UniPC

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("default")]

SAMPLERS = [DDIM(num_steps=4), DDPM(num_steps=4), UniPC(num_steps=4)]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: type(sampler).__name__)
def test_latents_are_those_of_the_cpu(device: str, sampler: Sampler) -> None:
    model = small_model().eval()
    model.sampler = sampler
    noise = torch.randn(2, 3, 5, 16, 16, generator=torch.Generator().manual_seed(0))
    image = torch.randint(256, (2, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))

    def latents() -> torch.Tensor:
        return model.sample(noise, model.prompts(["a dog runs", "a cat sleeps"], [0, 2], image)).cpu()

    expected = latents()
    model.to(device)
    assert expected.std() > 0.1
    torch.testing.assert_close(latents(), expected, rtol=1e-3, atol=1e-3)


def frames(path: Path) -> np.ndarray:
    with av.open(path) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]).astype(float)


def test_videos_by_command_are_those_of_the_cpu(tmp_path: Path, shards: Path, device: str) -> None:
    train(tmp_path / "run", configuration(shards, "trainer.max_steps=4", "optimizer.lr=1e-2"))
    for name, place in (("expected", "cpu"), ("found", device)):
        command = [f"checkpoint={tmp_path / 'run'}", "prompts=clip 1", f"device={place}", f"output={tmp_path / name}"]
        subprocess.run([sys.executable, "-m", "vdm.cli.main", "sample", *command], check=True, timeout=300)
    paths = sorted((tmp_path / "found").glob("*.mp4"))
    assert paths
    for path in paths:
        difference = np.abs(frames(path) - frames(tmp_path / "expected" / path.name))
        assert difference.max() <= 8  # a rounded colour, and what the codec makes of it
