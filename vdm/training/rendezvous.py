"""A check of the address where the processes of a run meet, so that a mistake is one line and no hang.

The address is ``MASTER_ADDR`` and ``MASTER_PORT``. The first process listens there, or ``torchrun`` in its place. Torch
itself retries a wrong address for half an hour, and waits for ever on a program that accepts and does not answer.
"""

import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Mapping
from datetime import timedelta

from lightning.fabric.plugins import ClusterEnvironment
from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]

from vdm.config import ConfigError

_SECONDS_TO_RESOLVE = 10.0
_SECONDS_TO_CONNECT = 10.0
_SECONDS_TO_ANSWER = 30.0
"""The first process answers from a thread of its own, so this does not depend on what it does."""
_SECONDS_UNTIL_TOLD = 30.0
"""A process that waits longer than this for the first one says so once."""

_log = logging.getLogger(__name__)


def check_rendezvous(environment: ClusterEnvironment, num_nodes: int, timeout_seconds: float) -> None:
    """Check that processes can meet at the configured address; processes but the first wait for the first.

    Args:
        environment: Lightning's interface to the processes.
        num_nodes: Number of nodes.
        timeout_seconds: How long to wait for the first process.

    Raises:
        ConfigError: In one line that names the environment variable, if one is malformed, nothing can be reached at the
            address, or something else than a run listens there.
    """
    _check_variables(os.environ)
    if environment.node_rank() >= num_nodes:
        raise ConfigError(f"NODE_RANK={environment.node_rank()}: must be below trainer.num_nodes={num_nodes}")
    address, port = environment.main_address, environment.main_port
    _resolve(address)
    is_served_by_torchrun = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == str(True)
    if environment.global_rank() > 0 or is_served_by_torchrun:
        _wait_for_first(address, port, timeout_seconds, is_on_one_node=num_nodes == 1)
        return
    try:
        socket.create_server(("", port)).close()
    except OSError as error:
        raise ConfigError(
            f"MASTER_PORT={port}: can't listen there for the other processes: {error.strerror}; choose another port"
        ) from None
    # Any free port first; some networks forward only the configured one.
    if _loopback_error(address, 0) is not None and (error := _loopback_error(address, port)) is not None:
        raise ConfigError(
            f"MASTER_ADDR={address}: the first process can't be reached there, not even by itself ({error}); give"
            " the address of its machine"
        )


def _check_variables(variables: Mapping[str, str]) -> None:
    """Check the numbers that users may set; a variable that is not set passes, as Lightning then chooses."""
    port = variables.get("MASTER_PORT", "1")
    if not (port.isdecimal() and 0 < int(port) < 1 << 16):
        raise ConfigError(f"MASTER_PORT={port}: must be a whole number from 1 to 65535")
    node = variables.get("NODE_RANK", "0")
    if not node.isdecimal():
        raise ConfigError(f"NODE_RANK={node}: must be a whole number, at least 0")


def _resolve(address: str) -> None:
    """Check that a name or address can be resolved."""
    limit = time.monotonic() + _SECONDS_TO_RESOLVE
    while True:
        try:
            socket.getaddrinfo(address, None, type=socket.SOCK_STREAM)
            return
        except (OSError, UnicodeError) as error:
            if getattr(error, "errno", None) != socket.EAI_AGAIN or time.monotonic() > limit:
                reason = getattr(error, "strerror", None) or error
                raise ConfigError(f"MASTER_ADDR={address}: no such host can be found ({reason})") from None
            time.sleep(1)


def _loopback_error(address: str, port: int) -> str | None:
    """Listen on a port (0: any), connect to it through an address of this machine, and return the error, if any."""
    try:
        has_ipv6 = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if has_ipv6 else socket.AF_INET
        with socket.create_server(("", port), family=family, dualstack_ipv6=has_ipv6) as listener:
            socket.create_connection((address, listener.getsockname()[1]), _SECONDS_TO_CONNECT).close()
    except OSError as error:
        return error.strerror or str(error)
    return None


def _wait_for_first(address: str, port: int, timeout_seconds: float, is_on_one_node: bool) -> None:
    """Wait until the first process listens, and check that it is a process of torch."""
    if is_on_one_node and _loopback_error(address, 0) is not None:
        # The address is not of this machine, so the first process fails too; this one gives it time to say so.
        timeout_seconds = min(timeout_seconds, _SECONDS_UNTIL_TOLD)
    start = time.monotonic()
    is_told = False
    while True:
        try:
            socket.create_connection((address, port), _SECONDS_TO_CONNECT).close()
            break
        except OSError as error:
            waited = time.monotonic() - start
            reason = error.strerror or str(error)
            if waited > timeout_seconds:
                raise ConfigError(
                    f"MASTER_ADDR={address}, MASTER_PORT={port}: the first process was not there for {waited:.0f} s"
                    f" ({reason})"
                ) from None
            if waited > _SECONDS_UNTIL_TOLD and not is_told:
                is_told = True
                _log.warning(
                    "Waiting for the first process at MASTER_ADDR=%s, MASTER_PORT=%d: %s", address, port, reason
                )
            time.sleep(0.2)
    if not _answers(address, port):
        raise ConfigError(
            f"MASTER_PORT={port}: what listens there on MASTER_ADDR={address} is not the first process of a run; choose"
            " another port"
        )


def _answers(address: str, port: int) -> bool:
    """Tell whether one of torch's stores is at an address; a thread asks, since torch may wait for ever."""
    stores: list[TCPStore] = []

    def ask() -> None:
        limit = timedelta(seconds=_SECONDS_TO_ANSWER)
        with contextlib.suppress(RuntimeError):  # torch's network errors
            stores.append(TCPStore(address, port, None, is_master=False, timeout=limit, wait_for_workers=False))

    thread = threading.Thread(target=ask, name="rendezvous", daemon=True)
    thread.start()
    thread.join(_SECONDS_TO_ANSWER)
    return bool(stores)
