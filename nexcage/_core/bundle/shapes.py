"""Forms of values that several rules know: absolute paths, lists of CPUs, id maps."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from itertools import pairwise

from nexcage._core.bundle.flaws import Flaw, at
from nexcage._core.bundle.kinds import IDMapping
from nexcage.errors import escaped

__all__ = ["leads_out", "mapping_flaws", "names_type", "not_absolute", "not_cpus", "unknown_words"]

_IDS = 2**32
_LINES = 340  # of an id map, since Linux 4.15
_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
_RANGE = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9})(?::[0-9]{1,9}/[0-9]{1,9})?)?")


def not_absolute(path: str) -> str:
    """What is wrong with ``path``, which must be absolute; nothing when it is."""
    return "" if path.startswith("/") else f"{escaped(path)} is not an absolute path"


def not_cpus(text: str) -> str:
    """What is wrong with a list such as ``0-3,7`` (cpuset(7), "List format"); an empty one says nothing and is fine."""
    for part in filter(None, text.replace(" ", "").rstrip("\n").split(",")):
        match = _RANGE.fullmatch(part)
        if match is None or (match[2] and int(match[2]) < int(match[1])):
            return f"{escaped(text)} is not a list of numbers and ranges such as 0-3,7"
    return ""


def unknown_words(text: str, letters: Collection[str]) -> bool:
    """Whether ``text`` has another letter than these, or one twice."""
    return bool(set(text) - set(letters)) or len(set(text)) != len(text)


def mapping_flaws(
    uids: tuple[IDMapping, ...], gids: tuple[IDMapping, ...], pointer: str, *, alone: bool = False
) -> Iterator[Flaw]:
    """``uidMappings`` and ``gidMappings`` of the object at ``pointer``: both or none, and maps that a kernel takes.

    ``alone``: the specification allows one without the other, although no runtime does.
    """
    if not uids and not gids:
        return
    if bool(uids) != bool(gids):
        have, lack = ("uidMappings", "gidMappings") if uids else ("gidMappings", "uidMappings")
        if alone:
            yield Flaw(at(pointer, have), f"{lack} is needed with it", legal=True)
        else:
            yield Flaw(at(pointer, lack), f"is required with {have}")
    for name, maps in (("uidMappings", uids), ("gidMappings", gids)):
        yield from _map(maps, at(pointer, name))


def _map(maps: tuple[IDMapping, ...], pointer: str) -> Iterator[Flaw]:
    if len(maps) > _LINES:
        yield Flaw(pointer, f"has more than {_LINES} entries")
        return
    for index, one in enumerate(maps):
        if not one.size:
            yield Flaw(at(pointer, index, "size"), "must not be 0", legal=True)
        if max(one.container_id, one.host_id) + one.size > _IDS:
            yield Flaw(at(pointer, index, "size"), f"leads beyond id {_IDS - 1}")
    for name, starts in (
        ("containerID", [(one.container_id, one.size, index) for index, one in enumerate(maps)]),
        ("hostID", [(one.host_id, one.size, index) for index, one in enumerate(maps)]),
    ):
        ordered = sorted(starts)
        for (start, size, _), (following, _, index) in pairwise(ordered):
            if start + size > following:
                yield Flaw(at(pointer, index, name), "overlaps another entry")


def names_type(kind: str) -> bool:
    """Whether a kernel could have a file system called so."""
    return bool(_TYPE.fullmatch(kind))


def leads_out(path: str) -> bool:
    """Whether a relative ``path`` climbs above where it begins, taken by its letters."""
    depth = 0
    for part in path.split("/"):
        depth += (part not in ("", ".", "..")) - (part == "..")
        if depth < 0:
            return not path.startswith("/")
    return False
