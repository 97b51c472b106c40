"""Who is in a node's cluster, from two files of pmxcfs (pve-commands 3.6)."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from nexcage import names
from nexcage._core.command import Command, Result
from nexcage._core.hosts import Host
from nexcage.errors import InvalidInput

__all__ = ["MEMBERS", "Members", "members"]

MEMBERS = r"""R=${NEXCAGE_NODE_ROOT-}
exec 2>/dev/null
echo '@nexcage members'; cat "$R/etc/pve/.members"
echo '@nexcage vmlist'; cat "$R/etc/pve/.vmlist"
echo '@nexcage end'
"""


class Members(msgspec.Struct, frozen=True):
    """The cluster as one node sees it: its own PVE name, every member's address by name (empty for a node that stands alone), and
    nodes that have guests although they are no members.
    """

    name: str
    addresses: Mapping[str, str]
    strangers: tuple[str, ...] = ()


class _Node(msgspec.Struct):
    ip: str = ""


class _File(msgspec.Struct):
    nodename: str
    nodelist: dict[str, _Node] = {}


class _Guest(msgspec.Struct):
    node: str


class _Guests(msgspec.Struct):
    ids: dict[str, _Guest] = {}


def members() -> Command[Members]:
    """Ask a node who is in its cluster; only reads files."""
    return Command(("sh", "-c", MEMBERS, "nexcage"), _members, safe=True, weight="read", timeout=30.0, cap=16 << 20)


def _members(result: Result) -> Members:
    found = re.split(r"^@nexcage ([a-z]+)\n", result.stdout.decode("utf-8", "replace"), flags=re.MULTILINE)
    parts = dict(zip(found[1::2], found[2::2], strict=True))
    if "end" not in parts:
        raise ValueError("it ends before its last line")
    try:
        file = msgspec.json.decode(parts["members"], type=_File)
        guests = msgspec.json.decode(parts["vmlist"] or "{}", type=_Guests).ids
    except msgspec.MsgspecError as error:
        raise ValueError(f"/etc/pve/.members or .vmlist: {error}") from None
    try:
        known = {names.node(name): Host.parse(node.ip).address for name, node in file.nodelist.items() if node.ip}
        strangers = {names.node(guest.node) for guest in guests.values()} - {*known, file.nodename}
        return Members(names.node(file.nodename), known, tuple(sorted(strangers)))
    except InvalidInput as error:
        raise ValueError(str(error)) from None
