from typing import Any

import pytest
import torch

from tests.assembly.small_model import small_model
from vdm.assembly.model import VideoDiffusionModel
from vdm.generation.tasks import extension, interpolation, super_resolution
from vdm.models.autoencoder import Compression


class LatentEncoder:
    """Stands for an encoder of latents at half resolution."""

    channels = 3
    compression = Compression(pixels=2)


class ClipEncoder:
    """Stands for an encoder whose latent frames, after the first, are four frames."""

    channels = 3
    compression = Compression(frames=4)


@pytest.fixture(scope="module")
def model() -> VideoDiffusionModel:
    return small_model()


def model_with(encoder: Any) -> VideoDiffusionModel:
    made = small_model()
    made.encoder = encoder
    return made


VIDEO = torch.arange(3 * 5 * 8 * 8).reshape(3, 5, 8, 8).to(torch.uint8)


def test_extension_knows_the_first_frames(model: VideoDiffusionModel) -> None:
    known = extension(model, VIDEO, 8)

    assert known.indices == (0, 1, 2, 3, 4)
    assert known.frames is not None
    assert torch.equal(known.frames, VIDEO)
    assert known.small is None


def test_interpolation_knows_every_third_frame(model: VideoDiffusionModel) -> None:
    assert interpolation(model, VIDEO, 3, 13).indices == (0, 3, 6, 9, 12)
    assert interpolation(model, VIDEO, 3, 15).indices == (0, 3, 6, 9, 12)


def test_super_resolution_knows_all_frames_in_small(model: VideoDiffusionModel) -> None:
    known = super_resolution(model, VIDEO, 5, 16, 16)

    assert (known.frames, known.indices) == (None, ())
    assert known.small is not None
    assert torch.equal(known.small, VIDEO)


def test_latent_models_can_t_enlarge() -> None:
    with pytest.raises(
        ValueError, match=r"^task=superres: the model must diffuse pixels \(encoder=pixels\), not latents$"
    ):
        super_resolution(model_with(LatentEncoder()), VIDEO, 5, 16, 16)


def test_latents_of_several_frames_take_no_single_frames_between_others() -> None:
    with pytest.raises(ValueError, match=r"^task=interpolate: a latent frame of the model stands for 4 frames, and"):
        interpolation(model_with(ClipEncoder()), VIDEO, 3, 13)


def test_videos_are_extended_from_as_many_frames_as_a_clip_can_have() -> None:
    model = model_with(ClipEncoder())

    assert extension(model, VIDEO, 9).indices == (0, 1, 2, 3, 4)
    with pytest.raises(ValueError, match=r"^input_frames=4: the autoencoder takes 4k \+ 1 frames: 1 or 5$"):
        extension(model, VIDEO[:, :4], 9)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((6, 16, 16), r"num_frames=6: must be that of the input, 5"),
        ((5, 20, 20), r"input: has frames of 8x8, but must have 20x20 divided by 2 or a greater number"),
        ((5, 16, 24), r"input: has frames of 8x8, but must have 16x24 divided by 2 or a greater number"),
        ((5, 8, 8), r"input: has frames of 8x8, but must have 8x8 divided by 2 or a greater number"),
        ((5, 4, 4), r"input: has frames of 8x8, but must have 4x4 divided by 2 or a greater number"),
    ],
)
def test_sizes_that_are_no_multiple_are_refused(
    model: VideoDiffusionModel, size: tuple[int, int, int], message: str
) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        super_resolution(model, VIDEO, *size)


def test_inputs_that_don_t_fit_are_refused(model: VideoDiffusionModel) -> None:
    with pytest.raises(ValueError, match=r"^num_frames=5: the input alone has 5; ask for more, or take fewer: "):
        extension(model, VIDEO, 5)
    with pytest.raises(ValueError, match=r"^num_frames=12: the input's 5 frames, 3 apart, need 13$"):
        interpolation(model, VIDEO, 3, 12)
    with pytest.raises(ValueError, match=r"^every=1: must be at least 2, or no frame is missing$"):
        interpolation(model, VIDEO, 1, 12)
    with pytest.raises(ValueError, match=r"^input: interpolation needs two frames or more, but there is one$"):
        interpolation(model, VIDEO[:, :1], 2, 12)
