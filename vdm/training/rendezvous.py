"""Where the processes of a run meet, tried before they do: a mistake is then told in one line, and not waited for.

That place is ``MASTER_ADDR`` and ``MASTER_PORT``. The first process listens there, or ``torchrun`` in its place. Torch
itself tries a wrong address for half an hour, and waits without end for a stranger who answers nothing.
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
"""The first process answers from a thread of its own, whatever else it does."""
_SECONDS_UNTIL_TOLD = 30.0
"""How long a process waits for the first one without a word."""

_log = logging.getLogger(__name__)


def check_rendezvous(environment: ClusterEnvironment, num_nodes: int, timeout_seconds: float) -> None:
    """Refuse a place where processes can't meet; wait for the first process if this is another.

    Args:
        environment: What tells Lightning of its processes.
        num_nodes: Machines.
        timeout_seconds: How long to wait for the first process.

    Raises:
        ConfigError: One line that names the environment variable.
    """
    _check_variables(os.environ)
    if environment.node_rank() >= num_nodes:
        raise ConfigError(f"NODE_RANK={environment.node_rank()}: must be below trainer.num_nodes={num_nodes}")
    address, port = environment.main_address, environment.main_port
    _resolve(address)
    is_served_by_torchrun = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == str(True)
    if environment.global_rank() > 0 or is_served_by_torchrun:
        _wait_for_first(address, port, timeout_seconds, is_here=num_nodes == 1)
        return
    try:
        socket.create_server(("", port)).close()
    except OSError as error:
        raise ConfigError(
            f"MASTER_PORT={port}: can't listen there for the other processes: {error.strerror}; choose another port"
        ) from None
    complaint = _complaint_of_reach(address, 0)
    # Where a network forwards this port alone.
    complaint = complaint and _complaint_of_reach(address, port)
    if complaint is not None:
        raise ConfigError(
            f"MASTER_ADDR={address}: the first process can't be reached there, not even by itself ({complaint}); give"
            " the address of its machine"
        )


def _check_variables(variables: Mapping[str, str]) -> None:
    port = variables.get("MASTER_PORT", "1")
    if not (port.isdecimal() and 0 < int(port) < 1 << 16):
        raise ConfigError(f"MASTER_PORT={port}: must be a whole number from 1 to 65535")
    node = variables.get("NODE_RANK", "0")
    if not node.isdecimal():
        raise ConfigError(f"NODE_RANK={node}: must be a whole number, at least 0")


def _resolve(address: str) -> None:
    """Find out whether an address is one, or the name of a host."""
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


def _complaint_of_reach(address: str, port: int) -> str | None:
    """Listen on a port, 0 for any, and say what keeps this process from connecting to it by an address, if anything."""
    try:
        has_ipv6 = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if has_ipv6 else socket.AF_INET
        with socket.create_server(("", port), family=family, dualstack_ipv6=has_ipv6) as listener:
            socket.create_connection((address, listener.getsockname()[1]), _SECONDS_TO_CONNECT).close()
    except OSError as error:
        return error.strerror or str(error)
    return None


def _wait_for_first(address: str, port: int, timeout_seconds: float, is_here: bool) -> None:
    """Wait until the first process listens, and make sure that it is it."""
    if is_here and _complaint_of_reach(address, 0) is not None:
        timeout_seconds = min(timeout_seconds, _SECONDS_UNTIL_TOLD)  # the first process will not come to listen there
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
    """Tell whether a store of torch's is at an address; asked by a thread, since torch may wait without end."""
    stores: list[TCPStore] = []

    def ask() -> None:
        limit = timedelta(seconds=_SECONDS_TO_ANSWER)
        with contextlib.suppress(RuntimeError):  # of torch's network errors
            stores.append(TCPStore(address, port, None, is_master=False, timeout=limit, wait_for_workers=False))

    thread = threading.Thread(target=ask, name="meeting", daemon=True)
    thread.start()
    thread.join(_SECONDS_TO_ANSWER)
    return bool(stores)
