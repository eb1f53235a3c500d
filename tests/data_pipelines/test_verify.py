import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from data_pipelines.verify import VerifySettings, verify
from tests.data_pipelines.conftest import Build
from vdm.data.index import read_index, write_index
from vdm.data.shard_table import ShardTable
from vdm.data.shards import Kind
from vdm.data.sidecars import read_samples, write_samples

Verify = Callable[..., tuple[int, list[str]]]


@pytest.fixture
def shards(run_build: Build, tmp_path: Path) -> Path:
    run_build()
    return tmp_path / "shards"


@pytest.fixture
def run_verify(shards: Path, capsys: pytest.CaptureFixture[str]) -> Verify:
    """Return exit code and the faults named."""

    def run(decode: bool = True) -> tuple[int, list[str]]:
        capsys.readouterr()
        code = verify(VerifySettings(shards, decode, num_workers=0))
        lines = capsys.readouterr().err.replace("\r", "\n").splitlines()
        return code, [line for line in lines if line and not line.startswith("verifying")]

    return run


def _flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def test_intact_set_has_no_faults(run_verify: Verify) -> None:
    assert run_verify() == (0, [])


def test_flipped_bit_in_a_clip_names_the_sample(run_verify: Verify, shards: Path) -> None:
    sample = read_samples(shards, read_index(shards).splits["train"][0])[2]
    _flip(shards / "train-000000.tar", sample.members["mp4"].offset + 10)

    code, faults = run_verify()

    assert code == 1
    assert faults[0] == "train-000000.tar: its checksum is not the one in the index"
    assert [sample.key in fault for fault in faults[1:]] == [True]


def test_flipped_bit_in_a_header_is_found(run_verify: Verify, shards: Path) -> None:
    sample = read_samples(shards, read_index(shards).splits["train"][0])[2]
    _flip(shards / "train-000000.tar", sample.members["json"].offset - 512)

    code, faults = run_verify()

    assert code == 1
    assert f"{sample.key}.json: its header in the tar is damaged" in faults[1]


def test_truncated_shard_names_what_is_lost(run_verify: Verify, shards: Path) -> None:
    path = shards / "train-000000.tar"
    sample = read_samples(shards, read_index(shards).splits["train"][0])[-1]
    path.write_bytes(path.read_bytes()[: sample.members["mp4"].offset + 3])

    code, faults = run_verify()

    assert code == 1
    assert "bytes where the index records" in faults[0]
    assert all(sample.key in fault for fault in faults[1:])
    assert len(faults) == 3


def test_missing_files_are_named(run_verify: Verify, shards: Path) -> None:
    (shards / "train-000000.tar").unlink()
    (shards / "validation-000000.index.json").unlink()

    code, faults = run_verify()

    assert code == 1
    assert "train-000000.tar: can't be read: No such file or directory" in faults
    assert any("validation-000000.index.json: no such file" in fault for fault in faults)


def test_shard_without_index_is_named(run_verify: Verify, shards: Path) -> None:
    (shards / "train-000001.tar").write_bytes(b"")

    assert run_verify() == (1, ["train-000001.tar: is not in the index"])


def test_key_that_occurs_twice_is_named(run_verify: Verify, shards: Path) -> None:
    shard = read_index(shards).splits["train"][0]
    samples = read_samples(shards, shard)
    write_samples(shards, shard.name, [samples[0], samples[0], *samples[2:]])

    code, faults = run_verify()

    assert (code, faults) == (1, [f"{samples[0].key}: 2 samples have this key"])


def test_label_without_class_is_named(run_verify: Verify, shards: Path, videos: Path, run_build: Build) -> None:
    (videos / "manifest.csv").write_text("file,label\na.mp4,dog\nb.mp4,dog\nsub/c.mp4,dog\n")
    run_build()
    content = json.loads((shards / "index.json").read_text())
    (shards / "index.json").write_text(json.dumps(content | {"labels": []}))

    code, faults = run_verify()

    assert code == 1
    assert len(faults) == 12
    assert all(fault.endswith("has the label 0, which is none of the 0 classes") for fault in faults)


def test_wrong_shape_in_the_index_is_found_by_decoding(run_verify: Verify, shards: Path) -> None:
    index, splits = read_index(shards), {}
    for split, table in index.splits.items():
        splits[split] = ShardTable.of(replace(shard, kinds={Kind((5, 16, 16)): shard.num_samples}) for shard in table)
        for shard in table:
            samples = read_samples(shards, shard)
            write_samples(shards, shard.name, [replace(sample, shape=(5, 16, 16)) for sample in samples])
    write_index(shards, replace(index, splits=splits))

    assert any("4 frames decode where the index records 5" in fault for fault in run_verify()[1])
    assert not any("decode" in fault for fault in run_verify(decode=False)[1])


def test_folder_without_index_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no index.json"):
        verify(VerifySettings(tmp_path))
