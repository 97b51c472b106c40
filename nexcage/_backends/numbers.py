"""Which numbers (VMIDs on Proxmox VE) a create tries for a new container."""

from __future__ import annotations

from collections.abc import Iterator
from zlib import crc32

from nexcage._core.seen import Look

__all__ = ["TRIES", "candidates"]

TRIES = 32  # numbers that one create tries before it gives up


def candidates(id: str, vmids: range, seen: Look) -> Iterator[int]:
    """Numbers to try, from a hash of the id onwards, without those that the cluster has: two drivers rarely want the same one."""
    first = crc32(id.encode()) % len(vmids)
    tried = 0
    for step in range(len(vmids)):
        vmid = vmids[(first + step) % len(vmids)]
        if vmid not in seen.vmids and vmid not in seen.guests:
            yield vmid
            tried += 1
            if tried == TRIES:
                return
