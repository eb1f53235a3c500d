"""A real S3 protocol server on loopback; needs the extra ``s3`` and moto's server."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.data.test_datamodule import assert_equal, module, take

boto3 = pytest.importorskip("boto3")
s3fs = pytest.importorskip("s3fs")
moto_server = pytest.importorskip("moto.server")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


@pytest.fixture
def bucket(shard_set: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """URL of a copy of the set; where the server is and who asks stand in the environment alone."""
    server = moto_server.ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()  # clients of an earlier test's server
    client = boto3.client("s3")
    client.create_bucket(Bucket="clips")
    for file in shard_set.iterdir():
        client.upload_file(str(file), "clips", f"set/{file.name}")
    yield "s3://clips/set"
    server.stop()


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


def test_a_missing_set_or_shard_is_one_line(shard_set: Path, bucket: str) -> None:
    with pytest.raises(ValueError, match=r"^s3://clips/nothing: has no index.json"):
        module("s3://clips/nothing").check()
    boto3.client("s3").delete_object(Bucket="clips", Key="set/train-000002.tar")
    with pytest.raises(ValueError, match=r"^s3://clips/set/train-000002.tar: this shard of the index is missing"):
        module(bucket).check()
