"""Snapshots, and copies of whole containers."""

from __future__ import annotations

import re

import msgspec

from nexcage import names
from nexcage._core.command import Command
from nexcage.errors import InvalidInput, InvalidSpec
from nexcage.tools.pct.call import change, flags, number, read

__all__ = ["Snapshot", "clone", "delsnapshot", "listsnapshot", "parse_snapshots", "rollback", "snapshot", "template"]

_LINE = re.compile(r"( *)`-> (\S+) +(?:([0-9]{4}-[0-9]{2}-[0-9]{2} [0-9:]{8}) +(.*?)|You are here!) *")


class Snapshot(msgspec.Struct, frozen=True):
    """One line of the tree; ``time`` is the node's local time as printed, ``description`` its first line."""

    name: str
    parent: str = ""
    time: str = ""
    description: str = ""


def snapshot(vmid: int, name: str, description: str = "") -> Command[None]:
    """Take one; a running container is frozen meanwhile."""
    options = ("--description", note(description)) if description else ()
    return change("snapshot", number(vmid), names.snapshot(name), *options, timeout=600.0)


def delsnapshot(vmid: int, name: str, *, force: bool = False) -> Command[None]:
    """Remove one; ``force`` forgets it even where the storage cannot remove it."""
    return change("delsnapshot", number(vmid), names.snapshot(name), *flags(force=force), timeout=600.0)


def rollback(vmid: int, name: str, *, start: bool = False) -> Command[None]:
    """Go back to one: a running container is killed and stays stopped unless ``start``. May take two minutes per volume."""
    return change("rollback", number(vmid), names.snapshot(name), *flags(start=start), timeout=1200.0)


def listsnapshot(vmid: int) -> Command[tuple[Snapshot, ...]]:
    """The tree of snapshots, without the place where one is."""
    return read(parse_snapshots, "listsnapshot", number(vmid))


def parse_snapshots(text: str) -> tuple[Snapshot, ...]:
    """What ``listsnapshot`` prints: one more blank in front per generation. Raises ValueError on anything else."""
    found: list[Snapshot] = []
    line_of: list[str] = []  # names from the root of the tree down to the line before
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if match is None or len(match[1]) > len(line_of):
            raise ValueError(f"not a line of a tree of snapshots: {line[:80]!r}")
        del line_of[len(match[1]) :]
        if match[3] is not None:
            said = "" if match[4] == "no-description" else match[4]
            found.append(Snapshot(match[2], line_of[-1] if line_of else "", match[3], said))
            line_of.append(match[2])
    return tuple(found)


def note(text: str) -> str:
    """A description as an argument: at most 8192 characters, line breaks and tabs as the only control characters."""
    if type(text) is not str or len(text) > 8192 or re.search(r"[\x00-\x08\x0b-\x1f\x7f]", text):
        raise InvalidSpec("description", text, "at most 8192 characters, no control characters but newline and tab")
    return text


def clone(
    vmid: int,
    newid: int,
    *,
    full: bool | None = None,
    hostname: str = "",
    description: str = "",
    snapname: str = "",
    storage: str = "",
    pool: str = "",
    target: str = "",
    bwlimit: int | None = None,
) -> Command[None]:
    """Copy it to ``newid``. ``full=False`` is a linked clone, which needs a template; None is PVE's choice: linked for
    templates, full for others. Everything is kept but MAC addresses, snapshots and pending values, our mark too.
    """
    if storage and full is False:
        raise InvalidInput("storage", storage, "not for a linked clone: it lies where its template lies")
    words = [number(vmid), number(newid)]
    words += ["--full", str(int(full))] if full is not None else []
    words += ["--hostname", names.hostname(hostname)] if hostname else []
    words += ["--description", note(description)] if description else []
    words += ["--snapname", names.snapshot(snapname)] if snapname else []
    words += ["--storage", names.storage(storage)] if storage else []
    words += ["--pool", pool_name(pool)] if pool else []
    words += ["--target", names.node(target)] if target else []
    words += ["--bwlimit", limit(bwlimit)] if bwlimit is not None else []
    return change("clone", *words, timeout=6 * 3600.0, weight="create", tries={"vmid": newid})


def template(vmid: int) -> Command[None]:
    """Make it a template, for good."""
    return change("template", number(vmid), timeout=600.0, silent=True)


def pool_name(pool: str) -> str:
    """A resource pool, up to three levels."""
    if type(pool) is not str or not re.fullmatch(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+){0,2}", pool, re.ASCII):
        raise InvalidSpec("pool", pool, "names of A-Z a-z 0-9 . _ - joined by /, at most three")
    return pool


def limit(kib: int) -> str:
    """A bandwidth limit in KiB per second."""
    if type(kib) is not int or not 0 <= kib < 1 << 40:
        raise InvalidSpec("bwlimit", kib, "KiB per second")
    return str(kib)
