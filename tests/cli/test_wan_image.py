"""Wan's image-to-video pipelines imported, sampled, tuned and exported, on small models that diffusers saved."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import WanImageToVideoPipeline
from PIL import Image

import vdm
from tests.cli.conftest import RunVdm
from tests.models.dit.pipelines import image_pipeline
from vdm.randomness import normal

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # NumPy's, in diffusers

CAPTIONS = ["a red dog runs", "cat"]
NOISE = normal(0, "noise", range(2), (4, 3, 4, 8))  # 9 frames of 16x32 pixels


@pytest.fixture(autouse=True)
def captions_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pipeline would clean captions with a library that is not installed."""
    monkeypatch.setattr("diffusers.pipelines.wan.pipeline_wan_i2v.prompt_clean", lambda text: text)


def picture(number: int) -> Image.Image:
    values = torch.rand(16, 32, 3, generator=torch.Generator().manual_seed(number))
    return Image.fromarray((255 * values).byte().numpy())


def latents_of_diffusers(
    pipeline: WanImageToVideoPipeline, caption: str, noise: torch.Tensor, last: bool
) -> torch.Tensor:
    return pipeline(
        picture(0),
        caption,
        negative_prompt="a cat",
        height=16,
        width=32,
        num_frames=9,
        num_inference_steps=5,
        guidance_scale=5.0,
        latents=noise,
        last_image=picture(1) if last else None,
        output_type="latent",
    ).frames


@pytest.mark.parametrize(
    ("kind", "last"),
    [("I2V", False), ("FLF2V", True), ("TI2V", False), ("I2V of Wan 2.2", False), ("I2V of Wan 2.2", True)],
)
def test_sampled_latents_equal_those_of_diffusers(kind: str, last: bool, run_vdm: RunVdm, tmp_path: Path) -> None:
    published = image_pipeline(kind)
    published.save_pretrained(tmp_path / "published")
    code, err = run_vdm("import", "from=published", "to=run")
    assert code == 0, err
    pipe = vdm.load_model(tmp_path / "run")
    pipe.model.sampler = replace(pipe.model.sampler, num_steps=5)

    latents = pipe(
        CAPTIONS,
        image=picture(0),
        last_image=picture(1) if last else None,
        negative="a cat",
        num_frames=9,
        height=16,
        width=32,
        guidance_scale=5.0,
        noise=NOISE,
        output="latents",
        progress=False,
    ).content
    for caption, noise, ours in zip(CAPTIONS, NOISE, latents, strict=True):
        expected = latents_of_diffusers(published, caption, noise[None], last)
        torch.testing.assert_close(ours[None], expected, rtol=1e-4, atol=1e-4)
