"""Several processes that measure together find what one finds alone, whatever falls to each of them."""

from typing import Any

import pytest

from tests.evaluation.ranks import measured, measured_by

NUM_PROCESSES = 2
FIGURES = ("value", "interval")


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    return measured()


@pytest.fixture(scope="module")
def together() -> list[dict[str, Any]]:
    return measured_by(NUM_PROCESSES)


@pytest.mark.parametrize(
    "case",
    ["one block too few", "last block not full", "unusable", "one process has none", "only one has usable ones"],
)
def test_processes_find_the_figures_of_one(alone: dict[str, Any], together: list[dict[str, Any]], case: str) -> None:
    for found in together:
        assert found[case].keys() == alone[case].keys()
        for name, expected in alone[case].items():
            one = found[case][name]
            assert {key: one[key] for key in one if key not in FIGURES} == {
                key: expected[key] for key in expected if key not in FIGURES
            }
            for key in FIGURES:
                assert one[key] == pytest.approx(expected[key], rel=1e-12)


def test_unusable_videos_are_listed_in_order(alone: dict[str, Any], together: list[dict[str, Any]]) -> None:
    for found in (alone, *together):
        listed = found["unusable"]["frechet"]
        numbers = [int(one.partition(":")[0]) for one in listed["unusable"]]
        assert numbers == [1, 4, 5, 7, 0, 13]  # of the videos, then of the reference
        assert (listed["num_videos"], listed["num_reference"]) == (9, 12)


@pytest.mark.parametrize("case", ["none usable", "strict"])
def test_refusals_are_those_of_one_process(alone: dict[str, Any], together: list[dict[str, Any]], case: str) -> None:
    assert isinstance(alone[case], str)
    assert [found[case] for found in together] == [alone[case]] * NUM_PROCESSES


@pytest.mark.parametrize("case", ["broken in the first", "broken in the second"])
def test_source_that_one_process_can_not_read_ends_all(together: list[dict[str, Any]], case: str) -> None:
    assert [found[case] for found in together] == ["the source has gone"] * NUM_PROCESSES
