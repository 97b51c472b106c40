"""``vzdump``: an archive of a container, and how archives are called.

It ends with another status than 0 when the backup failed, and says why on its standard output: a task's two streams are one.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from nexcage import names
from nexcage._core.command import Command, Result, nothing
from nexcage.errors import InvalidInput, NexcageError, NodeNotUsable
from nexcage.tools import pct

__all__ = ["backup", "classify", "guest"]

_FAILED = re.compile(rb"^ERROR: Backup of VM [0-9]+ failed - (.*)$", re.MULTILINE)
_NAME = re.compile(r"[^:/]+:backup/(?:vzdump-(?:lxc|qemu)-|(?:ct|vm)/)([1-9][0-9]{2,8})[-/]")


def classify(command: Command[Any], result: Result, node: str) -> NexcageError:
    """The error for what it said: the words behind ``failed -`` are those of ``pct``."""
    if result.exit == 127:
        return NodeNotUsable(node, "there is no `vzdump`: this is not a Proxmox VE node")
    failed = _FAILED.findall(result.stdout)
    if failed:
        result = msgspec.structs.replace(result, stderr=failed[-1] + b"\n")
    return pct.classify(command, result, node)


def backup(vmid: int, storage: str, *, mode: str, compress: str) -> Command[None]:
    """Save a container as an archive on ``storage``. TERM ends it cleanly; a killed one leaves ``lock: backup``."""
    for key, value, allowed in (
        ("mode", mode, ("snapshot", "suspend", "stop")),
        ("compress", compress, ("zstd", "gzip", "lzo", "0")),
    ):
        if value not in allowed:
            raise InvalidInput(key, value, f"one of {', '.join(allowed)}")
    words = ("--storage", names.storage(storage), "--mode", mode, "--compress", compress)
    argv = ("vzdump", str(names.vmid(vmid)), *words)
    return Command(argv, nothing, cancel="term", timeout=24 * 3600.0, weight="create", classify=classify)


def guest(volume: str) -> int:
    """The VMID of which ``STORAGE:backup/vzdump-lxc-VMID-...`` is an archive, by its name; 0 for another name."""
    match = _NAME.match(volume)
    return int(match[1]) if match else 0
