import pytest
import torch

from vdm.prompts import LabelCondition, Prompts, TensorCondition, TextCondition
from vdm.types import TextEmbeddings


def _embeddings(*numbers: float) -> TextEmbeddings:
    values = torch.tensor(numbers)
    return TextEmbeddings(values[:, None, None], torch.ones(len(numbers), 1).bool(), values[:, None])


def _prompts() -> Prompts:
    """Three clips with a condition of each kind."""
    return Prompts(
        {
            "text": TextCondition(("a", "b", "c"), _embeddings(1.0, 2.0, 3.0), _embeddings(0.0)),
            "label": LabelCondition(torch.tensor([4, 5, 6])),
            "depth": TensorCondition.given(torch.tensor([[7.0], [8.0], [9.0]])),
            "speed": TensorCondition(torch.tensor([1.0, 2.0, 3.0])),
        }
    )


def test_dropping_makes_each_condition_the_one_of_no_condition() -> None:
    prompts, rows = _prompts(), torch.arange(3)

    dropped = prompts.drop({"text": rows == 0, "label": rows == 1, "depth": rows == 2})

    assert dropped.captions == ("", "b", "c")
    assert dropped.conditions["text"].embeddings.pooled.flatten().tolist() == [0, 2, 3]
    assert dropped.conditions["label"].labels.tolist() == [4, -1, 6]
    assert dropped.conditions["depth"].present.tolist() == [True, True, False]
    assert dropped.conditions["depth"].masked.flatten().tolist() == [7, 8, 0]
    assert prompts.captions[0] == "a", "the original stays"


def test_what_always_holds_is_not_dropped() -> None:
    without = _prompts().without_conditions()

    assert without.captions == ("", "", "")
    assert without.conditions["label"].labels.tolist() == [-1, -1, -1]
    assert not without.conditions["depth"].masked.any()
    assert without.conditions["speed"].masked.tolist() == [1, 2, 3]


def test_a_value_that_does_not_count_may_be_anything() -> None:
    unknown = TensorCondition(torch.tensor([1.0, torch.nan, torch.inf]), torch.tensor([True, False, True]))
    dropped = unknown.drop(torch.tensor([False, False, True]))

    assert dropped.masked.tolist() == [1, 0, 0]


def test_dropping_does_not_invent_a_condition() -> None:
    assert set(Prompts.of(["a", "b"]).without_conditions().conditions) == {"text", "label"}


def test_dropping_twice_drops_what_either_drops() -> None:
    rows = torch.arange(3)
    dropped = _prompts().drop({"depth": rows == 0}).drop({"depth": rows == 2})

    assert dropped.conditions["depth"].present.tolist() == [False, True, False]


def test_rows_are_those_of_every_condition_and_the_empty_caption_stays() -> None:
    part = _prompts().rows(slice(1, 3))

    assert len(part) == 2
    assert part.captions == ("b", "c")
    assert part.conditions["label"].labels.tolist() == [5, 6]
    assert part.conditions["depth"].values.flatten().tolist() == [8, 9]
    dropped = part.without_conditions().conditions["text"]
    assert dropped.embeddings.pooled.flatten().tolist() == [0, 0]


def test_asking_for_another_caption_forgets_the_embeddings_of_the_former() -> None:
    asking = _prompts().asking("z")

    assert asking.captions == ("z", "z", "z")
    assert asking.conditions["text"].embeddings is None


def test_prompts_without_text_have_empty_captions() -> None:
    assert Prompts({"speed": TensorCondition(torch.zeros(2))}).captions == ("", "")


def test_moving_prompts_moves_every_condition() -> None:
    assert _prompts().device == torch.device("cpu")
    assert _prompts().to("meta").device == torch.device("meta")
    assert Prompts({"text": TextCondition(("a",))}).device is None


def test_a_condition_of_another_class_than_expected_is_named() -> None:
    with pytest.raises(ValueError, match=r"^the condition 'label' must be a TensorCondition, but is a LabelCondition$"):
        _prompts().find("label", TensorCondition)


def test_conditions_of_other_numbers_of_clips_are_refused() -> None:
    with pytest.raises(ValueError, match="there are text of 3, label of 3, depth of 3, speed of 2"):
        _prompts().with_conditions(speed=TensorCondition(torch.zeros(2)))
    with pytest.raises(ValueError, match="at least one condition"):
        Prompts({})
