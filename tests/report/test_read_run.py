"""What the report reads of runs: of such as train still, were killed, are old, or are damaged."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.report.made_runs import write_run
from vdm.cli.reported_runs import MAX_RUNS, reported_runs
from vdm.report.measured import last_metric
from vdm.report.run import ReportedRun, read_run
from vdm.report.settings import differing, flat
from vdm.report.summary import lost_seconds, shares_of_time, tiles_of

OLD_RUN = Path(__file__).parents[1] / "old_runs/unet_2026_11/run"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", num_steps=40, sample_steps=())


def read(run: Path) -> ReportedRun:
    return read_run(run, "run", "finished")


def test_a_run_in_a_few_figures(run: Path) -> None:
    tiles = dict(tiles_of(read(run)))

    assert tiles["state"] == "finished"
    assert tiles["optimizer steps"] == "40 of 40"
    assert tiles["samples seen"] == "320"
    assert tiles["restarts"] == "1, at a cost of 30 s"
    assert (tiles["bad steps"], tiles["bad samples"]) == ("1", "1")
    shares = dict(shares_of_time(read(run)))
    assert shares == pytest.approx({"computing": 0.95, "waiting for data": 0.04, "waiting for checkpoints": 0.01})


def test_shares_of_time_are_weighted_by_time_since_training_began(tmp_path: Path) -> None:
    start = {"event": "start", "step": 0, "position": 0}
    run = write_run(tmp_path / "run", 0, history=[{**start, "time": 100}, {**start, "time": 1000}], sample_steps=())
    told = [(110, 0.5), (140, 0.1), (1010, 0.9)]  # in 10, 30 and 10 seconds
    lines = [
        f'{{"step": {n}, "time": {t}, "position": {n}, "perf/sampling_fraction": {v}}}' for n, (t, v) in enumerate(told)
    ]
    (run / "metrics.jsonl").write_text("\n".join([*lines, ""]))

    sampling = (10 * 0.5 + 30 * 0.1 + 10 * 0.9) / 50
    assert dict(shares_of_time(read(run))) == pytest.approx({"computing": 1 - sampling, "sampling": sampling})


def test_the_last_line_of_a_killed_run_is_left_out(run: Path) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 41, "time": 1764537300, "position": 328, "train/lo')
    history = (run / "history.jsonl").read_text().splitlines(keepends=True)
    (run / "history.jsonl").write_text("".join(history[:-1]) + history[-1][:20])

    found = read(run)

    assert found.figures["train/loss"].steps[-1] == 40
    assert found.unreadable == []


def test_a_run_that_has_done_no_step_yet(tmp_path: Path) -> None:
    run = write_run(
        tmp_path / "run",
        num_steps=0,
        sample_steps=(),
        history=[{"event": "start", "time": 1, "step": 0, "position": 0}],
    )
    (run / "metrics.jsonl").unlink()
    (run / "versions.json").unlink()

    found = read(run)

    assert (dict(found.figures), found.samples.steps, found.step) == ({}, [], 0)
    assert dict(tiles_of(found))["optimizer steps"] == "0"
    assert found.unreadable == []


def test_a_run_of_an_earlier_version_is_read() -> None:
    found = read(OLD_RUN)

    assert found.step == 3
    assert dict(found.figures) == {}
    assert found.unreadable == []


def test_figures_of_earlier_versions_come_from_their_csv_files(run: Path) -> None:
    (run / "metrics.jsonl").unlink()
    for number, text in {
        2: "step,train/loss,train/position\n4,0.4,32\n6,0.3,48\n8,0.",
        10: "step,train/loss,val/loss,train/position\n6,0.25,,48\n6,,0.5,\n7,nan,,56\n",
    }.items():
        (run / f"logs/version_{number}").mkdir(parents=True)
        (run / f"logs/version_{number}/metrics.csv").write_text(text)

    found = read(run).figures

    assert found["train/loss"].steps.tolist() == [4, 6, 7]
    np.testing.assert_array_equal(found["train/loss"].values, [0.4, 0.25, np.nan])
    assert found["train/loss"].positions.tolist() == [32, 48, 56]
    assert np.isnan(found["train/loss"].times).all()
    assert found["val/loss"].values.tolist() == [0.5]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("versions.json", "[{"),
        ("versions.json", "{}"),
        ("samples/step=00000001/prompts.json", '[{"video": 3}]'),
        ("evaluation/step=00000001/results.json", '{"metrics": {"fvd": {"value": "low"}}}'),
        ("evaluation/results.json", "[" * 10_000),
    ],
)
def test_a_damaged_file_is_named_and_the_rest_is_shown(run: Path, name: str, content: str) -> None:
    (run / name).parent.mkdir(parents=True, exist_ok=True)
    (run / name).write_text(content)

    found = read(run)

    (fault,) = found.unreadable
    assert fault.startswith(f"{run / name}: ")
    assert "\n" not in fault
    assert len(found.figures["train/loss"].steps) == 10


def test_metrics_come_with_step_interval_and_protocol(run: Path) -> None:
    measured = {"value": 3.0, "interval": None, "reliable": True, "num_videos": 8, "protocol": {"a": {"b": 1}}}
    folder = run / "evaluation/step=00000020"
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps({"metrics": {"fvd": {**measured, "interval": [2.0, 4.0]}}}))
    content = {"checkpoint": "x/checkpoints/step=00000040", "metrics": {"fvd": measured}, "held_out_loss": 0.5}
    (run / "evaluation/results.json").write_text(json.dumps({**content, "num_held_out_clips": 7}))

    found = [(one.step, one.name, one.value, one.interval, one.num_videos) for one in read(run).measured]

    assert found == [(20, "fvd", 3, (2, 4), 8), (40, "fvd", 3, None, 8), (40, "held_out_loss", 0.5, None, 7)]
    assert read(run).measured[0].protocol == {"a": {"b": 1}}


@pytest.mark.parametrize("bound", ["Infinity", '"Infinity"'])
def test_metric_whose_protocol_has_an_infinite_bound_is_shown(run: Path, bound: str) -> None:
    folder = run / "evaluation/step=00000030"
    folder.mkdir(parents=True)
    measured = '{"value": 3.0, "interval": null, "reliable": true, "num_videos": 8, "protocol": {"s_tmax": %s}}'
    (folder / "results.json").write_text('{"metrics": {"fvd": %s}}' % (measured % bound))
    (one,) = read(run).measured
    assert (one.name, one.value, str(one.protocol)) == ("fvd", 3.0, str({"s_tmax": json.loads(bound)}))
    assert last_metric(run, 40) == ("fvd", 3.0)
    assert read(run).unreadable == []


def test_costs_of_restarts_add_up(tmp_path: Path) -> None:
    start = {"event": "start", "step": 0, "position": 0}
    history = [
        {**start, "time": 0, "lost_seconds": 0},
        {"event": "first_step", "time": 5, "step": 1, "position": 8},
        {**start, "time": 100, "lost_seconds": 20},
        {"event": "first_step", "time": 110, "step": 1, "position": 8},
        {**start, "time": 200, "lost_seconds": 3},
    ]
    run = write_run(tmp_path / "run", num_steps=4, sample_steps=(), history=history)

    assert lost_seconds(read(run).history) == 20 + 10 + 3


def test_runs_are_found_in_a_sweep_in_order_and_named_by_what_differs(tmp_path: Path) -> None:
    sweep = tmp_path / "multirun/2026"
    for name in ("10_lr=1", "2_lr=2", "0_lr=3"):
        write_run(sweep / name, num_steps=0, sample_steps=(), captions=())
    (sweep / "multirun.yaml").touch()
    (sweep / ".hidden").mkdir()
    (sweep / ".hidden/config.yaml").touch()
    (sweep / "link").symlink_to(sweep, target_is_directory=True)

    assert list(reported_runs([sweep])) == ["0_lr=3", "2_lr=2", "10_lr=1"]
    assert list(reported_runs([tmp_path])) == ["0_lr=3", "2_lr=2", "10_lr=1"]
    assert list(reported_runs([sweep / "2_lr=2"])) == ["2026/2_lr=2"]
    assert list(reported_runs([sweep / "2_lr=2/checkpoints/step=00000001", sweep / "2_lr=2"])) == ["2026/2_lr=2"]


def test_more_runs_than_a_page_takes_are_one_line(tmp_path: Path) -> None:
    for number in range(MAX_RUNS + 1):
        (tmp_path / str(number)).mkdir()
        (tmp_path / f"{number}/config.yaml").touch()
        (tmp_path / f"{number}/versions.json").touch()
    with pytest.raises(ValueError, match=rf"^run={tmp_path}: more than {MAX_RUNS} runs; choose fewer$"):
        reported_runs([tmp_path])


def test_settings_that_go_together_are_one_column() -> None:
    runs = [
        flat(
            {
                "optimizer": {"lr": lr},
                "training": {"optimizer": {"lr": lr}},
                "seed": seed,
                "same": [1, None, {"a": 1e-5}],
            }
        )
        for lr, seed in ((1e-4, 0), (1e-4, 1), (3e-4, 1))
    ]

    assert differing(runs) == ["optimizer.lr", "seed"]
    assert runs[0]["same"] == [1, None, {"a": 1e-5}]


def test_curves_from_before_the_runs_own_record_began_come_from_its_csv(run: Path) -> None:
    whole = read_run(run, "run", "finished").figures["train/loss"]
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(line for line in lines if json.loads(line)["step"] > 20))
    (run / "logs" / "version_0").mkdir(parents=True, exist_ok=True)
    rows = [f"{step},{value!r}" for step, value in zip(whole.steps.tolist(), whole.values.tolist(), strict=True)]
    (run / "logs" / "version_0" / "metrics.csv").write_text("\n".join(["step,train/loss", *rows]) + "\n")

    found = read_run(run, "run", "finished").figures["train/loss"]

    assert found.steps.tolist() == whole.steps.tolist()
    assert found.values.tolist() == whole.values.tolist()
