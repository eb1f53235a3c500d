"""What reaches the page's server: only this page's own requests, and only to what the page needs.

A page of another site, open in the same browser, could otherwise send forms here, or read answers under a name that it
makes its own site's address point here (DNS rebinding). Gradio also has routes that nobody needs here, such as one that
fetches other addresses, and takes an address for an uploaded file.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vdm.outside import parse_object

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
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


class Guard:
    """ASGI middleware that refuses requests from elsewhere.

    Args:
        app: The page.
        uploads: Folder of uploaded files, outside of which a request may name no file.
        is_loopback: Whether the server listens on the loopback address alone; then requests must be sent to its names.
    """

    def __init__(self, app: ASGIApp, uploads: Path, is_loopback: bool) -> None:
        self._app, self._uploads, self._is_loopback = app, uploads.resolve(), is_loopback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        refusal = _refusal(scope, self._is_loopback)
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


def _refusal(scope: Scope, is_loopback: bool) -> PlainTextResponse | None:
    """Return the answer to a request that is not passed on; None for all others."""
    if scope["type"] != "http":
        return PlainTextResponse("no such thing", 404)
    headers = Headers(scope=scope)
    host, origin = headers.get("host", "").lower(), headers.get("origin")
    if is_loopback and re.sub(r":\d+$", "", host) not in _LOOPBACK:
        return PlainTextResponse("this page answers to localhost alone", 403)
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
