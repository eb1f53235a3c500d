import errno
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_pipelines import encoded_sources
from data_pipelines.manifest import ClipRow, VideoRow, read_rows
from data_pipelines.stages import cut, measure, probe
from tests.data_pipelines.conftest import Curate
from vdm.data.index import read_index
from vdm.data.shards import file_checksum, read_member
from vdm.data.sidecars import read_samples


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts what is done: files cut, clips measured, clips encoded."""
    counter: Counter[str] = Counter()

    def counted(module: Any, name: str) -> None:
        original = getattr(module, name)

        def call(*arguments: Any) -> Any:
            counter[name] += 1
            return original(*arguments)

        monkeypatch.setattr(module, name, call)

    counted(cut, "load_detector")
    counted(measure, "perceptual_hash")
    counted(encoded_sources, "encode_h264")
    return counter


def _rows(tmp_path: Path, stage: str) -> list[ClipRow]:
    return read_rows(tmp_path / f"shards.work/manifests/{stage}.parquet", ClipRow)[0]


def _dropped(tmp_path: Path, stage: str = "filter") -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for row in _rows(tmp_path, stage):
        found.setdefault(row.source.removesuffix(".mp4"), set()).add((row.dropped or "kept").partition(" of ")[0])
    return found


def _metadata(shards: Path) -> list[dict[str, Any]]:
    found = []
    for shard in read_index(shards).shards():
        with (shards / shard.name).open("rb") as file:
            found += [json.loads(read_member(file, "", sample, "json")) for sample in read_samples(shards, shard)]
    return found


def _content(shards: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in shards.iterdir()}


def test_each_kind_of_bad_clip_is_dropped_for_its_reason(run_curate: Curate, tmp_path: Path) -> None:
    outcome = run_curate("until=filter")

    assert _dropped(tmp_path) == {
        "two_shots": {"kept"},
        "original": {"kept"},
        "still": {"motion_pixels_per_frame below 0.2"},
        "boxed": {"bar_fraction above 0.08"},
        "black": {"black_fraction above 0.25", "kept"},
        "blurred": {"sharpness below 20"},
        "smaller_copy": {"near duplicate"},
    }
    files, _ = read_rows(tmp_path / "shards.work/manifests/probe.parquet", VideoRow)
    assert {row.source: row.dropped for row in files if row.dropped} == {
        "broken.mp4": "can't be used: can't be read: Invalid data found when processing input",
        "same_bytes.mp4": "exact duplicate of original.mp4",
    }
    assert outcome.code == 1
    assert "broken.mp4: can't be read: Invalid data found when processing input" in outcome.err
    assert "probe   files: 9, kept: 7, dropped: 2 (can't be used 1, exact duplicate 1)\n" in outcome.out
    assert (tmp_path / "shards.work/filter.png").read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "shards").exists()


def test_no_clip_spans_two_shots(run_curate: Curate, tmp_path: Path) -> None:
    run_curate("until=cut", "clip.stride_seconds=0.25")

    rows = [row for row in _rows(tmp_path, "cut") if row.source == "two_shots.mp4"]
    assert {row.shot for row in rows} == {0, 1}
    assert all(row.start_seconds + 1 <= 3.0 + 1e-6 or row.start_seconds >= 3.0 for row in rows)
    assert [row.shot_seconds for row in rows] == [3.0] * len(rows)


def test_kept_clips_become_a_verified_set_with_captions_and_scores(run_curate: Curate, tmp_path: Path) -> None:
    outcome = run_curate()

    metadata = _metadata(tmp_path / "shards")
    kept = [row for row in _rows(tmp_path, "filter") if row.dropped is None]
    assert len(metadata) == len(kept) == len({(m["source"], m["source_start_seconds"]) for m in metadata})
    captions = {m["source"]: (m["caption"], m["label"]) for m in metadata}
    assert captions["two_shots.mp4"] == ("two textures pass by", None)
    assert captions["original.mp4"] == ("a texture passes by", 0)
    scores = {(row.source, row.start_seconds): row.scores for row in kept}
    for m in metadata:
        expected = scores[m["source"], m["source_start_seconds"]]
        assert {name: m[name] for name in expected} == expected
    assert f"shards: clips: {len(kept)}, shards: 2, faults: 0" in outcome.out


def test_run_again_does_nothing_and_changes_nothing(run_curate: Curate, tmp_path: Path, calls: Counter[str]) -> None:
    run_curate()
    first, content = dict(calls), _content(tmp_path / "shards")
    calls.clear()

    run_curate()

    assert (dict(calls), _content(tmp_path / "shards")) == ({}, content)
    assert first["encode_h264"] == len(_metadata(tmp_path / "shards"))


def _cut_off(path: Path) -> None:
    path.write_bytes(b"")


def _flip_middle(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[40] ^= 255  # in the first page of rows
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [_cut_off, _flip_middle])
def test_results_damaged_by_a_power_failure_are_made_anew(
    run_curate: Curate, tmp_path: Path, calls: Counter[str], damage: Callable[[Path], None]
) -> None:
    run_curate("until=filter")
    expected, first = _rows(tmp_path, "filter"), dict(calls)
    damaged = [path for path in (tmp_path / "shards.work/units").glob("*/*.parquet") if path.stem[0] in "tos"]
    calls.clear()
    for path in damaged:
        damage(path)

    run_curate("until=filter")

    assert {path.parent.name for path in damaged} == {"probe", "cut", "filter"}
    assert _rows(tmp_path, "filter") == expected
    assert 0 < calls["load_detector"] < first["load_detector"]
    assert 0 < calls["perceptual_hash"] < first["perceptual_hash"]


def test_file_that_the_disk_does_not_give_to_its_end_is_listed_and_tried_again(
    run_curate: Curate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken_disk(path: Path) -> str:
        if path.name == "original.mp4":
            raise OSError(errno.EIO, "Input/output error")
        return file_checksum(path)

    with monkeypatch.context() as patch:
        patch.setattr(probe, "file_checksum", broken_disk)
        outcome = run_curate("until=probe")

    assert outcome.code == 1
    assert "original.mp4: can't be read: Input/output error\n" in outcome.err
    assert "original.mp4: can't be read" not in run_curate("until=probe").err


def test_another_limit_measures_nothing_anew_and_encodes_concerned_files_only(
    run_curate: Curate, tmp_path: Path, calls: Counter[str]
) -> None:
    run_curate()
    before = len(_metadata(tmp_path / "shards"))
    calls.clear()

    run_curate("filter.limits.sharpness.min=0")

    added = len(_metadata(tmp_path / "shards")) - before
    assert {m["source"] for m in _metadata(tmp_path / "shards")} > {"blurred.mp4"}
    assert dict(calls) == {"encode_h264": added}


def test_clips_are_the_same_bytes_as_those_of_a_plain_build(run_curate: Curate, run_build: Any, tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    clip = {"num_frames": 8, "fps": 8, "height": 32, "width": 32}
    run_build(clip=clip, output=tmp_path / "built")
    run_curate(f"input={folder}", "shots=none", "filter=none", "drop_exact_duplicates=false")

    def clips(shards: Path) -> dict[tuple[str, float], bytes]:
        found = {}
        for shard in read_index(shards).shards():
            with (shards / shard.name).open("rb") as file:
                for sample in read_samples(shards, shard):
                    m = json.loads(read_member(file, "", sample, "json"))
                    found[m["source"], m["source_start_seconds"]] = read_member(file, "", sample, "mp4")
        return found

    assert clips(tmp_path / "shards") == clips(tmp_path / "built") != {}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+filter.limits.sharpnes.min=1", r"filter.limits.sharpnes: is not measured; allowed: shot_seconds, "),
        ("filter.limits.sharpness={min: 2, max: 1}", r"filter.limits.sharpness: min=2 is above max=1: no clip passes"),
        ("until=filtre", r"until=filtre: no such choice: did you mean 'filter'\?"),
        ("filter.limits.sharpness.min=1e9", r"input=.*: nothing is left after the stage filter"),
        ("executor.num_workers=-1", r"executor.num_workers: -1 is not allowed"),
        ("shots.detector=none", r"shots.detector: 'none' is not allowed"),
    ],
)
def test_mistake_is_one_line(run_curate: Curate, override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        run_curate(override)

    assert "\n" not in str(error.value)


def test_set_of_another_command_is_refused(run_curate: Curate, run_build: Any, tmp_path: Path) -> None:
    run_build()

    with pytest.raises(ValueError, match=r"output=.*shards: was built with "):
        run_curate()
