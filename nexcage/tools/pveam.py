"""``pveam``: the container templates that Proxmox VE offers, and those on a storage (pve-commands 6.2)."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from nexcage._core.command import Command, Result, nothing, shown, text
from nexcage._core.images import Template
from nexcage.errors import CommandFailed, NexcageError, NotFound
from nexcage.tools import pvesm

__all__ = ["Stored", "available", "download", "list_", "remove", "update"]

_NO_SUCH = re.compile(r"no such template")
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)(B|KB|MB|GB)")
_UNITS = {"B": 1, "KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30}


class Stored(msgspec.Struct, frozen=True):
    """A row of ``pveam list``; ``size`` in bytes, as exact as two decimals are."""

    volume: str
    size: int


def available(section: str = "") -> Command[tuple[Template, ...]]:
    """What can be downloaded, by the node's copy of the index."""
    argv = ("pveam", "available", *(("--section", section) if section else ()))
    return Command(argv, _templates, safe=True, weight="read", timeout=60.0, cap=4 << 20, classify=pvesm.classify)


def list_(storage: str) -> Command[tuple[Stored, ...]]:
    """The templates on a storage."""
    argv = ("pveam", "list", storage)
    return Command(argv, _stored, safe=True, weight="read", timeout=60.0, cap=4 << 20, classify=pvesm.classify)


def update() -> Command[None]:
    """Fetch the index of templates anew. It exits 0 when it failed, too: what it says on standard error counts."""
    return Command(("pveam", "update"), nothing, timeout=300.0, check=_updated, classify=pvesm.classify)


def download(storage: str, template: str) -> Command[str]:
    """Fetch a template of the index; what the download said. Exit 0 even when it failed: look whether it is there.

    Raises NotFound for a template that the node's index does not have.
    """
    argv = ("pveam", "download", storage, template)
    return Command(argv, text, cancel="term", timeout=3600.0, weight="create", classify=_classify)


def remove(volume: str) -> Command[None]:
    """Remove a template from its storage."""
    return Command(("pveam", "remove", volume), nothing, cancel="term", timeout=120.0, classify=pvesm.classify)


def _classify(command: Command[Any], result: Result, node: str) -> NexcageError:
    if _NO_SUCH.search(shown(result.stderr)):
        return NotFound("template", command.argv[3], f"is not in the index of {node}")
    return pvesm.classify(command, result, node)


def _updated(command: Command[Any], result: Result, node: str) -> NexcageError | None:
    if result.exit == 0 and b"update failed" in result.stderr:
        return CommandFailed(node, command.argv, 0, shown(result.stderr), shown(result.stdout))
    return None


def _templates(result: Result) -> tuple[Template, ...]:
    rows = [line.split() for line in text(result).splitlines()]
    return tuple(Template(row[1], row[0], row[2] if len(row) > 2 else "") for row in rows if len(row) in (2, 3))


def _stored(result: Result) -> tuple[Stored, ...]:
    rows = [line.split() for line in text(result).splitlines()]
    return tuple(Stored(row[0], _bytes(row[1])) for row in rows if len(row) == 2 and ":vztmpl/" in row[0])


def _bytes(word: str) -> int:
    match = _SIZE.fullmatch(word)
    if match is None:
        raise ValueError(f"not a size: {word!r}")
    return round(float(match[1]) * _UNITS[match[2]])
