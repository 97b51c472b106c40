"""The HA manager (pve-commands 8.2): what its tools and files say about guests that it has, and about nodes under maintenance.

A guest that it has is started, stopped and moved by it: PVE's tools only ask, and return at once.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping

import msgspec

from nexcage import names
from nexcage._core.command import Command, Result, nothing, shown

__all__ = ["Service", "Status", "maintained", "maintenance", "status", "to_leave_maintenance", "was_asked"]

_ASKED = re.compile(rb"^Requesting HA ", re.MULTILINE)
_QUORUM = re.compile(r"quorum (.+)")
_MASTER = re.compile(r"master (\S+) \((.*)\)")
_LRM = re.compile(r"lrm (\S+) \((.*)\)")
_SERVICE = re.compile(r"service (ct|vm):([1-9][0-9]{2,8}) \((\S+), (.+)\)")


class Service(msgspec.Struct, frozen=True):
    """A guest that the HA manager has: on which node (PVE name), and its word for what it does with it (``started``, ``error``)."""

    vmid: int
    kind: str
    node: str
    state: str


class Status(msgspec.Struct, frozen=True):
    """What ``ha-manager status`` says. ``nodes``: what it says of each node's local manager; ``services`` by VMID."""

    quorate: bool
    master: str = ""
    nodes: Mapping[str, str] = {}
    services: Mapping[int, Service] = {}


class _Lrm(msgspec.Struct):
    mode: str = ""


_lrm = msgspec.json.Decoder(_Lrm)


def was_asked(stdout: bytes) -> bool:
    """Whether a tool of PVE says that it only asked the HA manager: then nothing has happened yet."""
    return _ASKED.search(stdout) is not None


def maintained(lrm_status: bytes) -> bool:
    """Whether a node's ``lrm_status`` file says that it is under maintenance; without an HA manager there is no such mode."""
    try:
        return bool(lrm_status.strip()) and _lrm.decode(lrm_status).mode == "maintenance"
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


def maintenance(node: str, *, on: bool) -> Command[None]:
    """Send a node (PVE name) into maintenance, or take it out of it; its guests move away, or may come again.

    Raises InvalidName for what is no name of a node.
    """
    return Command(_maintenance(names.hostname(node), on=on), nothing, cancel="term", timeout=60.0)


def to_leave_maintenance(node: str) -> str:
    """What a person types to take ``node`` out of it, whatever the node says that it is called."""
    return shlex.join(_maintenance(node, on=False))


def _maintenance(node: str, *, on: bool) -> tuple[str, ...]:
    return ("ha-manager", "crm-command", "node-maintenance", "enable" if on else "disable", node)


def status() -> Command[Status]:
    """What the HA manager of the cluster does."""
    return Command(("ha-manager", "status"), _status, safe=True, weight="read", timeout=60.0)


def _status(result: Result) -> Status:
    quorate, master = None, ""
    nodes: dict[str, str] = {}
    services: dict[int, Service] = {}
    for line in shown(result.stdout).splitlines():
        if match := _QUORUM.fullmatch(line):
            quorate = match[1] == "OK"
        elif match := _MASTER.fullmatch(line):
            master = match[1]
        elif match := _LRM.fullmatch(line):
            nodes[match[1]] = match[2]
        elif match := _SERVICE.fullmatch(line):
            services[int(match[2])] = Service(int(match[2]), match[1], match[3], match[4])
    if quorate is None:
        raise ValueError("it does not say whether the cluster is quorate")
    return Status(quorate, master, nodes, services)
