import base64
import re
from pathlib import Path

import pytest

from data_pipelines.show import ShowSettings, show
from tests.data_pipelines.conftest import Build
from vdm.data.index import read_index
from vdm.data.sidecars import read_samples


@pytest.fixture
def shards(run_build: Build, videos: Path, tmp_path: Path) -> Path:
    (videos / "a.txt").write_text("<b>not bold</b> & plain")
    run_build()
    return tmp_path / "shards"


def _videos(page: str) -> set[bytes]:
    return {base64.b64decode(data) for data in re.findall(r"data:video/mp4;base64,([^\"]*)", page)}


def test_page_holds_the_clips_themselves_and_needs_no_other_file(shards: Path) -> None:
    assert show(ShowSettings(shards)) == 0

    page = (shards / "contact_sheet.html").read_text()
    stored = set()
    for shard in read_index(shards).shards():
        data = (shards / shard.name).read_bytes()
        for sample in read_samples(shards, shard):
            place = sample.members["mp4"]
            stored.add(data[place.offset : place.offset + place.length])
    assert _videos(page) == stored
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page)
    assert "&lt;b&gt;not bold&lt;/b&gt; &amp; plain" in page
    assert "<b>not bold" not in page
    assert "<b>8</b><span>train clips</span>" in page


def test_so_many_clips_of_one_split_are_shown(shards: Path, tmp_path: Path) -> None:
    show(ShowSettings(shards, output=tmp_path / "page.html", split="validation", max_clips=3))

    page = (tmp_path / "page.html").read_text()
    assert page.count("<article") == 3
    assert "<span>train</span>" not in page


def test_damaged_clip_is_counted_and_named_and_the_others_are_shown(
    shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shard = read_index(shards).splits["train"][0]
    data = bytearray((shards / shard.name).read_bytes())
    data[read_samples(shards, shard)[0].members["mp4"].offset + 9] ^= 1
    (shards / shard.name).write_bytes(data)

    capsys.readouterr()
    assert show(ShowSettings(shards)) == 1

    said = capsys.readouterr()
    key = read_samples(shards, shard)[0].key
    assert f"{key}: " in said.err
    assert "1 damaged, which `vdm-data verify` tells more about; open it in a browser" in said.out
    page = (shards / "contact_sheet.html").read_text()
    assert page.count("<article") == 11
    assert "<b>1</b><span>damaged clips</span>" in page


def test_unknown_split_is_one_line(shards: Path) -> None:
    with pytest.raises(ValueError, match="split=test: the set has no such split; it has train, validation"):
        show(ShowSettings(shards, split="test"))
