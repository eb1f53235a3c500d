"""Image-to-video with Stable Video Diffusion's parts, against diffusers' pipeline with the same parts and noise."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from tests.models.svd.peers import our_unet
from tests.models.svd.pipelines import NUM_FRAMES, SIZES, pipeline, save_pipeline
from vdm.assembly.model import VideoDiffusionModel
from vdm.diffusion.gaussian import GaussianDiffusion
from vdm.diffusion.guidance import Extrapolation
from vdm.diffusion.loss_weights import Simple
from vdm.diffusion.noise_levels import LogNormal
from vdm.diffusion.parameterizations import QuarterLogSigma, V
from vdm.diffusion.samplers.euler import Euler
from vdm.diffusion.samplers.spacing import Karras
from vdm.diffusion.schedules.variance_exploding import VarianceExploding
from vdm.generation.frame_blocks import BlockSize, plan_blocks
from vdm.generation.generate import generate
from vdm.models.svd.components import ClipImageEncoder, TemporalAutoencoder
from vdm.models.svd.conditioner import MicroConditioning, SVDConditioner
from vdm.prompts import Prompts
from vdm.randomness import normal
from vdm.types import ClipSize

SIZE = (8, 16)


def our_model(folder: Path) -> VideoDiffusionModel:
    network = our_unet(SIZES)
    network.load_state_dict(pipeline().unet.state_dict())
    return VideoDiffusionModel(
        network,
        SVDConditioner(ClipImageEncoder(str(folder))),
        TemporalAutoencoder(str(folder), chunk_frames=None),
        GaussianDiffusion(
            VarianceExploding(0.002, 700.0),
            V(QuarterLogSigma()),
            LogNormal(p_mean=0.7, p_std=1.6),
            Simple(),
            clip_denoised=None,
        ),
        Euler(25, Karras(sigma_min=0.002, sigma_max=700.0)),
        Extrapolation(scale=3.0, first_scale=1.0),
    ).eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pipeline(tmp_path_factory.mktemp("svd"))


def given_frame() -> Tensor:
    return (normal(0, "frame", [0], (3, *SIZE)).clamp(-1, 1) * 127 + 128).byte()


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # between diffusers and numpy
@pytest.mark.parametrize(
    ("motion", "steps"), [(MicroConditioning(), 25), (MicroConditioning(12, 40, 0.3), 4)], ids=["defaults", "others"]
)
def test_sampled_latents_equal_those_of_diffusers(
    folder: Path, motion: MicroConditioning, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame, augmentation = given_frame(), normal(0, "augmentation", [0], (3, *SIZE))
    noise = normal(0, "noise", [0], (4, NUM_FRAMES, SIZE[0] // 2, SIZE[1] // 2))
    monkeypatch.setattr(
        "diffusers.pipelines.stable_video_diffusion.pipeline_stable_video_diffusion.randn_tensor",
        lambda shape, **_: augmentation.reshape(shape),
    )
    expected = pipeline()(
        Image.fromarray(rearrange(frame, "1 c h w -> h w c").numpy()),
        height=SIZE[0],
        width=SIZE[1],
        num_frames=NUM_FRAMES,
        num_inference_steps=steps,
        fps=int(motion.fps),
        motion_bucket_id=int(motion.motion_bucket_id),
        noise_aug_strength=motion.noise_aug_strength,
        latents=rearrange(noise, "b c t h w -> b t c h w"),
        output_type="latent",
    ).frames

    model = our_model(folder)
    model.sampler = replace(model.sampler, num_steps=steps)
    prompts = Prompts.of([""])
    prompts = model.conditioner.with_first_frame(prompts, frame, model.encoder, motions=[motion], noise=augmentation)
    latents = model.sample(noise, prompts)
    torch.testing.assert_close(rearrange(latents, "b c t h w -> b t c h w"), expected, rtol=1e-4, atol=1e-4)


def test_clips_of_a_batch_have_frames_and_motions_of_their_own(folder: Path) -> None:
    model = our_model(folder)
    model.sampler = Euler(3, Karras(sigma_min=0.002, sigma_max=700.0))
    frames = torch.cat([given_frame(), given_frame().flip(3)])
    motions = [MicroConditioning(), MicroConditioning(25, 3, 0.5)]
    noise = normal(0, "noise", range(2), (4, NUM_FRAMES, SIZE[0] // 2, SIZE[1] // 2))
    augmentation = normal(0, "augmentation", range(2), (3, *SIZE))

    def made(rows: slice) -> Tensor:
        prompts = Prompts.of([""] * len(frames[rows]))
        prompts = model.conditioner.with_first_frame(
            prompts, frames[rows], model.encoder, motions=motions[rows], noise=augmentation[rows]
        )
        return model.sample(noise[rows], prompts)

    together = made(slice(0, 2))
    for row in range(2):
        torch.testing.assert_close(together[row : row + 1], made(slice(row, row + 1)), rtol=1e-4, atol=1e-4)


def test_without_its_first_frame_a_clip_keeps_its_numbers(folder: Path) -> None:
    model = our_model(folder)
    prompts = model.prompts("", image=given_frame())
    without = model.conditioner(prompts.without_conditions(), NUM_FRAMES)
    given = model.conditioner(prompts, NUM_FRAMES)

    assert without.text is not None
    assert without.image is not None
    assert not without.text.any()
    assert not without.image.any()
    torch.testing.assert_close(without.extra["added_time_ids"], torch.tensor([[6, 127, 0.02]]))
    assert given.image is not None
    assert given.image.shape == (1, 4, NUM_FRAMES, SIZE[0] // 2, SIZE[1] // 2)
    torch.testing.assert_close(given.extra["added_time_ids"], without.extra["added_time_ids"])


def test_a_video_is_made_from_a_picture(folder: Path) -> None:
    model = our_model(folder)
    model.sampler = Euler(2, Karras(sigma_min=0.002, sigma_max=700.0))
    video = model(
        normal(0, "noise", [0], (4, NUM_FRAMES, SIZE[0] // 2, SIZE[1] // 2)), model.prompts("", image=given_frame())
    )

    assert video.shape == (1, 3, NUM_FRAMES, *SIZE)
    assert video.dtype == torch.uint8


def test_later_blocks_are_the_same_whatever_the_batch_and_follow_the_seed(folder: Path) -> None:
    model = our_model(folder)
    model.sampler = Euler(2, Karras(sigma_min=0.002, sigma_max=700.0))
    model.conditioner.options = MicroConditioning(noise_aug_strength=0.5)
    size = ClipSize(NUM_FRAMES + 2, *SIZE)
    blocks = plan_blocks(size.num_frames, BlockSize(NUM_FRAMES, 2), ())

    def videos(batch_size: int, seed: int = 3) -> Tensor:
        prompts = model.prompts([""] * 3, image=given_frame().expand(3, -1, -1, -1), seed=seed)
        return generate(model, prompts, size, seed, batch_size, blocks=blocks).int()

    together = videos(3)
    assert (videos(1) - together).abs().max() <= 1
    assert (videos(3, seed=4)[:, :, 0] - together[:, :, 0]).abs().max() > 1
