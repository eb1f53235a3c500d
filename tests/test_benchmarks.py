"""What benchmarks share: figures and their table, and the other projects that they compare with."""

import sys
from pathlib import Path

import pytest
import torch

from benchmarks.figures import RECORD, Figure, read, record, table
from benchmarks.growth import exponent
from benchmarks.peers import video_diffusion_pytorch
from benchmarks.suite import BENCHMARKS, DATA, FOLDER

FAST = Figure("unet", "8x32x32 bf16", "seconds a step", ours=0.5, theirs=2.0, ratio=4.0, goal=">= 5.3")
LEAN = Figure("unet", "8x32x32 bf16", "peak, MiB", ours=100.0, theirs=400.0, ratio=0.25, goal="<= 0.5")
ALONE = Figure("trainer", "ddp", "seconds to the first step", ours=1.25)


def test_figures_are_printed_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(RECORD, str(tmp_path / "figures.jsonl"))
    for figure in (FAST, LEAN, ALONE):
        record(figure)

    assert read(tmp_path / "figures.jsonl") == [FAST, LEAN, ALONE]
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].endswith("ours 0.5  theirs 2  ratio 4.00  (>= 5.3: missed)")
    assert printed[1].endswith("ratio 0.25  (<= 0.5: reached)")
    assert printed[2].endswith("seconds to the first step    ours 1.25")


def test_the_table_shows_which_goals_are_reached() -> None:
    rows = table([FAST, LEAN, ALONE]).splitlines()[2:]
    assert rows[0] == "| unet | 8x32x32 bf16 | seconds a step | 0.5 | 2 | 4 | >= 5.3 ✗ |"
    assert rows[1].endswith("| 100 | 400 | 0.25 | <= 0.5 ✓ |")
    assert rows[2] == "| trainer | ddp | seconds to the first step | 1.25 |  |  |  |"


def test_growth_is_fitted_by_its_power() -> None:
    amounts = [1.0, 2.0, 4.0, 8.0]
    assert exponent(amounts, [7 + x**0.1 for x in amounts[:1]] + [3 * x**1.5 for x in amounts[1:]]) == pytest.approx(
        1.5
    )


def test_every_benchmark_of_the_suite_exists_and_has_arguments_that_are_filled_in() -> None:
    folder = Path(__file__).resolve().parents[1] / "benchmarks"
    for each in BENCHMARKS:
        assert (folder / f"{each.module}.py").is_file()
        for argument in (*(each.short or ()), *each.full):
            assert "{" not in argument.replace(DATA, "").replace(FOLDER, "")


def test_the_peer_runs_with_a_stand_in_for_what_it_does_not_use() -> None:
    network = video_diffusion_pytorch().Unet3D(8, dim_mults=(1, 2))
    assert network(torch.randn(1, 3, 2, 8, 8), torch.zeros(1)).shape == (1, 3, 2, 8, 8)
    assert "torchvision" not in sys.modules
