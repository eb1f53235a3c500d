import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vdm.checkpoints.metrics_file import Series
from vdm.report.charts import charts_of
from vdm.report.curves import MAX_BUCKETS, num_buckets, numbers, thin_out
from vdm.report.levels import MAX_COLUMNS, level_maps


def series(values: "list[float] | np.ndarray", first: int = 1) -> Series:
    steps = np.arange(first, first + len(values))
    return Series(steps, 1000.0 + steps, 8 * steps, np.asarray(values, np.float64))


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=300), st.integers(1, 50))
def test_thinning_keeps_means_and_extremes(values: list[float], max_points: int) -> None:
    curves = thin_out({"loss": series(values)}, max_points)

    curve, axis = curves.by_name["loss"], curves.axes[0]
    assert len(curve.mean) == min(len(values), max_points)
    assert axis.steps[-1] == len(values)
    if curve.low is None or curve.high is None:
        assert curve.mean.tolist() == values
        return
    assert (curve.low.min(), curve.high.max()) == (min(values), max(values))
    counts = np.diff(axis.steps, prepend=0)
    assert counts.max() - counts.min() <= 1
    assert np.sum(counts * curve.mean) == pytest.approx(sum(values), rel=1e-9, abs=1e-3)


def test_a_spike_of_one_step_among_100_000_is_kept() -> None:
    values = np.ones(100_000)
    values[54_321] = 7.0

    curve = thin_out({"loss": series(values)}, MAX_BUCKETS).by_name["loss"]

    assert curve.high is not None
    assert (curve.high == 7).sum() == 1
    assert curve.high.argmax() == 543


def test_values_that_are_not_finite_are_counted_and_never_drawn() -> None:
    values = np.array([1.0, math.nan, 3.0, math.inf, -math.inf, math.nan])

    exact = thin_out({"loss": series(values)}, 10).by_name["loss"]
    thin = thin_out({"loss": series(values)}, 3).by_name["loss"]

    assert numbers(exact.mean) == [1, None, 3, None, None, None]
    assert numbers(thin.mean) == [1, 3, None]
    assert thin.low is not None
    assert numbers(thin.low) == [1, 3, None]
    assert (exact.num_not_finite, thin.num_not_finite) == (4, 4)


def test_figures_that_are_logged_together_share_an_axis() -> None:
    together, other = series([1.0] * 50), series([1.0] * 5)

    curves = thin_out({"a": together, "b": together, "c": other}, 10)

    assert [curves.by_name[name].axis for name in "abc"] == [0, 0, 1]
    assert curves.axes[0].seconds[-1] == 49


def test_curves_of_many_runs_have_fewer_points() -> None:
    assert num_buckets(40) == MAX_BUCKETS
    assert 40 <= num_buckets(100 * 40) < 100


def test_level_maps_are_means_over_equal_stretches_of_steps() -> None:
    low, high = np.linspace(1, 2, 10_000), np.linspace(3, 5, 10_000)
    name = "train/loss_by_level/t="

    found = level_maps({f"{name}0.90-1.00": series(high), f"{name}0.00-0.10": series(low), "train/loss": series(low)})

    assert list(found) == ["train"]
    assert found["train"].levels == [0.05, pytest.approx(0.95)]
    assert found["train"].losses.shape == (2, MAX_COLUMNS)
    assert found["train"].losses[0] == pytest.approx(low.reshape(MAX_COLUMNS, -1).mean(1))
    assert found["train"].losses[1] == pytest.approx(high.reshape(MAX_COLUMNS, -1).mean(1))


def test_a_level_without_clips_at_some_steps_has_gaps() -> None:
    name = "val/loss_by_level/t="
    found = level_maps({f"{name}0.00-0.10": series([1.0, 2.0, 3.0]), f"{name}0.10-0.20": series([4.0], first=2)})["val"]

    assert found.steps.tolist() == [1, 2, 3]
    assert numbers(found.losses[1]) == [None, 4, None]


def test_a_whole_and_its_parts_share_a_chart() -> None:
    names = ["train/grad_norm/up", "perf/memory_gib/peak", "val/loss", "train/loss", "train/grad_norm", "data/epoch"]

    found = {
        chart.title: (chart.section, chart.names) for chart in charts_of([*names, "train/loss_by_level/t=0.00-0.10"])
    }

    assert found == {
        "loss": ("curves", ("train/loss", "val/loss")),
        "train/grad_norm": ("curves", ("train/grad_norm", "train/grad_norm/up")),
        "perf/memory_gib": ("throughput", ("perf/memory_gib/peak",)),
        "data/epoch": ("throughput", ("data/epoch",)),
    }
