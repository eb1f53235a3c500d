"""A real S3 protocol server on loopback; needs the extra ``s3`` and moto's server."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.data.http_server import Failure, FaultyServer, in_front_of
from tests.data.test_datamodule import assert_equal, keys_by_position, module, take
from vdm.data.storage import RemoteFolder

boto3 = pytest.importorskip("boto3")
s3fs = pytest.importorskip("s3fs")
moto_server = pytest.importorskip("moto.server")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


@pytest.fixture(scope="module")
def server(shard_set: Path) -> Iterator[str]:
    """Host and port of a server with a copy of the set in the bucket ``clips``."""
    server = moto_server.ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    client = boto3.client(
        "s3",
        endpoint_url=f"http://{host}:{port}",
        region_name="us-east-1",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
    )
    client.create_bucket(Bucket="clips")
    for file in shard_set.iterdir():
        client.upload_file(str(file), "clips", f"set/{file.name}")
        if file.name != "train-000002.tar":
            client.upload_file(str(file), "clips", f"set-with-a-gap/{file.name}")
    yield f"{host}:{port}"
    server.stop()


@pytest.fixture
def proxy(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyServer]:
    """Stands in front of the server; where it is and who asks stand in the environment alone."""
    with in_front_of(server) as running:
        _point_to(running.url, monkeypatch)
        yield running


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """URL of the set, asked for without a proxy."""
    _point_to(f"http://{server}", monkeypatch)
    return "s3://clips/set"


def _point_to(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()  # clients of an earlier test's server


@pytest.mark.parametrize("num_workers", [0, 1])
def test_batches_from_s3_are_those_from_the_folder(shard_set: Path, bucket: str, num_workers: int) -> None:
    data = module(bucket, num_workers=num_workers)
    data.check()
    try:
        batches = take(data.train_dataloader(), 6)
    finally:
        data.close()
    for batch, other in zip(batches, take(module(shard_set).train_dataloader(), 6), strict=True):
        assert_equal(batch, other)


def test_a_missing_set_or_shard_is_one_line(bucket: str) -> None:
    with pytest.raises(ValueError, match=r"^s3://clips/nothing: has no index.json"):
        module("s3://clips/nothing").check()
    with pytest.raises(ValueError, match=r"^s3://clips/set-with-a-gap/train-000002.tar: this shard .* is missing"):
        module("s3://clips/set-with-a-gap").check()


@pytest.mark.parametrize("failure", ["503", "drop", "truncate", "stall"])
def test_errors_slow_answers_and_broken_connections_lose_nothing(
    failure: Failure, shard_set: Path, proxy: FaultyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RemoteFolder, "retry_delays_seconds", (0.01,) * 4)
    monkeypatch.setattr(RemoteFolder, "timeout_seconds", 1.0)
    data = module("s3://clips/set", max_validation_clips=0)
    data.check()
    loader = iter(data.train_dataloader())
    found = keys_by_position(take(loader, 2))
    proxy.failures = [failure] * (1 if failure == "stall" else 3)
    found |= keys_by_position(take(loader, 4))
    assert proxy.failures == []
    assert found == keys_by_position(take(module(shard_set).train_dataloader(), 6))
    assert "" not in found.values()


def test_what_never_comes_is_a_bad_sample_and_training_goes_on(
    proxy: FaultyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RemoteFolder, "retry_delays_seconds", (0.01,) * 2)
    data = module("s3://clips/set", max_validation_clips=0, max_bad_fraction=1.0)
    data.check()
    loader = iter(data.train_dataloader())
    take(loader, 1)
    proxy.failures = ["truncate"] * 10_000
    lost = take(loader, 1)
    proxy.failures = []
    whole = take(loader, 2)
    assert [float(batch.weights.sum()) for batch in (*lost, *whole)] == [0, 3, 3]
