from collections.abc import Sequence

import pytest
import torch

from tests.models.networks import random_input
from vdm.models.conditioner import append_images
from vdm.models.embedding_conditioner import EmbeddingConditioner
from vdm.models.text_encoders import EncodedText
from vdm.prompts import Prompts, TensorCondition, TextCondition
from vdm.types import Conditioning, TextEmbeddings


class Letters:
    """Embeds each letter as its number in the alphabet and its square; the empty caption as one token of zeros."""

    channels = 2

    def __call__(self, captions: Sequence[str]) -> EncodedText:
        numbers = [[ord(letter) - ord("a") + 1 for letter in caption] or [0] for caption in captions]
        length = max(map(len, numbers))
        tokens = torch.tensor([[[n, n**2] for n in row + [0] * (length - len(row))] for row in numbers]).float()
        mask = torch.tensor([[index < len(row) for index in range(length)] for row in numbers])
        return EncodedText(tokens, mask, tokens.sum(1))


def _prompts(*captions: str, labels: Sequence[int] = ()) -> Prompts:
    return Prompts.of(captions, torch.tensor(list(labels)) if labels else None)


def test_without_conditions_nothing_is_told() -> None:
    assert EmbeddingConditioner()(_prompts("ignored"), num_frames=3) == Conditioning()
    assert (EmbeddingConditioner().text_channels, EmbeddingConditioner().vector_channels) == (0, 0)


def test_text_goes_to_tokens_and_pooled_to_the_vector() -> None:
    conditioner = EmbeddingConditioner(Letters())
    condition = conditioner(_prompts("ab", ""), num_frames=3)

    assert condition.text is not None
    assert condition.text.tolist() == [[[1, 1], [2, 4]], [[0, 0], [0, 0]]]
    assert condition.text_mask is not None
    assert condition.text_mask.tolist() == [[True, True], [True, False]]
    assert condition.vector is not None
    assert condition.vector.tolist() == [[3, 5], [0, 0]]
    assert (conditioner.text_channels, conditioner.vector_channels) == (2, 2)


def test_no_class_has_an_embedding_of_its_own() -> None:
    conditioner = EmbeddingConditioner(num_classes=3, class_channels=5)
    vector = conditioner(_prompts("", "", "", labels=[0, 2, -1]), num_frames=1).vector

    assert conditioner.embed_class is not None
    assert torch.equal(vector, conditioner.embed_class.weight[[0, 2, 3]])
    assert conditioner.vector_channels == 5


def test_vector_is_pooled_text_then_class() -> None:
    conditioner = EmbeddingConditioner(Letters(), num_classes=3, class_channels=5)
    vector = conditioner(_prompts("ab", labels=[1]), num_frames=1).vector

    assert conditioner.embed_class is not None
    assert vector is not None
    assert conditioner.vector_channels == vector.shape[1] == 7
    assert torch.equal(vector[0], torch.cat([torch.tensor([3.0, 5.0]), conditioner.embed_class.weight[1]]))


def test_dropped_conditions_equal_those_never_given() -> None:
    conditioner = EmbeddingConditioner(Letters(), num_classes=3, class_channels=5, image=True)
    image = TensorCondition.given(random_input("image", 1, 3, 2, 2))
    prompts = _prompts("ab", labels=[1]).with_conditions(image=image)
    dropped = conditioner(prompts.without_conditions(), num_frames=4)
    never = conditioner(_prompts(""), num_frames=4)

    assert torch.equal(dropped.text, never.text)
    assert torch.equal(dropped.vector, never.vector)
    assert torch.equal(dropped.image, torch.zeros(1, 4, 4, 2, 2))
    assert never.image is None


def test_first_frame_is_given_to_every_frame_with_a_mask() -> None:
    image = random_input("image", 2, 3, 5, 7)
    prompts = _prompts("", "").with_conditions(image=TensorCondition(image, torch.tensor([True, False])))
    given = EmbeddingConditioner(image=True)(prompts, num_frames=4).image

    assert given is not None
    assert given.shape == (2, 4, 4, 5, 7)
    for frame in range(4):
        assert torch.equal(given[0, :3, frame], image[0])
    assert torch.equal(given[:, 3], torch.tensor([1.0, 0.0])[:, None, None, None].expand(-1, 4, 5, 7))
    assert not given[1].any()


def test_first_frame_is_left_aside_where_the_model_has_no_such_condition() -> None:
    prompts = _prompts("").with_conditions(image=TensorCondition.given(random_input("image", 1, 3, 2, 2)))

    assert EmbeddingConditioner()(prompts, num_frames=4).image is None


def test_conditions_of_images_follow_those_of_their_clip() -> None:
    conditioner = EmbeddingConditioner(Letters(), num_classes=9, class_channels=5)
    clips, images = _prompts("a", "bc", labels=[0, 1]), _prompts("d", "", "efg", "h", labels=[2, 3, 4, -1])
    of_clips, of_images = conditioner(clips, 3), conditioner(images, 1)
    joined = append_images(of_clips, of_images, num_frames=3, num_images=2)

    assert joined.text is not None
    assert joined.text[:, :, :, 0].tolist() == [
        [[1, 0, 0]] * 3 + [[4, 0, 0], [0, 0, 0]],
        [[2, 3, 0]] * 3 + [[5, 6, 7], [8, 0, 0]],
    ]
    assert joined.text_mask is not None
    assert joined.text_mask.sum(-1).tolist() == [[1, 1, 1, 1, 1], [2, 2, 2, 3, 1]]
    assert joined.vector is not None
    assert torch.equal(joined.vector[:, :3], of_clips.vector[:, None].expand(-1, 3, -1))
    assert torch.equal(joined.vector[:, 3:], of_images.vector.reshape(2, 2, 7))


def test_images_beside_a_clip_have_no_first_frame() -> None:
    given = torch.ones(2, 4, 3, 5, 5)
    joined = append_images(Conditioning(image=given), Conditioning(), num_frames=3, num_images=2)

    assert joined.image is not None
    assert torch.equal(joined.image[:, :, :3], given)
    assert torch.equal(joined.image[:, :, 3:], torch.zeros(2, 4, 2, 5, 5))
    assert (joined.text, joined.vector) == (None, None)


def _stored(*captions: str) -> TextEmbeddings:
    encoded = Letters()(captions)
    return TextEmbeddings.padded(
        [(tokens[mask], pooled) for tokens, mask, pooled in zip(*encoded, strict=True)],
    )


def test_stored_text_gives_the_conditions_that_encoding_the_captions_gives() -> None:
    captions = ("ab", "", "cde", "f")
    prompts = _prompts(*captions)
    stored = prompts.with_conditions(text=TextCondition(captions, _stored(*captions), _stored("")))
    nothing = torch.zeros(4).bool()
    for dropped in (nothing, torch.tensor([True, False, True, False]), ~nothing):
        encoded = EmbeddingConditioner(Letters())(prompts.drop({"text": dropped}), num_frames=2)
        read = EmbeddingConditioner(_refuse_to_encode)(stored.drop({"text": dropped}), num_frames=2)
        assert torch.equal(read.vector, encoded.vector)
        longest = encoded.text_mask.shape[1]  # encoding pads to the longest caption that is left
        assert torch.equal(read.text_mask[:, :longest], encoded.text_mask)
        assert not read.text_mask[:, longest:].any()
        for row in range(4):
            real = encoded.text_mask[row]
            assert torch.equal(read.text[row, :longest][real], encoded.text[row][real])


def _refuse_to_encode(captions: Sequence[str]) -> EncodedText:
    raise AssertionError("a caption is encoded though its embedding is stored")


_refuse_to_encode.channels = 2


def test_another_caption_than_the_stored_one_is_encoded() -> None:
    stored = Prompts({"text": TextCondition(("ab",), _stored("ab"), _stored(""))})
    condition = EmbeddingConditioner(Letters())(stored.asking("c"), num_frames=2)
    assert condition.vector.tolist() == [[3, 9]]


def test_the_crop_ends_the_vector_as_sinusoids_of_its_four_numbers() -> None:
    conditioner = EmbeddingConditioner(Letters(), crop_channels=6, stored_size=(64, 96))
    crops = torch.tensor([[48, 80, 3, 0], [64, 96, 0, 0]])
    prompts = _prompts("ab", "c").with_conditions(crops=TensorCondition(crops))
    vector = conditioner(prompts, num_frames=2).vector

    assert conditioner.vector_channels == vector.shape[1] == 2 + 4 * 6
    frequencies = 10000.0 ** (-torch.arange(3) / 3)
    for row, crop in enumerate(crops.tolist()):
        expected = [f(number * frequencies) for number in crop for f in (torch.cos, torch.sin)]
        torch.testing.assert_close(vector[row, 2:], torch.cat(expected))
    asked_for = conditioner(_prompts("c"), num_frames=2).vector
    assert torch.equal(asked_for[0], vector[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop_channels": 3, "stored_size": (8, 8)}, "crop_channels must be an even number, at least 0, but is 3"),
        ({"crop_channels": 4}, r"stored_size must be given as \[rows, columns\] where crop_channels is 4"),
    ],
)
def test_impossible_crop_conditions_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        EmbeddingConditioner(**options)


def test_prompts_without_tensors_are_embedded_where_the_weights_are() -> None:
    conditioner = EmbeddingConditioner(num_classes=3, crop_channels=4, stored_size=(8, 8)).to("meta")
    condition = conditioner(Prompts({"text": TextCondition(("a",))}), num_frames=2)
    assert condition.vector is not None
    assert condition.vector.device.type == "meta"
