import itertools
import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import webdataset

from tests.data.shard_sets import SHAPE, TRAIN_COUNTS
from vdm.data import retries, storage
from vdm.data.datamodule import ClipDataModule
from vdm.data.index import read_index
from vdm.data.quarantine import BadSampleError, Fault
from vdm.data.reading import MAX_LISTED_BYTES, RawSample, Request, ShardReader
from vdm.data.retries import StorageFailedError
from vdm.data.sample_table import SampleTable
from vdm.data.shards import Kind, Member, SampleEntry, ShardEntry
from vdm.data.sidecars import read_samples
from vdm.data.storage import LocalFolder

FILES = frozenset({"mp4", "json"})


def reader_of(path: Path) -> tuple[ShardReader, tuple[ShardEntry, ...]]:
    shards = read_index(path).splits["train"]
    return ShardReader(LocalFolder(path), shards), shards


def read(reader: ShardReader, shard: int, sample: int) -> RawSample:
    (found,) = reader.read([Request(shard, sample, frozenset({Kind(SHAPE)}), FILES)])
    assert isinstance(found, RawSample)
    return found


def fault_of(reader: ShardReader, shard: int, sample: int) -> Fault:
    (found,) = reader.read([Request(shard, sample, frozenset({Kind(SHAPE)}), FILES)])
    assert isinstance(found, BadSampleError)
    return found.fault


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset leaves its files to the garbage collector
def test_reads_what_webdataset_reads(shard_set: Path) -> None:
    reader, shards = reader_of(shard_set)
    urls = [str(shard_set / shard.name) for shard in shards]
    peer = {s["__key__"]: s for s in webdataset.WebDataset(urls, shardshuffle=False, empty_check=False)}
    places = [(shard, sample) for shard, count in enumerate(TRAIN_COUNTS) for sample in range(count)]
    kinds = frozenset({Kind(SHAPE)})
    for _ in range(3):  # from the second time on into the same memory
        raws = [
            raw
            for raw in reader.read([Request(*place, kinds, FILES) for place in places])
            if isinstance(raw, RawSample)
        ]
        assert [raw.key for raw in raws] == list(peer)
        for raw in raws:
            assert raw.members["mp4"] == peer[raw.key]["mp4"]
            assert json.loads(bytes(raw.members["json"])) == json.loads(peer[raw.key]["json"])


def test_a_table_gives_the_entries_of_the_sidecar(shard_set: Path) -> None:
    for shard in read_index(shard_set).splits["train"]:
        samples = read_samples(shard_set, shard)
        table = SampleTable(samples)
        assert tuple(table[i] for i in range(len(table))) == samples


def test_a_table_keeps_what_samples_differ_in() -> None:
    member = Member(1 << 40, 1 << 33, "0f" * 16)
    samples = (
        SampleEntry("clip-ä", (1, 8, 8), {"jpg": member}, 8.0),
        SampleEntry("", (2, 8, 8), {"mp4": member, "json": Member(0, 0, "f0" * 16)}, None),
        SampleEntry("c", (1, 8, 8), {}, None),
    )
    table = SampleTable(samples)
    assert tuple(table[i] for i in range(len(table))) == samples
    assert table.find(frozenset({Kind((1, 8, 8)), Kind((1, 8, 8), 8.0)}), 1, FILES) == samples[2]
    assert table.find(frozenset({Kind((1, 8, 8))}), 0, FILES) == samples[2]


def test_the_lists_of_as_many_shards_as_are_read_in_turn_are_read_once() -> None:
    """As many samples as an ordinary set of pictures has in 64 shards, with three files each."""
    names = ("jpg", "json", "txt")
    members = dict.fromkeys(names, Member(1 << 30, 1 << 16, "0f" * 16))
    table = SampleTable([SampleEntry(f"{number:09d}", (1, 256, 256), members) for number in range(10_000)])
    num_tables = 2 * ClipDataModule("", 1, 1).num_streams
    assert num_tables * table.num_bytes < MAX_LISTED_BYTES


def test_files_beyond_the_limit_are_closed_and_opened_again(shard_set: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "MAX_OPEN_FILES", 1)
    reader, shards = reader_of(shard_set)
    for _ in range(2):
        assert [read(reader, i, 0).shard for i in range(len(shards))] == [shard.name for shard in shards]


def test_damage_is_named_by_shard_key_and_place(make_shard_set: Callable[..., Path]) -> None:
    path = make_shard_set(train=(2,), validation=(1,))
    reader, shards = reader_of(path)
    second = read_samples(path, shards[0])[1]
    with (path / shards[0].name).open("r+b") as file:
        file.seek(second.members["mp4"].offset + 100)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))
    assert read(reader, 0, 0).key == "train-clip-0000"
    fault = fault_of(reader, 0, 1)
    assert (fault.shard, fault.key, fault.offset) == (shards[0].name, second.key, second.members["mp4"].offset)
    assert "checksum" in fault.reason


def test_a_shard_that_vanishes_is_a_bad_sample(make_shard_set: Callable[..., Path]) -> None:
    path = make_shard_set(train=(2,), validation=(1,))
    reader, shards = reader_of(path)
    (path / shards[0].name).unlink()
    assert shards[0].name in fault_of(reader, 0, 0).reason


def test_passing_faults_of_storage_are_retried(shard_set: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalFolder, "retry_delays_seconds", (0.0, 0.0))
    reader, _ = reader_of(shard_set)
    read(reader, 0, 0)
    failures = [OSError(5, "Input/output error")] * 2
    preadv = storage.os.preadv

    def flaky(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        if failures:
            raise failures.pop()
        return preadv(descriptor, buffers, offset)

    monkeypatch.setattr(storage.os, "preadv", flaky)
    assert read(reader, 0, 0).key == "train-clip-0000"


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalFolder, "retry_delays_seconds", (0.0,))
    monkeypatch.setattr(retries, "FIRST_PAUSE_SECONDS", 0.01)


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), PermissionError(13, "Permission denied")])
@pytest.mark.usefixtures("short_pauses")
def test_an_outage_is_waited_for_and_loses_no_sample(
    shard_set: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: OSError
) -> None:
    reader, shards = reader_of(shard_set)
    failures = [error] * 6
    openat = storage.os.open

    def flaky(*args: object, **kwargs: object) -> int:
        if failures:
            raise failures.pop()
        return openat(*args, **kwargs)

    monkeypatch.setattr(storage.os, "open", flaky)
    with caplog.at_level(logging.WARNING):
        assert read(reader, 1, 0).shard == shards[1].name
    assert failures == []
    (message,) = (record.getMessage() for record in caplog.records)
    assert message.startswith("Storage fails, waiting up to 600 s for it: ")
    assert str(shard_set) in message


@pytest.mark.usefixtures("short_pauses")
def test_an_outage_in_the_middle_of_a_batch_overwrites_nothing_and_takes_no_memory(
    shard_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, shards = reader_of(shard_set)
    requests = [Request(shard, 0, frozenset({Kind(SHAPE)}), FILES) for shard in range(len(shards))]

    def contents() -> list[bytes]:
        raws = [raw for raw in reader.read(requests) if isinstance(raw, RawSample)]
        return [bytes(raw.members["mp4"]) for raw in raws]

    expected = contents()
    used, preadv, num_calls = reader._memory._used, storage.os.preadv, itertools.count()

    def flaky(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        number = next(num_calls)
        if 0 < number < 40:  # all but the first sample
            raise OSError(5, "Input/output error")
        return preadv(descriptor, buffers, offset)

    monkeypatch.setattr(storage.os, "preadv", flaky)
    assert contents() == expected
    assert next(num_calls) > 40
    assert reader._memory._used == used


@pytest.mark.usefixtures("short_pauses")
def test_an_outage_without_end_is_one_line_that_names_the_file(
    shard_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, shards = reader_of(shard_set)
    read(reader, 0, 0)
    monkeypatch.setattr(ShardReader, "patience_seconds", 0.1)

    def fail(*args: object) -> int:
        raise OSError(116, "Stale file handle")

    monkeypatch.setattr(storage.os, "preadv", fail)
    with pytest.raises(StorageFailedError, match=rf"^{shard_set / shards[0].name}: .*Stale file handle.*$") as error:
        read(reader, 0, 1)
    assert "\n" not in str(error.value)


@pytest.mark.usefixtures("short_pauses")
def test_a_folder_that_is_not_mounted_is_an_outage_and_no_missing_shard(
    make_shard_set: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_shard_set(train=(2,), validation=(1,))
    reader, shards = reader_of(path)
    path.rename(path.with_name("elsewhere"))
    path.mkdir()  # an empty mount point
    monkeypatch.setattr(ShardReader, "patience_seconds", 0.1)
    with pytest.raises(StorageFailedError, match=f"^{path}/train-000000.index.json: .*No such file"):
        read(reader, 0, 0)
    path.rmdir()
    with pytest.raises(StorageFailedError, match="No such file"):
        read(reader, 0, 0)
    path.with_name("elsewhere").rename(path)
    (path / "train-000000.index.json").unlink()
    assert fault_of(reader, 0, 0).shard == shards[0].name
