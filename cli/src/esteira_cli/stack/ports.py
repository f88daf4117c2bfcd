"""Ports on loopback, chosen once and kept, so that a restart finds the same addresses."""

import random
import socket
import time
from collections.abc import Iterable, Mapping

from esteira_cli.stack.errors import StackError

HOST = "127.0.0.1"
FIRST, LAST = 15000, 31999
"""Below the range from which the kernel takes the ports of outgoing connections."""
ATTEMPTS = 500
POLL_SECONDS = 0.02


def is_free(port: int) -> bool:
    """Tells whether a server could listen on `port` now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def becomes_free(port: int, patience: float) -> bool:
    """Waits for a port to be free: of a process with threads that is killed, the last to end closes the sockets."""
    deadline = time.monotonic() + patience
    while not is_free(port):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def choose_ports(names: Iterable[str], kept: Mapping[str, int]) -> dict[str, int]:
    """Adds a free port for each name that has none yet."""
    chosen = dict(kept)
    for name in names:
        if name not in chosen:
            chosen[name] = _free_port(set(chosen.values()))
    return chosen


def _free_port(taken: set[int]) -> int:
    for _ in range(ATTEMPTS):
        port = random.randint(FIRST, LAST)  # noqa: S311  no secret
        if port not in taken and is_free(port):
            return port
    raise StackError(f"no free port found on {HOST} between {FIRST} and {LAST}")
