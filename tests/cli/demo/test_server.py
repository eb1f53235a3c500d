"""The server of ``vdm demo``: who reaches it, what it gives away, and how it ends."""

import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cli.conftest import RunVdm
from tests.cli.demo.serving import Served, served
from vdm.cli.demo.guard import HostNames
from vdm.cli.demo.server import listen, url_of
from vdm.config import ConfigError


@pytest.fixture(scope="module")
def demo(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    options = ("device=cpu", "max_upload_mib=1")
    with served(tmp_path_factory.mktemp("demo"), f"checkpoint={trained}", *options) as running:
        yield running
        assert running.stop(signal.SIGTERM) == 0
        assert running.log.read_text().endswith("Ended\n")


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=/proc/self/environ",
        "/gradio_api/file=RUN/config.yaml",
        "/gradio_api/file=../../../../etc/passwd",
        "/gradio_api/file=http://127.0.0.1:9/",
        "/gradio_api/proxy=http://127.0.0.1:9/",
        "/gradio_api/file//etc/passwd",
        "/gradio_api/info",
        "/gradio_api/openapi.json",
        "/gradio_api/runs",
        "/gradio_api/deep_link",
        "/docs",
        "/openapi.json",
        "/monitoring",
        "/static/..%2f..%2f..%2f..%2fetc%2fpasswd",
        "/assets/%2e%2e/%2e%2e/%2e%2e/__init__.py",
    ],
)
def test_nothing_but_the_page_is_given_away(demo: Served, trained: Path, path: str) -> None:
    answer = httpx.get(demo.url + path.replace("RUN", str(trained)))
    assert answer.status_code in (403, 404)
    assert "root:" not in answer.text


@pytest.mark.parametrize("path", ["run/generate", "api/generate", "call/generate", "vibe-edit", "component_server"])
def test_only_the_page_s_own_forms_are_taken(demo: Served, path: str) -> None:
    assert httpx.post(f"{demo.url}/gradio_api/{path}", json={"data": []}).status_code == 404


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "rebound.example"},
        {"Host": "127.0.0.1.nip.example:7860"},
        {"Origin": "http://other.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
    ],
)
def test_requests_of_other_sites_are_refused(demo: Served, headers: dict[str, str]) -> None:
    assert httpx.get(f"{demo.url}/config", headers=headers).status_code == 403
    files = {"files": ("a.txt", b"a")}
    assert httpx.post(f"{demo.url}/gradio_api/upload", files=files, headers=headers).status_code == 403


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST"])
def test_the_loopback_address_has_other_names(demo: Served, host: str) -> None:
    assert httpx.get(demo.url, headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    ("host", "is_known"),
    [
        ("localhost:7860", True),
        ("192.0.2.7:7860", True),
        ("[2001:db8::7]:7860", True),
        ("MACHINE:7860", True),
        ("machine", True),
        ("machine.lab.example", True),
        ("Demo.Example.org.", True),
        ("rebound.example", False),
        ("192.0.2.7.nip.example:7860", False),
        ("machine.evil.example", False),
        ("demo.example.org.evil.example", False),
        ("", False),
    ],
)
def test_a_page_for_others_answers_to_its_names_and_addresses(
    monkeypatch: pytest.MonkeyPatch, host: str, is_known: bool
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "machine.lab.example")
    assert (host in HostNames.of(False, ["demo.example.org"])) == is_known
    assert host in HostNames.of(False, ["*"])


def test_the_loopback_address_has_no_other_names_but_those_allowed() -> None:
    assert "192.0.2.7" not in HostNames.of(True, [])
    assert socket.gethostname() not in HostNames.of(True, [])
    assert "demo.example.org" in HostNames.of(True, ["Demo.example.org:8443"])


def test_the_browser_is_told_to_stay_here(demo: Served) -> None:
    policy = httpx.get(demo.url).headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "http" not in policy


def join(demo: Served, file: dict[str, Any]) -> httpx.Response:
    """Send a form in whose input of a picture is a file, as a browser does."""
    config = httpx.get(f"{demo.url}/config").json()
    (picture,) = (one["id"] for one in config["components"] if one["props"].get("elem_id") == "image")
    (event,) = (one for one in config["dependencies"] if one["inputs"] == [picture])
    content = {"data": [file], "fn_index": event["id"], "session_hash": "s", "trigger_id": picture, "event_data": None}
    return httpx.post(f"{demo.url}/gradio_api/queue/join", json=content)


@pytest.mark.parametrize("path", ["http://127.0.0.1:PORT/a.png", "https://a.example/a.png", "/etc/passwd", "a.png", 1])
def test_an_address_or_a_file_of_the_machine_is_no_upload(demo: Served, path: object) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(1)
        if isinstance(path, str):
            path = path.replace("PORT", str(listening.getsockname()[1]))
        file = {"path": path, "url": path, "meta": {"_type": "gradio.FileData"}}

        assert join(demo, file).status_code == 403

        with pytest.raises(TimeoutError):
            listening.accept()


def test_an_uploaded_file_is_taken(demo: Served) -> None:
    (path,) = httpx.post(f"{demo.url}/gradio_api/upload", files={"files": ("a.png", b"a")}).json()
    assert join(demo, {"path": path, "meta": {"_type": "gradio.FileData"}}).status_code == 200


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"a":' * 2000, b"\xff", b'{"data":"' + b"a" * (1 << 20) + b'"}'])
def test_what_is_no_form_is_refused(demo: Served, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    assert httpx.post(f"{demo.url}/gradio_api/queue/join", content=body, headers=headers).status_code in (400, 413)


def test_a_large_upload_is_refused_and_not_kept(demo: Served) -> None:
    files = {"files": ("a.mp4", b"a" * (1 << 21))}
    assert httpx.post(f"{demo.url}/gradio_api/upload", files=files).status_code == 413
    (cache,) = demo.log.parent.glob("vdm-demo-*")
    assert sum(file.stat().st_size for file in cache.rglob("*") if file.is_file()) < 1 << 20


def test_visitors_from_elsewhere_log_in(trained: Path, tmp_path: Path) -> None:
    secret = {"VDM_DEMO_PASSWORD": "correct horse"}
    options = ("device=cpu", "host=0.0.0.0", "user=ann", "allowed_hosts=[demo.example]")
    with served(tmp_path, f"checkpoint={trained}", *options, env=secret) as demo:
        assert "the password is sent unencrypted" in demo.log.read_text()
        assert [
            httpx.get(demo.url, headers={"Host": name}).status_code for name in ("rebound.example", "demo.example")
        ] == [
            403,
            200,
        ]
        with httpx.Client(base_url=demo.url) as client:
            assert client.get("/config").status_code == 401
            assert client.post("/gradio_api/upload", files={"files": ("a", b"a")}).status_code == 401
            assert client.get("/gradio_api/file=/etc/passwd").status_code == 401
            for given in ({"username": "ann", "password": "wrong"}, {"username": "bob", "password": "correct horse"}):
                assert client.post("/login", data=given).status_code == 400
            assert client.post("/login", data={"username": "ann", "password": "correct horse"}).status_code == 200
            assert client.get("/config").status_code == 200
        assert demo.stop(signal.SIGINT) == 0
        assert list(tmp_path.glob("vdm-demo-*")) == []


def test_the_next_free_port_is_taken() -> None:
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with listen("127.0.0.1", port) as second:
            assert port < second.getsockname()[1] < port + 100
            assert url_of(second) == f"http://127.0.0.1:{second.getsockname()[1]}"


@pytest.mark.parametrize("host", ["nowhere.invalid", "192.0.2.1", "a b"])
def test_a_host_that_is_none_of_this_machine_is_one_line(host: str) -> None:
    with pytest.raises(ConfigError, match=f"host={re.escape(host)}"):
        listen(host, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["checkpoint=nowhere"], "nowhere"),
        (["checkpoint=[]"], "checkpoint="),
        (["user=ann"], "user: is given without password"),
        (["password=secret"], "password: is given without user"),
        (["port=70000"], "port=70000: must be"),
        (["port=http"], "port=http: must be"),
        (["max_upload_mib=0"], "max_upload_mib=0: must be"),
        (["device=abacus"], "device=abacus"),
        (["output=/proc/here"], "output=/proc/here: can't be written to"),
    ],
)
def test_a_wrong_option_is_one_line(run_vdm: RunVdm, trained: Path, arguments: list[str], message: str) -> None:
    given = [] if arguments[0].startswith("checkpoint") else [f"checkpoint={trained}"]
    code, said = run_vdm("demo", *given, *arguments)
    assert (code, said.count("\n")) == (2, 1)
    assert message in said
