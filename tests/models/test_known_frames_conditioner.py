"""Known frames told in channels: which of them, their latents, and their image tokens."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.models.wan import save_autoencoder
from vdm.known_frames import BothEnds, EveryKthFrame, FirstFrames
from vdm.models.autoencoder import PixelAutoencoder
from vdm.models.diffusers_autoencoders import FrameAutoencoder, WanAutoencoder
from vdm.models.dit.transformer import IMAGE_TOKENS
from vdm.models.known_frames_conditioner import KnownFramesConditioner
from vdm.objectives.condition_dropout import ConditionDropout
from vdm.prompts import Prompts
from vdm.types import ClipBatch

CAPTIONS = ("a", "b")


class Means:
    """One token: the mean of each colour."""

    channels, num_tokens = 3, 1

    def __call__(self, frames: Tensor) -> Tensor:
        return frames.float().mean((2, 3))[:, None] / 255


def video(num_frames: int = 9) -> Tensor:
    return torch.randint(256, (2, 3, num_frames, 8, 8), generator=torch.Generator().manual_seed(0)).byte()


def known(num_frames: int, *frames: int) -> Tensor:
    return torch.tensor([[frame in frames for frame in range(num_frames)]] * 2)


def batch(clips: Tensor) -> ClipBatch:
    return ClipBatch(
        clips, CAPTIONS, torch.tensor([-1, -1]), torch.arange(2), torch.ones(2), ("x", "y"), torch.full((2,), 16.0)
    )


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> WanAutoencoder:
    return WanAutoencoder(str(save_autoencoder(tmp_path_factory.mktemp("wan"))))


def test_a_first_and_a_last_frame_are_marked_where_their_latents_stand_for_them(encoder: WanAutoencoder) -> None:
    told = KnownFramesConditioner().with_known_frames(Prompts.of(CAPTIONS), video(), known(9, 0, 8), encoder)
    image = KnownFramesConditioner()(told, 3).image

    assert image is not None
    assert image.shape == (2, 4 + 4, 3, 2, 2)
    # The first latent frame stands for one frame, which is repeated; the last one for frames 5 to 8.
    mask = torch.tensor([[1, 0, 0], [1, 0, 0], [1, 0, 0], [1, 0, 1]])
    assert torch.equal(image[:, :4], mask[None, :, :, None, None].expand(2, 4, 3, 2, 2).float())


def test_latents_are_those_of_the_known_frames_among_grey_ones(encoder: WanAutoencoder) -> None:
    clips, is_known = video(), known(9, 0, 8)
    told = KnownFramesConditioner().with_known_frames(Prompts.of(CAPTIONS), clips, is_known, encoder)
    image = KnownFramesConditioner()(told, 3).image
    among_grey = torch.where(is_known[:, None, :, None, None], clips / 127.5 - 1, 0)
    expected = encoder.frozen.encode(among_grey).latent_dist.mode()
    mean, std = (torch.tensor(encoder.frozen.config[f"latents_{each}"]).view(-1, 1, 1, 1) for each in ("mean", "std"))

    assert image is not None
    torch.testing.assert_close(image[:, 4:], (expected - mean) / std)
    other = torch.where(is_known[:, None, :, None, None], clips, 255 - clips)
    again = KnownFramesConditioner().with_known_frames(Prompts.of(CAPTIONS), other, is_known, encoder)
    assert torch.equal(image, KnownFramesConditioner()(again, 3).image)  # unknown frames are not looked at


def test_where_nothing_is_known_the_network_is_told_zeros(encoder: WanAutoencoder) -> None:
    conditioner = KnownFramesConditioner(image_encoder=Means(), pictures="both_ends")
    told = conditioner.with_known_frames(Prompts.of(CAPTIONS), video(), known(9, 0, 8), encoder)
    dropped = conditioner(told.drop({"frames": torch.tensor([True, False])}), 3)
    whole, never = conditioner(told, 3), conditioner(Prompts.of(CAPTIONS), 3)

    assert dropped.image is not None
    assert whole.image is not None
    assert not dropped.image[0].any()
    assert not dropped.extra[IMAGE_TOKENS][0].any()
    assert torch.equal(dropped.image[1], whole.image[1])
    assert torch.equal(dropped.extra[IMAGE_TOKENS][1], whole.extra[IMAGE_TOKENS][1])
    assert never.image is None  # for which the network takes zeros
    assert torch.equal(never.extra[IMAGE_TOKENS], torch.zeros(2, 2, 3))


def test_guidance_and_dropping_all_leave_known_frames(encoder: WanAutoencoder) -> None:
    conditioner = KnownFramesConditioner()
    told = conditioner.with_known_frames(Prompts.of(CAPTIONS), video(), known(9, 0), encoder)
    dropped = ConditionDropout({"all": 1.0}).apply(told, 0, [0, 1])

    for prompts in (told.without_conditions(), dropped):
        assert prompts.captions == ("", "")
        assert torch.equal(conditioner(prompts, 3).image, conditioner(told, 3).image)
    alone = ConditionDropout({"frames": 1.0}).apply(told, 0, [0, 1])
    assert alone.captions == CAPTIONS
    assert not conditioner(alone, 3).image.any()


def test_only_known_pictures_have_image_tokens(encoder: WanAutoencoder) -> None:
    clips, conditioner = video(), KnownFramesConditioner(image_encoder=Means(), pictures="both_ends")

    def tokens(*frames: int) -> Tensor:
        told = conditioner.with_known_frames(Prompts.of(CAPTIONS), clips, known(9, *frames), encoder)
        return conditioner(told, 3).extra[IMAGE_TOKENS]

    first, last = Means()(clips[:, :, 0]), Means()(clips[:, :, -1])
    assert torch.equal(tokens(0, 8), torch.cat([first, last], 1))
    assert torch.equal(tokens(0), torch.cat([first, torch.zeros_like(last)], 1))
    assert torch.equal(tokens(8), torch.cat([torch.zeros_like(first), last], 1))


@pytest.mark.parametrize(
    ("conditioner", "needs", "takes_last"),
    [
        (KnownFramesConditioner(), "first", True),
        (KnownFramesConditioner(image_encoder=Means()), "first", False),
        (KnownFramesConditioner(image_encoder=Means(), pictures="both_ends"), "all", True),
        (KnownFramesConditioner(frames=EveryKthFrame()), "all", True),
    ],
)
def test_what_a_model_needs_follows_from_its_frames(
    conditioner: KnownFramesConditioner, needs: str, takes_last: bool
) -> None:
    assert (conditioner.needs_pixels, conditioner.takes_last_frame) == (needs, takes_last)
    expected = BothEnds() if conditioner.pictures == "both_ends" else FirstFrames()
    assert conditioner.frames in (expected, EveryKthFrame())


def test_training_tells_what_sampling_tells(encoder: WanAutoencoder) -> None:
    clips = video()
    conditioner = KnownFramesConditioner(image_encoder=Means(), pictures="both_ends")
    trained = conditioner.of_clips(batch(clips), encoder.encode(clips), encoder, 0, ["x", "y"])
    sampled = conditioner.with_known_frames(Prompts.of(CAPTIONS), clips, known(9, 0, 8), encoder)

    of_training, of_sampling = conditioner(trained, 3), conditioner(sampled, 3)
    assert torch.equal(of_training.image, of_sampling.image)
    assert torch.equal(of_training.extra[IMAGE_TOKENS], of_sampling.extra[IMAGE_TOKENS])


def test_beside_stored_latents_the_first_frame_is_enough(encoder: WanAutoencoder) -> None:
    clips, conditioner = video(), KnownFramesConditioner(image_encoder=Means())
    x0 = encoder.encode(clips)
    whole = conditioner.of_clips(batch(clips), x0, encoder, 0, ["x", "y"])
    stored = conditioner.of_clips(replace(batch(clips[:, :, :1]), latents=x0), x0, encoder, 0, ["x", "y"])

    assert torch.equal(conditioner(stored, 3).image, conditioner(whole, 3).image)
    assert torch.equal(conditioner(stored, 3).extra[IMAGE_TOKENS], conditioner(whole, 3).extra[IMAGE_TOKENS])


def test_frames_of_pixels_are_told_one_by_one() -> None:
    clips, conditioner = video(5), KnownFramesConditioner()
    told = conditioner.with_known_frames(Prompts.of(CAPTIONS), clips, known(5, 1, 3), PixelAutoencoder())
    image = conditioner(told, 5).image

    assert image is not None
    assert torch.equal(image[:, 0, :, 0, 0], known(5, 1, 3).float())
    assert torch.equal(image[:, 1:, [1, 3]], (clips / 127.5 - 1)[:, :, [1, 3]])
    assert not image[:, :, [0, 2, 4]].any()


def test_autoencoders_that_take_no_grey_frames_are_refused(tmp_path: Path) -> None:
    class Other(FrameAutoencoder):
        def __init__(self) -> None:
            torch.nn.Module.__init__(self)

    with pytest.raises(ValueError, match=r"^encoder: known frames are told in channels with encoder=wan or .* Other$"):
        KnownFramesConditioner().with_known_frames(Prompts.of(CAPTIONS), video(), known(9, 0), Other())
