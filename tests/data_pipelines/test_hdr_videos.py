"""Videos of high dynamic range in a folder: mapped or left out, and either is said."""

from pathlib import Path

import pytest

from tests.data.test_hdr import write_hdr
from tests.data_pipelines.conftest import Build, Curate
from vdm.data.index import read_index
from vdm.data.sidecars import read_samples
from vdm.json_values import parse_json


@pytest.fixture
def bright(videos: Path) -> Path:
    """The folder of videos with two more, in PQ and in HLG."""
    write_hdr(videos / "pq.mp4", transfer=16)
    write_hdr(videos / "hlg.mp4", transfer=18)
    return videos


def said(outcome: object) -> list[str]:
    return [line for line in outcome.err.splitlines() if line.startswith("HDR")]  # type: ignore[attr-defined]


def kinds(shards: Path) -> set[str | None]:
    """Return what ``KEY.json`` says of the kind of source."""
    found: set[str | None] = set()
    for shard in read_index(shards).shards():
        data = (shards / shard.name).read_bytes()
        for sample in read_samples(shards, shard):
            member = sample.members["json"]
            found.add(parse_json(data[member.offset :][: member.length]).get("source_hdr"))
    return found


def test_a_build_maps_them_and_says_so(run_build: Build, bright: Path, tmp_path: Path) -> None:
    outcome = run_build()

    assert (outcome.code, said(outcome)) == (0, ["HDR videos mapped to SDR: 2 (hlg.mp4, pq.mp4)"])
    assert kinds(tmp_path / "shards") == {None, "PQ", "HLG"}
    assert said(run_build()) == said(outcome)  # of what was built before, too


def test_a_build_leaves_them_out_without_a_fault_if_told_to(run_build: Build, bright: Path, tmp_path: Path) -> None:
    outcome = run_build(hdr="leave_out")

    line = "HDR videos left out, as hdr=leave_out says: 2 (hlg.mp4, pq.mp4)"
    assert (outcome.code, said(outcome)) == (0, [line])
    assert kinds(tmp_path / "shards") == {None}
    with pytest.raises(ValueError, match="was built with hdr=leave_out, not map"):
        run_build()


def test_curation_does_either_too(run_curate: Curate, bright: Path, tmp_path: Path) -> None:
    chosen = (f"input={bright}", "shots=none", "filter=none")
    outcome = run_curate(*chosen, "clip.num_frames=4", "hdr=leave_out")
    assert outcome.code == 0
    assert outcome.out.splitlines()[0] == "probe   files: 5, kept: 3, dropped: 2 (HDR 2)"

    outcome = run_curate(*chosen, "clip.num_frames=4")
    assert (outcome.code, said(outcome)) == (0, ["HDR videos mapped to SDR: 2 (hlg.mp4, pq.mp4)"])
    assert kinds(tmp_path / "shards") == {None, "PQ", "HLG"}


def test_colours_that_are_not_read_are_a_fault(run_build: Build, videos: Path) -> None:
    write_hdr(videos / "ictcp.mp4", transfer=16, matrix=14)

    outcome = run_build()

    reason = "can't be used: its colours are coded as ICtCp, which is not read; encode it with BT.2020's matrix"
    assert outcome.code == 1
    assert f"ictcp.mp4: {reason}" in outcome.err.splitlines()
