"""``pvesm``: storages and their volumes (pve-commands 6.1), and what the words of PVE's storage tools mean."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from nexcage._core.command import Command, Result, nothing, shown, text
from nexcage._core.details import Details
from nexcage.errors import CommandFailed, InvalidSpec, NexcageError, NodeNotUsable, NotFound
from nexcage.tools import bundling, config

__all__ = ["Storage", "Volume", "classify", "free", "list_", "path", "saved", "status"]

_GONE = re.compile(r"storage '([^']*)' does not exist")
_WITHOUT = re.compile(r"[Ss]torage (?:'([^']*)' )?does not support (?:templates|content)")
_ROOT = re.compile(r"please run as root")
_MISSING = re.compile(
    r"(?:pvesm|pveam|pvesh): (?:command )?not found|No such file or directory: '?(?:pvesm|pveam|pvesh)\b"
)


class Storage(msgspec.Struct, frozen=True):
    """A row of ``pvesm status``; sizes in bytes, 0 while it is not active."""

    name: str
    kind: str
    status: str
    total: int
    used: int
    available: int


class Volume(msgspec.Struct, frozen=True):
    """A row of ``pvesm list``. ``size`` None where PVE does not know it; ``vmid`` 0 for what belongs to no guest."""

    id: str
    format: str
    content: str
    size: int | None
    vmid: int = 0


def classify(command: Command[Any], result: Result, node: str) -> NexcageError:
    """The error for what a storage tool said; CommandFailed with its own words when they mean nothing more precise."""
    said, tool = shown(result.stderr), command.argv[0]
    if _MISSING.search(said) or result.exit == 127:
        return NodeNotUsable(
            node, f"there is no `{tool}`: this is not a Proxmox VE node (try `nexcage sim up` for a simulated one)"
        )
    if _ROOT.search(said):
        return NodeNotUsable(node, f"{tool} needs root; log in as root or allow `sudo -n` there")
    if gone := _GONE.search(said):
        return NotFound("storage", gone[1], f"does not exist on {node}")
    if without := _WITHOUT.search(said):
        word = without[1] or next((word for word in command.argv[2:] if not word.startswith("-")), "?")
        return InvalidSpec("storage", word.partition(":")[0], "a storage with the content type vztmpl")
    return CommandFailed(node, command.argv, result.exit or 0, said, shown(result.stdout))


def status(content: str = "") -> Command[tuple[Storage, ...]]:
    """Every storage of the node with its room. A slow or dead one delays the answer."""
    options = ("--content", content) if content else ()
    return Command(("pvesm", "status", *options), _storages, safe=True, weight="read", timeout=60.0, classify=classify)


def list_(storage: str, content: str = "") -> Command[tuple[Volume, ...]]:
    """What lies on a storage."""
    argv = ("pvesm", "list", storage, *(("--content", content) if content else ()))
    return Command(argv, _volumes, safe=True, weight="read", timeout=60.0, cap=16 << 20, classify=classify)


def path(volume: str) -> Command[str]:
    """Where a volume lies on the node; says nothing about whether it is there."""
    return Command(("pvesm", "path", volume), text, safe=True, weight="read", timeout=30.0, classify=classify)


def saved(volume: str) -> Command[Details]:
    """The config of the container that an archive holds."""
    argv = ("pvesm", "extractconfig", volume)
    return Command(argv, _saved, safe=True, weight="read", timeout=300.0, classify=classify)


def _saved(result: Result) -> Details:
    parsed = config.parse(text(result) + "\n")
    beside = any(f"{bundling.PLACE}/" in value for _, value in parsed.raw)
    return Details("", parsed.effective(), description=parsed.description, beside=beside)


def free(volume: str) -> Command[None]:
    """Remove a volume. Exit 0 even when that failed: look whether it is gone."""
    return Command(("pvesm", "free", volume), nothing, cancel="term", timeout=300.0, classify=classify)


def _storages(result: Result) -> tuple[Storage, ...]:
    return tuple(_storage(line) for line in _rows(result, "Name"))


def _storage(line: str) -> Storage:
    words = line.split()
    if len(words) < 6:
        raise ValueError(f"not a row of pvesm status: {line!r}")
    total, used, available = (int(word) * 1024 for word in words[3:6])
    return Storage(words[0], words[1], words[2], total, used, available)


def _volumes(result: Result) -> tuple[Volume, ...]:
    return tuple(_volume(line) for line in _rows(result, "Volid"))


def _volume(line: str) -> Volume:
    words = line.split()
    if len(words) not in (4, 5):
        raise ValueError(f"not a row of pvesm list: {line!r}")
    size = words[3].removeprefix("~")
    return Volume(
        words[0], words[1], words[2], int(size) if size.isdigit() else None, int(words[4]) if len(words) == 5 else 0
    )


def _rows(result: Result, first: str) -> list[str]:
    """The lines below the one that begins with ``first``; what a shell printed before it is left out."""
    lines = shown(result.stdout, len(result.stdout)).splitlines()
    start = next((n for n, line in enumerate(lines) if line.split()[:1] == [first]), None)
    if start is None:
        raise ValueError(f"there is no line that begins with {first}")
    return [line for line in lines[start + 1 :] if line.strip()]
