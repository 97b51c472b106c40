"""``zfs`` and ``zpool``: their argv and what they answer (pve-commands 5).

Sizes are read with ``zfs get -Hp``, never with ``list -p``: zfs-fuse does not know that, and without ``-p`` they are rounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

import msgspec

from nexcage import names
from nexcage._core.command import MIB, Command, Result, nothing
from nexcage.errors import InvalidName
from nexcage.tools.zfs_words import classify

__all__ = [
    "Dataset",
    "Pool",
    "Property",
    "classify",
    "clone",
    "create",
    "datasets",
    "destroy",
    "get",
    "holds",
    "inherit",
    "mount",
    "pools",
    "promote",
    "receive",
    "rename",
    "rollback",
    "send",
    "set_",
    "snapshot",
    "snapshots",
    "unmount",
]

T = TypeVar("T")
_COLUMNS = "type,used,available,referenced,mountpoint,mounted,origin"


class Pool(msgspec.Struct, frozen=True):
    """A pool and its health: ONLINE, DEGRADED, FAULTED, OFFLINE, REMOVED, UNAVAIL or SUSPENDED."""

    name: str
    health: str


class Dataset(msgspec.Struct, frozen=True):
    """A file system, volume or snapshot; sizes in bytes, 0 where it has none. ``mountpoint`` empty: it has none."""

    name: str
    type: str = "filesystem"
    used: int = 0
    available: int = 0
    referenced: int = 0
    mountpoint: str = ""
    mounted: bool = False
    origin: str = ""


class Property(msgspec.Struct, frozen=True):
    """One property of one dataset. ``source``: local, default, received, temporary, ``inherited from NAME``, or ``-``."""

    name: str
    property: str
    value: str
    source: str


def _read(argv: tuple[str, ...], parse: Callable[[Result], T], *, cap: int = MIB) -> Command[T]:
    return Command(argv, parse, safe=True, weight="read", timeout=60.0, cap=cap, classify=classify)


def _change(*argv: str, timeout: float = 120.0) -> Command[None]:
    return Command(argv, nothing, timeout=timeout, classify=classify)


def _rows(result: Result, width: int) -> list[list[str]]:
    """Lines of TAB separated fields; a value may hold no TAB, so a line of another width is not an answer."""
    rows = [line.split("\t") for line in result.stdout.decode("utf-8", "backslashreplace").splitlines() if line]
    if result.dropped or any(len(row) != width for row in rows):
        raise ValueError("the answer has lines that are not rows of it")
    return rows


def _snapshot_name(full: str) -> str:
    """``DATASET@NAME``, checked; ZFS's own rule, which is wider than PVE's for snapshots of containers."""
    dataset, at, name = full.partition("@")
    names.dataset(dataset)
    if not at or not name or "/" in name:
        raise InvalidName("snapshot", full, "DATASET@NAME")
    names.dataset(f"{dataset}/{name}")
    return full


def _pairs(option: str, properties: Mapping[str, str]) -> list[str]:
    return [word for key, value in properties.items() for word in (option, f"{key}={value}")]


# ---- looking -------------------------------------------------------------------------------------------------------------------


def pools() -> Command[tuple[Pool, ...]]:
    """All pools. None is an empty answer; no ZFS at all is an error."""

    def parse(result: Result) -> tuple[Pool, ...]:
        return tuple(Pool(name, health) for name, health in _rows(result, 2))

    return _read(("zpool", "list", "-H", "-o", "name,health"), parse)


def get(properties: Iterable[str], *targets: str, depth: int = 0) -> Command[tuple[Property, ...]]:
    """Exact values of properties; ``depth`` levels below each target too. A property that is not set is ``-`` from ``-``."""
    more = ("-r", "-d", str(depth)) if depth else ()
    argv = ("zfs", "get", "-Hp", *more, "-o", "name,property,value,source", ",".join(properties), *targets)

    def parse(result: Result) -> tuple[Property, ...]:
        return tuple(Property(*row) for row in _rows(result, 4))

    return _read(argv, parse, cap=16 << 20)


def datasets(root: str, *, depth: int = 0) -> Command[tuple[Dataset, ...]]:
    """``root`` and what lies ``depth`` levels below it, with its snapshots. Raises NotFound."""
    asked = get(_COLUMNS.split(","), names.dataset(root), depth=depth)
    return _read(asked.argv, lambda result: _datasets(asked.parse(result)), cap=asked.cap)


def _datasets(properties: tuple[Property, ...]) -> tuple[Dataset, ...]:
    found: dict[str, dict[str, str]] = {}
    for one in properties:
        found.setdefault(one.name, {})[one.property] = one.value
    return tuple(
        Dataset(
            name,
            said.get("type", ""),
            _size(said.get("used", "-")),
            _size(said.get("available", "-")),
            _size(said.get("referenced", "-")),
            mountpoint=_path(said.get("mountpoint", "-")),
            mounted=said.get("mounted") == "yes",
            origin="" if said.get("origin", "-") == "-" else said["origin"],
        )
        for name, said in found.items()
    )


def _size(word: str) -> int:
    return int(word) if word.isascii() and word.isdigit() else 0


def _path(word: str) -> str:
    return word if word.startswith("/") else ""


def snapshots(dataset: str) -> Command[tuple[str, ...]]:
    """The names of its own snapshots, without the dataset's, oldest first."""
    argv = (
        "zfs",
        "list",
        "-H",
        "-o",
        "name",
        "-t",
        "snapshot",
        "-s",
        "creation",
        "-r",
        "-d",
        "1",
        names.dataset(dataset),
    )

    def parse(result: Result) -> tuple[str, ...]:
        return tuple(row[0].partition("@")[2] for row in _rows(result, 1) if row[0].startswith(f"{dataset}@"))

    return _read(argv, parse)


def holds(full: str) -> Command[tuple[str, ...]]:
    """The tags that keep a snapshot from being destroyed."""

    def parse(result: Result) -> tuple[str, ...]:
        return tuple(row[1] for row in _rows(result, 3))

    return _read(("zfs", "holds", "-H", _snapshot_name(full)), parse)


# ---- changing ------------------------------------------------------------------------------------------------------------------


def create(dataset: str, properties: Mapping[str, str] | None = None, *, parents: bool = False) -> Command[None]:
    """Make a file system. With ``parents`` one that exists already is success **without** setting the properties, so never
    use it where it matters whose it is.
    """
    options = (["-p"] if parents else []) + _pairs("-o", properties or {})
    return _change("zfs", "create", *options, names.dataset(dataset))


def destroy(target: str, *, recursive: bool = False, clones: bool = False) -> Command[None]:
    """Remove a dataset (``recursive``: with its children and snapshots; ``clones``: with what depends on those) or a snapshot."""
    option = ("-R",) if clones else ("-r",) if recursive else ()
    return _change("zfs", "destroy", *option, _target(target), timeout=600.0)


def _target(target: str) -> str:
    return _snapshot_name(target) if "@" in target else names.dataset(target)


def snapshot(*full: str, recursive: bool = False, properties: Mapping[str, str] | None = None) -> Command[None]:
    """Take snapshots ``DATASET@NAME``; several of one pool at the same moment."""
    options = (["-r"] if recursive else []) + _pairs("-o", properties or {})
    return _change("zfs", "snapshot", *options, *map(_snapshot_name, full))


def clone(full: str, dataset: str, properties: Mapping[str, str] | None = None) -> Command[None]:
    """Make a dataset out of a snapshot, which cannot be destroyed as long as this one depends on it."""
    return _change("zfs", "clone", *_pairs("-o", properties or {}), _snapshot_name(full), names.dataset(dataset))


def rollback(full: str, *, newer: bool = False) -> Command[None]:
    """Back to a snapshot; ``newer`` ones are destroyed, and without it they are in the way (Blocked)."""
    return _change("zfs", "rollback", *(("-r",) if newer else ()), _snapshot_name(full), timeout=600.0)


def set_(target: str, property: str, value: str) -> Command[None]:
    """Set one property: zfs-fuse takes one at a time."""
    return _change("zfs", "set", f"{property}={value}", _target(target))


def inherit(target: str, property: str) -> Command[None]:
    """Give a property its parent's value again; a user property is gone then."""
    return _change("zfs", "inherit", property, _target(target))


def rename(old: str, new: str) -> Command[None]:
    """Rename within a pool. zfs-fuse says busy while it is mounted."""
    return _change("zfs", "rename", _target(old), _target(new))


def promote(dataset: str) -> Command[None]:
    """A clone no longer depends on its origin; the origin on it."""
    return _change("zfs", "promote", names.dataset(dataset))


def mount(dataset: str) -> Command[None]:
    return _change("zfs", "mount", names.dataset(dataset))


def unmount(dataset: str) -> Command[None]:
    return _change("zfs", "unmount", names.dataset(dataset))


# ---- streams -------------------------------------------------------------------------------------------------------------------


def send(full: str, *, since: str = "", recursive: bool = False) -> tuple[str, ...]:
    """The argv that writes a snapshot to standard output: whole, or what changed ``since`` an older one (its name alone)."""
    dataset = _snapshot_name(full).partition("@")[0]
    option = ("-R",) if recursive else ()
    older = ("-i", _snapshot_name(f"{dataset}@{since}")) if since else ()
    return ("zfs", "send", *option, *older, full)


def receive(dataset: str, *, force: bool = False, mounted: bool = False) -> tuple[str, ...]:
    """The argv that reads a stream from standard input; ``force`` rolls the destination back to its newest snapshot first."""
    options = (("-F",) if force else ()) + (() if mounted else ("-u",))
    return ("zfs", "receive", *options, names.dataset(dataset))
