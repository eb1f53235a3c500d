"""Known frames: the network gets the same input in training as in sampling, and what it gets is not in the loss."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.assembly.small_model import small_model
from tests.models.networks import random_input
from vdm.assembly.model import VideoDiffusionModel
from vdm.diffusion.observations import CleanFrames, Frames, Observation
from vdm.objectives.batch_randomness import TrainingRandomness
from vdm.objectives.denoising import Denoising
from vdm.objectives.latents import LatentBatch

SHAPE = (2, 4, 5, 8, 8)
X0, NOISE = random_input("x0", *SHAPE), random_input("noise", *SHAPE)
CHOICES = {
    "FirstFrames": ({"min_frames": 2, "max_frames": 2}, (0, 1)),
    "LastFrames": ({}, (4,)),
    "BothEnds": ({}, (0, 4)),
    "EveryKthFrame": ({"every": 2}, (0, 2, 4)),
}


def model(**changes: object) -> VideoDiffusionModel:
    """Return a space-time transformer with rectified flow, so that latents at t = 1 are the noise itself."""
    network = {
        "_target_": "vdm.models.dit.transformer.SpaceTimeTransformer",
        **{"num_layers": 1, "num_heads": 2, "head_channels": 6, "hidden_channels": 8, "in_channels": 4},
        "vector_conditioned": True,
    }
    return small_model(
        model__network=network,
        model__conditioner__image=False,
        encoder={"_target_": "tests.assembly.test_known_frames.FourChannels"},
        diffusion__schedule={"_target_": "vdm.diffusion.schedules.rectified_flow.RectifiedFlow"},
        diffusion__parameterization={
            "_target_": "vdm.diffusion.parameterizations.Velocity",
            "c_noise": {"_target_": "vdm.diffusion.parameterizations.FlowTimestep"},
        },
        diffusion__clip_denoised=None,
        sampler={"_target_": "vdm.diffusion.samplers.euler.Euler", "num_steps": 2},
        **changes,
    )


class FourChannels:
    """Latents of four channels, which nothing decodes."""

    channels = 4


class Recorded:
    """What a network was given."""

    def __init__(self, model: VideoDiffusionModel) -> None:
        self.inputs: list[tuple[Tensor, Tensor]] = []
        model.network.register_forward_pre_hook(lambda _, given: self.inputs.append((given[0], given[1])))


@pytest.mark.parametrize("name", CHOICES)
def test_the_network_is_given_known_frames_in_training_as_in_sampling(name: str) -> None:
    options, known = CHOICES[name]
    frames = {"_target_": f"vdm.known_frames.{name}", **options}
    levels = {"_target_": "vdm.diffusion.frame_levels.KnownFramesClean", "frames": frames}
    trained = model(diffusion__frame_levels=levels)
    recorded, prompts = Recorded(trained), trained.prompts(["a", "b"], [0, 1])

    class AtTheEnd(TrainingRandomness):
        def noise(self, *_: Any) -> Tensor:
            return NOISE

        def times(self, diffusion: Any, shape: tuple[int, ...], num_images: int = 0) -> Any:
            return diffusion.frame_levels(lambda _: torch.ones(2), lambda _: torch.zeros(2), shape[1], num_images)

    Denoising()(trained, LatentBatch(X0, prompts), AtTheEnd(0, [0, 1], global_batch_size=2))
    observed = Observation(X0[:, :, list(known)], Frames(known, SHAPE[2]))
    latents = trained.sample(NOISE, prompts, observations=[observed], method=CleanFrames())

    (of_training, *of_sampling) = recorded.inputs
    for each in of_sampling[:2]:  # with conditions, and without
        assert all(torch.equal(one, other) for one, other in zip(each, of_training, strict=True))
    unknown = [frame for frame in range(SHAPE[2]) if frame not in known]
    for xt, c_noise in of_sampling:
        assert torch.equal(xt[:, :, list(known)], X0[:, :, list(known)])
        assert not c_noise[:, list(known)].any()
        assert c_noise[:, unknown].all()
    assert torch.equal(latents[:, :, list(known)], X0[:, :, list(known)])


def test_a_reference_clip_stands_before_the_clip_and_is_not_in_the_loss() -> None:
    trained = model()
    recorded, prompts = Recorded(trained), trained.prompts(["a", "b"], [0, 1])
    reference = random_input("reference", 2, 4, 3, 8, 8)
    t = torch.tensor([0.3, 0.8])
    loss = trained.denoising_loss(X0, NOISE, t, prompts, reference=reference)

    # The same as one clip that begins with known frames.
    whole, noise = torch.cat([reference, X0], 2), torch.cat([torch.randn_like(reference), NOISE], 2)
    counted = (torch.arange(8) >= 3).expand(2, -1)
    times = torch.where(counted, t[:, None], 0)
    torch.testing.assert_close(loss, trained.denoising_loss(whole, noise, times, prompts, counted=counted))
    assert all(torch.equal(*each) for each in zip(*recorded.inputs, strict=True))


def test_a_reference_clip_is_given_in_sampling_as_in_training() -> None:
    trained = model()
    recorded, prompts = Recorded(trained), trained.prompts(["a", "b"], [0, 1])
    reference = random_input("reference", 2, 4, 3, 8, 8)
    trained.denoising_loss(X0, NOISE, torch.ones(2), prompts, reference=reference)
    latents = trained.sample(NOISE, prompts, reference=reference)

    (of_training, *of_sampling) = recorded.inputs
    for each in of_sampling[:2]:  # with conditions, and without
        assert all(torch.equal(one, other) for one, other in zip(each, of_training, strict=True))
    assert latents.shape == SHAPE
    for xt, c_noise in of_sampling:
        assert torch.equal(xt[:, :, :3], reference)
        assert not c_noise[:, :3].any()
    # The same as sampling a longer clip whose first frames are known.
    known = Observation(reference, Frames((0, 1, 2), 8))
    noise = torch.cat([torch.zeros_like(reference), NOISE], 2)
    whole = trained.sample(noise, prompts, observations=[known], method=CleanFrames())
    torch.testing.assert_close(latents, whole[:, :, 3:])
