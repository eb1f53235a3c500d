import pickle
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import get_args

import fsspec
import pytest

from tests.data.http_server import Failure, FaultyServer, Handler, serving
from tests.data.loading import assert_equal, module, take
from tests.data.shard_sets import SHAPE, list_samples
from vdm.data.disk_cache import DIGEST_BYTES, DiskCache
from vdm.data.index import read_index, write_index
from vdm.data.order import PADDING
from vdm.data.shard_table import ShardTable
from vdm.data.shards import file_checksum
from vdm.data.sidecars import write_samples
from vdm.data.storage import NUM_CONNECTIONS, LocalFolder, RemoteFolder, open_folder

FAILURES: tuple[Failure, ...] = get_args(Failure)


@pytest.fixture
def server(shard_set: Path) -> Iterator[FaultyServer]:
    with serving(shard_set) as running:
        yield running


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RemoteFolder, "retry_delays_seconds", (0.01,) * 4)
    monkeypatch.setattr(RemoteFolder, "timeout_seconds", 1.0)


@pytest.fixture
def in_memory(shard_set: Path) -> Iterator[str]:
    """A copy of the set in fsspec's own memory."""
    memory = fsspec.filesystem("memory")
    for file in shard_set.iterdir():
        memory.pipe_file(f"/shards/{file.name}", file.read_bytes())
    yield "memory://shards"
    memory.rm("/shards", recursive=True)


def test_a_local_path_is_a_local_folder_and_a_url_a_remote_one(tmp_path: Path) -> None:
    assert isinstance(open_folder(tmp_path), LocalFolder)
    assert isinstance(open_folder("http://nowhere/shards"), RemoteFolder)


def test_parts_of_files_are_read_alike_everywhere(shard_set: Path, server: FaultyServer, in_memory: str) -> None:
    name = "train-000000.tar"
    content = (shard_set / name).read_bytes()
    for folder in map(open_folder, (shard_set, server.url, in_memory)):
        assert folder.read(name) == content
        assert folder.read(name, 512, 1000) == content[512:1512]
        assert folder.read(name, 512, 0) == b""
        assert folder.sizes([name, "absent.tar"]) == {name: len(content)}
        with pytest.raises(FileNotFoundError):
            folder.read("absent.tar")
        folder.close()


@pytest.mark.parametrize("failure", FAILURES)
def test_passing_faults_of_a_server_are_retried(shard_set: Path, server: FaultyServer, failure: Failure) -> None:
    folder = open_folder(server.url)
    expected = (shard_set / "train-000000.tar").read_bytes()[512:1512]
    server.failures = [failure] if failure == "stall" else [failure] * 3
    assert folder.read("train-000000.tar", 512, 1000) == expected
    assert server.failures == []


@pytest.mark.parametrize("failure", ["503", "drop", "truncate", "no ranges"])
def test_lasting_faults_of_a_server_are_errors_of_storage(server: FaultyServer, failure: Failure) -> None:
    server.failures = [failure] * 20  # aiohttp tries dropped connections again by itself
    with pytest.raises(OSError, match=server.url):
        open_folder(server.url).read("train-000000.tar", 512, 1000)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_from_a_server_that_fails_are_those_from_the_folder(
    shard_set: Path, server: FaultyServer, num_workers: int
) -> None:
    expected = take(module(shard_set, num_images_per_clip=1).train_dataloader(), 8)
    data = module(server.url, num_images_per_clip=1, num_workers=num_workers)
    data.check()
    server.failures = ["503", "drop", "truncate"]
    try:
        for batch, other in zip(take(data.train_dataloader(), 8), expected, strict=True):
            assert_equal(batch, other)
    finally:
        data.close()
    assert server.failures == []


def test_only_the_bytes_needed_are_fetched(shard_set: Path, server: FaultyServer) -> None:
    data = module(server.url, micro_batch_size=1, global_batch_size=1)
    (batch,) = take(data.train_dataloader(), 1)
    assert batch.weights.tolist() == [1]
    server.bytes_sent.clear()  # of what the check at the start looked at
    take(data.train_dataloader(), 1)
    fetched = {path: count for path, count in server.bytes_sent.items() if path.endswith(".tar")}
    ((path, count),) = fetched.items()
    shard = next(s for s in read_index(shard_set).splits["train"] if path == f"/{s.name}")
    assert count < 1.5 * shard.num_bytes / shard.num_samples


def test_a_cache_spares_requests(shard_set: Path, server: FaultyServer, tmp_path: Path) -> None:
    def first_epoch() -> list[str]:
        data = module(server.url, cache_path=tmp_path / "cache")
        return [key for batch in take(data.train_dataloader(), 8) for key in batch.keys]

    keys, num_requests = first_epoch(), server.num_requests
    assert first_epoch() == keys
    # The index; of each shard its size, its list and a sample, which the check at the start looks at.
    assert server.num_requests - num_requests == 2 + 7 + 2 * 7


def test_a_set_that_was_built_again_at_its_url_is_not_read_from_the_cache(
    shard_set: Path, server: FaultyServer, tmp_path: Path
) -> None:
    def captions() -> list[str]:
        data = module(server.url, cache_path=tmp_path / "cache")
        batches = take(data.train_dataloader(), 8)
        assert all(batch.weights[batch.positions != PADDING].all() for batch in batches)
        return [caption for batch in batches for caption in batch.captions]

    old = captions()
    server.folder = tmp_path / "again"
    shutil.copytree(shard_set, server.folder)
    splits = {}
    for split, shards in read_index(shard_set).splits.items():
        for shard in shards:
            file = server.folder / shard.name
            file.write_bytes(file.read_bytes().replace(b'"clip ', b'"Clip '))
            write_samples(server.folder, shard.name, list_samples(file, SHAPE))
        files = [server.folder / shard.name for shard in shards]
        splits[split] = ShardTable.of(
            replace(shard, checksum=file_checksum(file)) for shard, file in zip(shards, files, strict=True)
        )
    write_index(server.folder, replace(read_index(shard_set), splits=splits))
    assert captions() == [caption.replace("clip", "Clip") for caption in old]


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("suffix", [".tar", ".index.json"])
def test_a_bad_transfer_costs_no_sample_and_is_not_kept(
    server: FaultyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cached: bool, suffix: str
) -> None:
    def weights() -> float:
        data = module(server.url, cache_path=tmp_path / "cache" if cached else None, check_shards=False)
        return sum(float(batch.weights.sum()) for batch in take(data.train_dataloader(), 4))

    spoilt: set[tuple[str, int]] = set()
    read = RemoteFolder.read

    def spoil_first(folder: RemoteFolder, name: str, offset: int = 0, length: int | None = None) -> bytes:
        data = read(folder, name, offset, length)
        if not name.endswith(suffix) or name == "index.json" or (name, offset) in spoilt:
            return data
        spoilt.add((name, offset))
        return bytes([data[0] ^ 1]) + data[1:]

    monkeypatch.setattr(RemoteFolder, "read", spoil_first)
    assert weights() == 12
    assert spoilt
    assert weights() == 12


def test_damage_that_lies_in_the_cache_is_read_anew(server: FaultyServer, tmp_path: Path) -> None:
    def weights() -> float:
        data = module(server.url, cache_path=tmp_path)
        return sum(float(batch.weights.sum()) for batch in take(data.train_dataloader(), 4))

    assert weights() == 12
    for file in [file for file in tmp_path.rglob("*") if file.is_file()]:
        value = b"something else"
        file.write_bytes(blake2b(value, digest_size=DIGEST_BYTES).digest() + value)
    assert weights() == 12
    num_requests = server.num_requests
    assert weights() == 12
    assert server.num_requests - num_requests == 2 + 7 + 2 * 7  # as the check at the start needs, and no more


def test_a_server_without_listings_is_asked_for_many_sizes_at_once(
    shard_set: Path, server: FaultyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    under_way, most, lock, are_many = 0, 0, threading.Lock(), threading.Event()
    answer = Handler.do_HEAD

    def slow(handler: Handler) -> None:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
            if most >= 4:
                are_many.set()
        are_many.wait(5)
        time.sleep(0.1)  # in which more would come
        answer(handler)
        with lock:
            under_way -= 1

    monkeypatch.setattr(Handler, "do_HEAD", slow)
    names = [shard.name for shard in read_index(shard_set).shards()]
    sizes = RemoteFolder(server.url).sizes([*names, "absent.tar"])
    assert sizes == {name: (shard_set / name).stat().st_size for name in names}
    assert 4 <= most <= NUM_CONNECTIONS


def test_a_set_in_memory_trains_like_one_on_disk(shard_set: Path, in_memory: str) -> None:
    for batch, other in zip(
        take(module(in_memory).train_dataloader(), 8), take(module(shard_set).train_dataloader(), 8), strict=True
    ):
        assert_equal(batch, other)


def test_a_folder_travels_to_other_processes_without_its_client(server: FaultyServer, tmp_path: Path) -> None:
    folder = RemoteFolder(server.url, DiskCache(tmp_path, 1.0))
    folder.read("index.json")
    sent = pickle.dumps(folder)
    assert len(sent) < 500
    assert pickle.loads(sent).read("index.json") == folder.read("index.json")


def test_mistakes_are_one_line(server: FaultyServer, monkeypatch: pytest.MonkeyPatch, shard_set: Path) -> None:
    def message(path: str) -> str:
        with pytest.raises(ValueError, match=path.split("://")[1].split("/")[0]) as error:
            module(path).check()
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "has no index.json" in message(f"{server.url}/nothing")
    assert "Protocol not known" in message("nonsense://bucket/shards")
    for protocol, package in (("s3", "s3fs"), ("gs", "gcsfs")):
        monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
        monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, protocol, raising=False)  # nor in use before
        advice = {"s3": "pip install '.[s3]'", "gs": "pip install '.[gcs]'"}[protocol]
        assert message(f"{protocol}://bucket/shards").endswith(advice)
    monkeypatch.setattr(RemoteFolder, "retry_delays_seconds", ())
    assert "can't be read" in message("http://127.0.0.1:9/shards")  # nothing listens there
    server.folder = shard_set.parent
    with pytest.raises(ValueError, match=r"has no index.json"):
        read_index(server.url)
