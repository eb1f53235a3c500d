"""TCP connections between the first process of a run and each of the others, over which they watch each other.

Messages are lines of JSON; ``lifeline.py`` says which. A random token, which all processes get through the process
group, tells them from strangers who connect to the port.
"""

import contextlib
import json
import logging
import os
import secrets
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vdm.checkpoints.collectives import all_gather, num_processes, rank

MEETING_SECONDS = 60.0
"""How long processes wait for each other's connections."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Peer:
    """One process of the run."""

    rank: int
    host: str
    pid: int

    def __str__(self) -> str:
        return f"Rank {self.rank} ({self.host}, process {self.pid})"


@dataclass
class Connection:
    """A connection to one process, with the received part of a message that is not complete yet."""

    socket: socket.socket
    rank: int
    received: bytes = b""

    def send(self, **message: Any) -> None:
        """Send a message, if the connection still stands; a broken one is noticed by ``receive``."""
        with contextlib.suppress(OSError):
            self.socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> tuple[list[Mapping[str, Any]], bool]:
        """Wait for data, and return the messages that it completes, and whether the connection still stands."""
        try:
            content = self.socket.recv(1 << 16)
        except OSError:
            content = b""
        *lines, self.received = (self.received + content).split(b"\n")
        messages: list[Mapping[str, Any]] = []
        for line in lines:
            with contextlib.suppress(ValueError):
                messages.append(json.loads(line))
        return messages, bool(content)


def connect_peers(port: int) -> tuple[Sequence[Peer], dict[int, Connection]]:
    """Connect the first process with all others. All processes call this together.

    If a connection fails, there are none at all, and a warning says so.

    Args:
        port: Port on which the first process listens; 0 takes any free port.

    Returns:
        All processes in order of ranks, and this process's connections by the rank at the other end.

    Raises:
        ValueError: In all processes, if the first one can't listen on ``port``.
    """
    here = socket.gethostname()
    peers = [Peer(number, host, pid) for number, (host, pid) in enumerate(all_gather((here, os.getpid())))]
    if num_processes() == 1:
        return peers, {}
    is_one_host = len({peer.host for peer in peers}) == 1
    listener = refusal = None
    if rank() == 0:
        try:
            listener = socket.create_server(("127.0.0.1" if is_one_host else "", port), backlog=num_processes())
            port = listener.getsockname()[1]
        except OSError as error:
            refusal = f"watchdog.port={port}: can't listen there for the other processes: {error.strerror}"
    address = "127.0.0.1" if is_one_host else os.environ.get("MASTER_ADDR", peers[0].host)
    address, port, token, refusal = all_gather((address, port, secrets.token_hex(16), refusal))[0]
    if refusal is not None:
        raise ValueError(refusal)
    connections: dict[int, Connection] = {}
    complaint = None
    try:
        if listener is not None:
            _accept_all(listener, token, connections)
        else:
            connections[0] = _connect(address, port, token)
    except OSError as error:
        complaint = f"rank {rank()}: {error}"
    complaints = [found for found in all_gather(complaint) if found is not None]
    if complaints:
        for connection in connections.values():
            connection.socket.close()
        connections.clear()
        if rank() == 0:
            _log.warning(
                "watchdog: no connections to %s:%d (%s): the end of one process will be found out late",
                address,
                port,
                complaints[0],
            )
    return peers, connections


def _connect(address: str, port: int, token: str) -> Connection:
    connection = Connection(_kept_alive(socket.create_connection((address, port), timeout=MEETING_SECONDS)), rank=0)
    connection.send(hello=rank(), token=token)
    return connection


def _accept_all(listener: socket.socket, token: str, connections: dict[int, Connection]) -> None:
    """Add a connection for each other process; close connections that do not present the run's token."""
    with listener:
        limit = time.monotonic() + MEETING_SECONDS
        while len(connections) < num_processes() - 1:
            listener.settimeout(max(0.01, limit - time.monotonic()))
            accepted, _ = listener.accept()
            accepted.settimeout(5)
            hello = _first_message(accepted)
            if hello.get("token") == token:
                connections[hello["hello"]] = Connection(_kept_alive(accepted), rank=hello["hello"])
            else:
                accepted.close()


def _first_message(connection: socket.socket) -> dict[str, Any]:
    """Read one message from whoever has connected; an empty one if what comes is no message."""
    received = b""
    with contextlib.suppress(OSError, ValueError):
        while not received.endswith(b"\n") and len(received) < 1000:
            content = connection.recv(1)
            if not content:
                break
            received += content
        message = json.loads(received)
        return message if isinstance(message, dict) else {}
    return {}


def _kept_alive(connection: socket.socket) -> socket.socket:
    """Have the kernel notice within 20 s that the machine at the other end is gone."""
    connection.settimeout(None)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 5), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", 20_000)):
        if hasattr(socket, name):  # Linux
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return connection
