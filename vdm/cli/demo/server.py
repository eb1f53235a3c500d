"""The server of the page: its address, and its end by Ctrl-C or SIGTERM."""

import ipaddress
import logging
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from vdm.config import ConfigError

_PORTS_TRIED = 100
_PATIENCE = 3
"""Seconds that open connections get to end."""


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens at a host, on a port or the next free one.

    Raises:
        ConfigError: If there is no such host, or no free port.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"host={host}: no such address of this machine: {error}") from None
    failure: OSError | None = None
    for tried in range(port, min(port + _PORTS_TRIED, 1 << 16)) if port else [0]:
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((address[0], tried, *address[2:]))
            sock.listen(128)
        except OSError as error:
            sock.close()
            failure = error
            continue
        return sock
    key = f"port={port}" if failure is None or "address" not in str(failure).lower() else f"host={host} port={port}"
    raise ConfigError(f"{key}: can't be listened on: {failure.strerror if failure else 'no such port'}")


def is_loopback(sock: socket.socket) -> bool:
    """Tell whether only this machine can reach a socket."""
    return ipaddress.ip_address(sock.getsockname()[0]).is_loopback


def url_of(sock: socket.socket) -> str:
    """Return the address to open in a browser on this machine."""
    host, port = sock.getsockname()[:2]
    address = ipaddress.ip_address(host)
    if address.is_unspecified:
        host = "localhost"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextmanager
def serving(app: ASGIApp, sock: socket.socket) -> Iterator[None]:
    """Serve an app until the block ends."""
    config = uvicorn.Config(
        app,
        log_config=None,
        log_level=logging.ERROR,
        access_log=False,
        server_header=False,
        ws="none",
        timeout_graceful_shutdown=_PATIENCE,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, name="server", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(2 * _PATIENCE)
        sock.close()


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """Yield an event that is set by Ctrl-C and SIGTERM, which do nothing else until the block ends."""
    event = threading.Event()
    before = {number: signal.signal(number, lambda *_: event.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
