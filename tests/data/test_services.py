"""Each storage service behind fsspec, by real clients over real connections."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.data.http_server import Failure, FaultyServer, in_front_of
from tests.data.loading import assert_equal, keys_by_position, module, take
from tests.data.services import Service, google_cloud_storage, hub, s3
from vdm.data.index import read_index
from vdm.data.reading import ShardReader
from vdm.data.retries import StorageFailedError
from vdm.data.sidecars import read_samples
from vdm.data.storage import RemoteFolder

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


@pytest.fixture(scope="module", params=["s3", "gs", "hf"])
def service(
    request: pytest.FixtureRequest, shard_set: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """A service with the set, and with copies of it that lack a shard, or all of a shard but its first sample."""
    files = {f"set/{file.name}": file for file in shard_set.iterdir()}
    files |= {f"set-with-a-gap/{file.name}": file for file in shard_set.iterdir() if file.name != "train-000002.tar"}
    cut = tmp_path_factory.mktemp("cut") / "train-000002.tar"
    cut.write_bytes((shard_set / cut.name).read_bytes()[: _end_of_first_sample(shard_set, cut.name)])
    files |= {f"set-cut-short/{file.name}": file for file in shard_set.iterdir()} | {f"set-cut-short/{cut.name}": cut}
    started = {"s3": s3, "gs": google_cloud_storage, "hf": lambda f: hub(f, tmp_path_factory.mktemp("hub"))}
    with started[request.param](files) as running:
        yield running


def _end_of_first_sample(path: Path, shard_name: str) -> int:
    shard = next(shard for shard in read_index(path).splits["train"] if shard.name == shard_name)
    return max(member.offset + member.length for member in read_samples(path, shard)[0].members.values())


@pytest.fixture
def root(service: Service, monkeypatch: pytest.MonkeyPatch) -> str:
    """URL of what holds the sets; where the server is stands in the environment alone."""
    service.point_to(f"http://{service.address}", monkeypatch)
    return service.root


@pytest.fixture
def proxy(service: Service, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyServer]:
    """Stands in front of the service, and is asked in its place."""
    with in_front_of(service.address) as running:
        service.point_to(running.url, monkeypatch)
        yield running


@pytest.mark.parametrize("num_workers", [0, 1])
def test_batches_are_those_from_the_folder(shard_set: Path, root: str, num_workers: int) -> None:
    data = module(f"{root}/set", num_workers=num_workers)
    data.check()
    try:
        batches = take(data.train_dataloader(), 6)
    finally:
        data.close()
    for batch, other in zip(batches, take(module(shard_set).train_dataloader(), 6), strict=True):
        assert_equal(batch, other)


def test_no_more_than_the_bytes_asked_for_are_fetched(shard_set: Path, service: Service, proxy: FaultyServer) -> None:
    folder = RemoteFolder(f"{service.root}/set")
    folder.read("train-000000.tar", 0, 1)  # the client may look around first
    sent = proxy.bytes_sent.total()
    part = folder.read("train-000000.tar", 512, 1000)
    assert part == (shard_set / "train-000000.tar").read_bytes()[512:1512]
    assert proxy.bytes_sent.total() == sent + 1000


def test_a_missing_set_or_shard_is_one_line(root: str) -> None:
    with pytest.raises(ValueError, match=rf"^{root}/nothing: has no index.json"):
        module(f"{root}/nothing").check()
    with pytest.raises(ValueError, match=rf"^{root}/set-with-a-gap/train-000002.tar: this shard .* is missing"):
        module(f"{root}/set-with-a-gap").check()


@pytest.mark.parametrize("failure", ["503", "drop", "truncate", "stall"])
def test_errors_slow_answers_and_broken_connections_lose_nothing(
    failure: Failure, shard_set: Path, service: Service, proxy: FaultyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RemoteFolder, "retry_delays_seconds", (0.01,) * 4)
    monkeypatch.setattr(RemoteFolder, "timeout_seconds", 1.0)
    data = module(f"{service.root}/set", max_validation_clips=0)
    data.check()
    loader = iter(data.train_dataloader())
    found = keys_by_position(take(loader, 2))
    proxy.failures = [failure] * (1 if failure == "stall" else 2)
    found |= keys_by_position(take(loader, 4))
    assert proxy.failures == []
    assert found == keys_by_position(take(module(shard_set).train_dataloader(), 6))
    assert "" not in found.values()


def test_what_never_comes_ends_the_run_and_no_sample_is_lost(
    service: Service, proxy: FaultyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RemoteFolder, "retry_delays_seconds", (0.01,) * 2)
    monkeypatch.setattr(RemoteFolder, "timeout_seconds", 1.0)
    monkeypatch.setattr(ShardReader, "patience_seconds", 0.5)
    data = module(f"{service.root}/set", max_validation_clips=0, max_bad_fraction=1.0)
    data.check()
    loader = iter(data.train_dataloader())
    take(loader, 2)
    data.consumed(6)
    proxy.failures = ["truncate"] * 10_000
    with pytest.raises(StorageFailedError, match=rf"^{service.root}/set/train-.*storage has failed for") as error:
        take(loader, 1)
    assert "\n" not in str(error.value)
    proxy.failures = []
    whole = take(data.train_dataloader(), 2)
    assert [float(batch.weights.sum()) for batch in whole] == [3, 3]
    assert whole[0].positions[0] == 6


@pytest.mark.parametrize(("name", "num_whole"), [("set-with-a-gap", 14), ("set-cut-short", 15)])
def test_a_shard_that_was_cut_short_or_deleted_is_damage_and_training_goes_on(
    root: str, name: str, num_whole: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RemoteFolder, "retry_delays_seconds", ())
    monkeypatch.setattr(ShardReader, "patience_seconds", 0.0)
    data = module(f"{root}/{name}", max_validation_clips=0, max_bad_fraction=1.0, check_shards=False)
    batches = take(data.train_dataloader(), 8)
    assert len({key for batch in batches for key in batch.keys} - {""}) == num_whole
