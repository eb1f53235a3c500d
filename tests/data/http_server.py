"""A real HTTP server on loopback that answers range requests, and fails in chosen ways."""

import re
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal

HOP_BY_HOP = ("connection", "content-length", "date", "server", "transfer-encoding")
"""Headers of an answer that are not handed on."""
Failure = Literal["503", "drop", "truncate", "stall", "no ranges"]


class FaultyServer(ThreadingHTTPServer):
    """Serves a folder; the failures in ``failures`` come to the next requests, one each."""

    daemon_threads = True

    def __init__(self, folder: Path, handler: type[BaseHTTPRequestHandler] | None = None) -> None:
        super().__init__(("127.0.0.1", 0), handler or Handler)
        self.folder = folder
        self.failures: list[Failure] = []
        self.bytes_sent: Counter[str] = Counter()
        self.num_requests = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Stay silent about clients that hang up."""


class Handler(BaseHTTPRequestHandler):
    """Serves the files of its server's folder."""

    server: FaultyServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        with self.server.lock:
            self.server.num_requests += 1
            failure = self.server.failures.pop(0) if self.server.failures and with_body else None
        if failure == "503":
            return self._send(503, b"slow down", {})
        if failure == "drop":
            return self._hang_up()
        if failure == "stall":
            threading.Event().wait(5)
            return self._hang_up()
        return self._serve(failure, with_body)

    def _serve(self, failure: Failure | None, with_body: bool) -> None:
        path = self.server.folder / self.path.lstrip("/")
        if not path.is_file():
            return self._send(404, b"", {})
        content = path.read_bytes()
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if asked and with_body and failure != "no ranges":
            first, last = int(asked[1]), min(int(asked[2]), len(content) - 1)
            part, headers = content[first : last + 1], {"Content-Range": f"bytes {first}-{last}/{len(content)}"}
            return self._send(206, part, headers, failure, with_body)
        return self._send(200, content, {}, failure, with_body)

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _send(
        self, status: int, body: bytes, headers: dict[str, str], failure: Failure | None = None, with_body: bool = True
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            sent = body[: len(body) // 2] if failure == "truncate" else body
            with self.server.lock:
                self.server.bytes_sent[self.path] += len(sent)
            self.wfile.write(sent)
        if failure == "truncate":
            self.close_connection = True


class ProxyHandler(Handler):
    """Hands requests on to another server, and its answers back."""

    upstream: str

    def do_PUT(self) -> None:
        self._serve(None, with_body=True)

    def _serve(self, failure: Failure | None, with_body: bool) -> None:
        connection = HTTPConnection(self.upstream, timeout=30)
        connection.request(self.command, self.path, headers=dict(self.headers))
        answer = connection.getresponse()
        headers = {k: v for k, v in answer.getheaders() if k.lower() not in HOP_BY_HOP}
        self._send(answer.status, answer.read(), headers, failure, with_body)
        connection.close()


@contextmanager
def serving(folder: Path) -> Iterator[FaultyServer]:
    """Serve a folder while the block runs."""
    with running(FaultyServer(folder)) as server:
        yield server


@contextmanager
def in_front_of(upstream: str) -> Iterator[FaultyServer]:
    """Stand in front of the server at ``host:port`` while the block runs, and fail in its place."""
    handler = type("Handler", (ProxyHandler,), {"upstream": upstream})
    with running(FaultyServer(Path(), handler)) as server:
        yield server


@contextmanager
def running(server: FaultyServer) -> Iterator[FaultyServer]:
    """Run a server while the block runs."""
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
