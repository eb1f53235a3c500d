"""A stand-in for the server of Weights & Biases: its GraphQL API, as far as a workspace needs it, on loopback."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "0" * 40
PROJECTS = {("me", "digits"), ("team", "digits")}


class Server(ThreadingHTTPServer):
    """Takes workspaces for a few projects; an account without a team is ``me``."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.views: list[dict[str, Any]] = []
        """Variables of each request that saves a workspace."""
        self.refusal: tuple[str, int, str] | None = None
        """Text in a query, and the HTTP status and message by which it is refused."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def data(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to a query."""
        if "upsertView" in query:
            self.views.append(variables)
            return {"upsertView": {"view": {"id": "1", "name": variables["name"]}, "inserted": True}}
        if "GetProject" in query:
            entity, name = variables["entity"], variables["name"]
            project = {"id": "1", "name": name, "entityName": entity, "createdAt": "2026-01-01T00:00:00Z"}
            known = (entity, name) in PROJECTS
            return {"project": {**project, "isBenchmark": False, "user": None} if known else None}
        if "viewer" in query:
            return {"viewer": {"id": "1", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}}}
        raise AssertionError(f"no such query is expected: {query}")


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer(200, {})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        refusal = self.server.refusal
        if refusal is not None and refusal[0] in asked["query"]:
            self._answer(refusal[1], {"data": None, "errors": [{"message": refusal[2]}]})
        else:
            self._answer(200, {"data": self.server.data(asked["query"], asked.get("variables") or {})})

    def _answer(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serving() -> Iterator[Server]:
    """Serve until the block ends."""
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
