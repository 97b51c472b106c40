"""Ports for servers that stop and come back: nobody else may get theirs meanwhile."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from errno import EADDRINUSE
from random import SystemRandom

__all__ = ["bound", "free_port"]

_RANGE = range(10_000, 32_000)
"""Below the kernel's own choice for connections (``ip_local_port_range``, from 32768), which would take a port that is let go."""


def bound(host: str, port: int = 0) -> socket.socket:
    """A TCP socket on that port, or on one that is free now for 0. Raises OSError when the port is taken."""
    for candidate in [port] if port else _candidates():
        taken = socket.socket()
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind((host, candidate))
        except OSError as error:
            taken.close()
            if port or error.errno != EADDRINUSE:
                raise
        else:
            return taken
    raise OSError(EADDRINUSE, f"no free port on {host}")


def free_port(host: str) -> int:
    """A port that nobody uses now."""
    with bound(host) as probe:
        return int(probe.getsockname()[1])


def _candidates() -> Iterator[int]:
    chance = SystemRandom()  # not the global one: tests that seed it side by side would all want the same ports
    for _ in range(1000):
        yield chance.choice(_RANGE)
