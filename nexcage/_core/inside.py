"""What is seen inside containers, as values: how a command ended, processes, what is used, addresses."""

from __future__ import annotations

import msgspec

__all__ = ["Addresses", "Copied", "Executed", "Process", "Stats"]


class Executed(msgspec.Struct, frozen=True, kw_only=True):
    """How a command inside a container ended. ``exit`` is its own status; 128 and the signal's number when a signal ended it.

    ``stdout`` and ``stderr`` are bytes, head and tail within the cap; ``dropped`` were left out between. ``repeated``: this op id
    had run before, so nothing ran now, and what it printed then was kept by nobody.
    """

    exit: int
    stdout: bytes = b""
    stderr: bytes = b""
    dropped: int = 0
    seconds: float = 0.0
    op_id: str = ""
    repeated: bool = False


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """A process of a container: ``pid`` on the host, ``inner`` in the container. ``seconds`` of CPU time, ``memory`` in bytes
    (resident), ``started`` in seconds since the node's boot. ``argv`` is empty for what has none; then there is ``name``.
    """

    pid: int
    inner: int
    parent: int
    name: str
    uid: int = 0
    state: str = ""
    memory: int = 0
    seconds: float = 0.0
    started: float = 0.0
    argv: tuple[str, ...] = ()


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """What a container has used since it started and uses now, from its cgroup. Bytes and seconds; a limit of 0 means none.

    ``memory`` is without the cache of files that could be given back at once; ``at`` is the node's uptime when it was read.
    """

    id: str = ""
    node: str = ""
    vmid: int = 0
    at: float = 0.0
    cpu: float = 0.0
    memory: int = 0
    memory_limit: int = 0
    swap: int = 0
    read: int = 0
    written: int = 0
    pids: int = 0


class Addresses(msgspec.Struct, frozen=True):
    """Where a running container listens: its addresses (IPv4 first; without loopback and link-local ones) and open TCP ports."""

    addresses: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()


class Copied(msgspec.Struct, frozen=True, kw_only=True):
    """A file that went into a container or came out of it, whole. ``uid`` and ``gid`` as they are inside (0 when they were not asked)."""

    path: str
    size: int
    sha256: str
    mode: int
    uid: int = 0
    gid: int = 0
