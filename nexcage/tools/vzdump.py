"""``vzdump``: an archive of a container, and how archives are called.

It ends with another status than 0 when the backup failed, and says why on its standard output: a task's two streams are one.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import msgspec

from nexcage import names
from nexcage._core.command import Command, Result, nothing
from nexcage.errors import InvalidInput, NexcageError, NodeNotUsable
from nexcage.tools import pct

__all__ = ["backup", "classify", "made_at"]

_FAILED = re.compile(rb"^ERROR: Backup of VM [0-9]+ failed - (.*)$", re.MULTILINE)
_NAME = re.compile(
    r"[^:]+:backup/vzdump-(?:lxc|qemu)-[0-9]+-([0-9]{4}_[0-9]{2}_[0-9]{2}-[0-9]{2}_[0-9]{2}_[0-9]{2})\..+"
)


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


def made_at(volume: str) -> datetime | None:
    """When the archive ``STORAGE:backup/vzdump-lxc-VMID-DATE-TIME.tar.zst`` was begun, by its name, which says it in the time of its
    node; None for another name.
    """
    match = _NAME.fullmatch(volume)
    try:
        return datetime.strptime(match[1], "%Y_%m_%d-%H_%M_%S").replace(tzinfo=UTC) if match else None
    except ValueError:
        return None
