"""What reaches the page's server: only this page's own requests, and only to what the page needs.

A page of another site, open in the same browser, could otherwise send forms here, or read answers under a name that it
makes its own site's address point here (DNS rebinding). Gradio also has routes that nobody needs here, such as one that
fetches other addresses, and takes an address for an uploaded file.
"""

import ipaddress
import json
import re
import socket
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vdm.outside import parse_object

_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_ANY = "*"
"""Name that stands for all."""
_API = "/gradio_api"
_GET = re.compile(
    rf"/|/config/?|/theme\.css|/favicon\.ico|/robots\.txt|/login_check/?|/logout|/(assets|static|svelte)/[\w./+-]+"
    rf"|{_API}/(queue/data|heartbeat/\w+|startup-events|upload_progress|theme\.css|app_id/?|user/?|login_check/?)"
    rf"|{_API}/file=/.+"
)
_POST = re.compile(rf"/login/?|{_API}/(queue/join/?|upload|cancel|reset/?)")
"""Paths of the page; all others are answered as if they did not exist."""
_MAX_BODY = 1 << 20
"""Bytes of a request that is no upload, at most."""
_POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self'"
    " 'unsafe-inline'; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
"""Keeps the browser from sending anything elsewhere. Gradio compiles templates there, hence ``unsafe-eval``."""
_HEADERS = {
    b"content-security-policy": _POLICY.encode(),
    b"referrer-policy": b"same-origin",
    b"x-content-type-options": b"nosniff",
    b"cross-origin-resource-policy": b"same-origin",
}


@dataclass(frozen=True)
class HostNames:
    """The names by which a request may address the page.

    An address instead of a name can't be made to point elsewhere, so on a machine that others reach all are allowed.
    """

    names: frozenset[str]
    with_addresses: bool
    """Whether any IP address is one too."""

    @classmethod
    def of(cls, is_loopback: bool, allowed: Iterable[str]) -> "HostNames":
        """Return the names of a server: those of the loopback address, of this machine, and those that are allowed.

        Args:
            is_loopback: Whether it listens on the loopback address alone; it then has no other name by itself.
            allowed: Further names; ``*`` allows all.
        """
        machine = () if is_loopback else (socket.gethostname(), socket.gethostname().partition(".")[0])
        return cls(frozenset(map(_name_in, (*_LOOPBACK, *machine, *allowed))), not is_loopback)

    def __contains__(self, host: str) -> bool:
        """Tell whether the header ``Host`` has one of the names; its port does not matter."""
        name = _name_in(host)
        return name in self.names or _ANY in self.names or (self.with_addresses and _is_address(name))


def _name_in(host: str) -> str:
    """Return a name without its port, as it is compared."""
    return re.sub(r":\d+$", "", host.lower()).removesuffix(".")


def _is_address(name: str) -> bool:
    with suppress(ValueError):
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
        return True
    return False


class Guard:
    """ASGI middleware that refuses requests from elsewhere.

    Args:
        app: The page.
        uploads: Folder of uploaded files, outside of which a request may name no file.
        hosts: The names by which requests may address the page.
    """

    def __init__(self, app: ASGIApp, uploads: Path, hosts: HostNames) -> None:
        self._app, self._uploads, self._hosts = app, uploads.resolve(), hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        refusal = _refusal(scope, self._hosts)
        if refusal is None and scope["path"].startswith(f"{_API}/queue/join"):
            refusal, receive = await self._read_join(receive)
        if refusal is not None:
            await refusal(scope, receive, _guarded(send))
            return
        await self._app(scope, receive, _guarded(send))

    async def _read_join(self, receive: Receive) -> tuple[PlainTextResponse | None, Receive]:
        """Read the values of a form, and refuse those that name files that were not uploaded."""
        body, more = b"", True
        while more and len(body) <= _MAX_BODY:
            message = await receive()
            if message["type"] == "http.disconnect":
                return PlainTextResponse("disconnected", 400), receive
            body, more = body + message.get("body", b""), message.get("more_body", False)
        if more or len(body) > _MAX_BODY:
            return PlainTextResponse(f"has more than {_MAX_BODY} bytes", 413), receive
        try:
            content = parse_object(body.decode(), "request")
        except ValueError as error:
            return PlainTextResponse(str(error), 400), receive
        if not all(self._is_uploaded(path) for path in _paths(content)):
            return PlainTextResponse("names a file that was not uploaded here", 403), receive
        replayed = iter([{"type": "http.request", "body": json.dumps(content).encode(), "more_body": False}])

        async def receive_again() -> Message:
            return next(replayed, None) or await receive()

        return None, receive_again

    def _is_uploaded(self, path: object) -> bool:
        return isinstance(path, str) and "\0" not in path and Path(path).resolve().is_relative_to(self._uploads)


def _refusal(scope: Scope, hosts: HostNames) -> PlainTextResponse | None:
    """Return the answer to a request that is not passed on; None for all others."""
    if scope["type"] != "http":
        return PlainTextResponse("no such thing", 404)
    headers = Headers(scope=scope)
    host, origin = headers.get("host", "").lower(), headers.get("origin")
    if host not in hosts:
        return PlainTextResponse(
            "this page does not answer to that name; vdm demo ... allowed_hosts=[NAME] lets it", 403
        )
    if origin is not None and urlsplit(origin.lower()).netloc != host:
        return PlainTextResponse("this page answers its own requests alone", 403)
    allowed = {"GET": _GET, "HEAD": _GET, "POST": _POST}.get(scope["method"])
    if allowed is None or not allowed.fullmatch(scope["path"]):
        return PlainTextResponse("no such page", 404)
    return None


def _paths(node: Any) -> Iterator[object]:
    """Yield what a form's values give as paths of files."""
    if isinstance(node, dict):
        yield from (value for key, value in node.items() if key == "path" and value is not None)
    for value in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _paths(value)


def _guarded(send: Send) -> Send:
    """Return ``send`` with headers that bound what the browser does with an answer."""

    async def guarded(message: Message) -> None:
        if message["type"] == "http.response.start":
            kept = [(name, value) for name, value in message["headers"] if name.lower() not in _HEADERS]
            message = {**message, "headers": [*kept, *_HEADERS.items()]}
        await send(message)

    return guarded
