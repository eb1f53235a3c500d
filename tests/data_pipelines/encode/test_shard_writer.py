import errno
import tarfile
from pathlib import Path

import pytest
import webdataset as wds

from data_pipelines.encode.shard_writer import ShardWriter
from vdm.data.shards import Kind, checksum, digest_of, file_checksum, read_member
from vdm.data.sidecars import read_samples

SAMPLES = {f"clip-{n:05d}": {"mp4": bytes([n]) * (200 * n), "json": b'{"number": %d}' % n} for n in range(9)}


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    path = tmp_path / "train-000000.tar"
    with ShardWriter(path) as writer:
        for key, members in SAMPLES.items():
            writer.add(key, (4, 16, 16), members)
    return path


def test_tar_reads_the_shard(shard: Path) -> None:
    with tarfile.open(shard) as tar:
        names = tar.getnames()

    assert names == [f"{key}.{extension}" for key in SAMPLES for extension in ("mp4", "json")]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_webdataset_reads_the_shard(shard: Path) -> None:
    samples = {sample["__key__"]: sample for sample in wds.WebDataset(str(shard), shardshuffle=False)}

    assert {key: {"mp4": s["mp4"], "json": s["json"]} for key, s in samples.items()} == SAMPLES


def test_sidecar_tells_where_every_member_is(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "a.tar") as writer:
        for key, members in SAMPLES.items():
            writer.add(key, (4, 16, 16), members)
    assert writer.entry is not None

    samples = read_samples(tmp_path, writer.entry)

    assert [sample.key for sample in samples] == list(SAMPLES)
    with (tmp_path / "a.tar").open("rb") as file:
        for sample in samples:
            for extension, data in SAMPLES[sample.key].items():
                assert read_member(file, "a.tar", sample, extension) == data
                assert sample.members[extension].checksum == checksum(data)


def test_entry_describes_the_finished_tar(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "a.tar") as writer:
        writer.add("a", (4, 16, 16), {"mp4": b"x"})
        writer.add("b", (4, 16, 32), {"mp4": b"y"})

    assert writer.entry is not None
    assert writer.entry.name == "a.tar"
    assert writer.entry.num_bytes == (tmp_path / "a.tar").stat().st_size
    assert writer.entry.checksum == file_checksum(tmp_path / "a.tar")
    assert writer.entry.kinds == {Kind((4, 16, 16)): 1, Kind((4, 16, 32)): 1}
    assert writer.entry.keys == digest_of([sample.key for sample in read_samples(tmp_path, writer.entry)])


def test_nothing_is_left_of_a_shard_that_failed(tmp_path: Path) -> None:
    def write_and_stop() -> None:
        with ShardWriter(tmp_path / "a.tar") as writer:
            writer.add("a", (4, 16, 16), {"mp4": b"x"})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_and_stop()

    assert list(tmp_path.iterdir()) == []


def test_a_tar_does_not_tell_who_wrote_it_or_when(tmp_path: Path) -> None:
    for name in ("a.tar", "b.tar"):
        with ShardWriter(tmp_path / name) as writer:
            writer.add("a", (4, 16, 16), {"mp4": b"x", "json": b"{}"})

    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    with tarfile.open(tmp_path / "a.tar") as tar:
        assert [(one.name, one.mtime, one.uid, one.uname, one.gname, one.mode) for one in tar] == [
            (name, 0, 0, "", "", 0o444) for name in ("a.mp4", "a.json")
        ]


def test_nothing_is_left_of_a_shard_for_which_the_disk_is_too_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(file: object, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    def write() -> None:
        with ShardWriter(tmp_path / "a.tar") as writer:
            monkeypatch.setattr("data_pipelines.encode.shard_writer._DigestedFile.write", fail)
            writer.add("a", (4, 16, 16), {"mp4": bytes(100_000)})

    with pytest.raises(OSError, match="No space left"):
        write()

    assert list(tmp_path.iterdir()) == []
