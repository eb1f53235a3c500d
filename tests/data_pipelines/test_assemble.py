"""The choice of splits."""

import pytest

from data_pipelines.assemble import choose_splits


def test_two_sources_suffice_for_both_splits() -> None:
    for seed in range(20):
        assert sorted(choose_splits(["a", "b"], 0.01, seed).values()) == ["train", "validation"]
        assert sorted(choose_splits(["a", "b"], 0.99, seed).values()) == ["train", "validation"]


def test_split_of_a_source_does_not_depend_on_the_others() -> None:
    names = [f"{n}.mp4" for n in range(1000)]
    splits = choose_splits(names, 0.2, seed=0)

    fewer = choose_splits(names[::2], 0.2, seed=0)

    assert all(splits[name] == fewer[name] for name in names[::2])
    assert sum(split == "validation" for split in splits.values()) == pytest.approx(200, abs=4 * (1000 * 0.16) ** 0.5)


def test_without_validation_all_is_for_training() -> None:
    assert set(choose_splits(["a", "b", "c"], 0, seed=0).values()) == {"train"}
    assert choose_splits(["a"], 0.5, seed=0) == {"a": "train"}
