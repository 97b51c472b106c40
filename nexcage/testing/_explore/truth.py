"""What is really so on the simulated cluster, read from its files without any of the library's own eyes."""

from __future__ import annotations

import json
import re
from collections.abc import Container, Iterator
from typing import Any

import msgspec

from nexcage.testing._model.node import EFFECTS
from nexcage.testing.cluster import SimCluster, SimNode

__all__ = ["Guest", "Timeline", "guests", "leftovers", "log_size"]

_MARK = re.compile(r"(?m)^#nexcage fleet=(\S+) id=(\S+) vmid=(\d+) op=(\S+)$")
_LOCK = re.compile(r"(?m)^lock: (\S+)$")


class Guest(msgspec.Struct, frozen=True):
    """A container as it is. ``id``: whose it says it is, empty when it says nothing or is a copy."""

    vmid: int
    node: str
    fleet: str
    id: str
    op: str
    lock: str
    running: bool
    frozen: bool

    @property
    def state(self) -> str:
        return "paused" if self.running and self.frozen else "running" if self.running else "at rest"


def guests(sim: SimCluster) -> dict[int, Guest]:
    """Every container of the cluster by VMID."""
    return {guest.vmid: guest for node in sim for guest in _of(node)}


def _of(node: SimNode) -> Iterator[Guest]:
    model = node.model
    for vmid in model.containers():
        main = (model.config(vmid) or "").split("\n[")[0]
        found = _MARK.findall(main)
        fleet, id, marked, op = found[0] if len(found) == 1 else ("", "", "0", "")
        if int(marked) != vmid:
            fleet, id, op = "", "", ""
        lock = _LOCK.search(main)
        yield Guest(
            vmid,
            node.name,
            fleet,
            id,
            op,
            lock[1] if lock else "",
            model.is_running(vmid),
            model.is_running(vmid) and model.is_frozen(vmid),
        )


def leftovers(sim: SimCluster, vmids: Container[int]) -> list[str]:
    """Volumes whose container does not exist."""
    there = guests(sim)
    found: list[str] = []
    for node in sim:
        for name in json.loads(node.files.read("/var/lib/nexcage-sim/zfs.json") or "{}"):
            number = re.search(r"/subvol-(\d+)-disk-\d+$", name)
            if number and int(number[1]) not in there and int(number[1]) in vmids:
                found.append(f"{name} on {node.name}")
    return found


def log_size(sim: SimCluster) -> int:
    """How long the log of effects is now: a moment in the cluster's own order."""
    return len(next(iter(sim)).files.read(EFFECTS) or "")


class Timeline:
    """What was so of each VMID at every moment, from the log of effects. A crash is not in it: it is told with `down`."""

    def __init__(self, sim: SimCluster) -> None:
        self._sim = sim
        self._downs: list[tuple[int, str]] = []
        self._lines: list[tuple[int, dict[str, Any]]] = []  # Any: JSON

    def down(self, node: str) -> None:
        """Everything on ``node`` ends now."""
        self._downs.append((log_size(self._sim), node))

    def close(self) -> None:
        """Read the log; nothing changes any more."""
        at, heads = 0, dict[int, dict[str, Any]]()
        for line in (next(iter(self._sim)).files.read(EFFECTS) or "").splitlines(keepends=True):
            at += len(line)
            part = json.loads(line)
            head = heads.setdefault(part["seq"], part)
            self._lines.append((at, {**{key: head.get(key) for key in ("node", "op_id", "step")}, **part}))

    def after(self, vmid: int, since: int) -> Iterator[dict[str, Any]]:  # Any: JSON
        """The lines that tell of changes to ``vmid`` later than that."""
        for at, line in self._lines:
            if at > since and any(change["target"] == str(vmid) for change in line.get("changed", ())):
                yield line

    def ever(self, vmid: int, wanted: str, since: int, until: int) -> bool:
        """Whether ``wanted`` (made, gone, running, stopped, frozen, thawed) was so of ``vmid`` at some moment between the two."""
        exists = running = frozen = False
        node = ""
        downs = [*self._downs]

        def so() -> bool:
            return {
                "made": exists,
                "gone": not exists,
                "running": running,
                "stopped": not running,
                "frozen": running and frozen,
                "thawed": running and not frozen,
            }[wanted]

        seen = False
        for at, line in [*self._lines, (1 << 60, {})]:
            while downs and downs[0][0] < at:
                when, where = downs.pop(0)
                if when >= since:
                    seen = seen or so()
                if where == node:
                    running = frozen = False
                if since <= when <= until:
                    seen = seen or so()
            if at > since:
                seen = seen or so()
            if seen or at > until:
                return seen
            for change in line.get("changed", ()):
                if change["target"] != str(vmid):
                    continue
                word = change["change"].split(" ")[0]
                if change["kind"] == "config" and word in ("created", "removed"):
                    exists, node = word == "created", line["node"]
                elif change["kind"] == "process" and word in ("started", "ended"):
                    running, frozen, node = word == "started", False, line["node"]
                elif change["kind"] == "process":
                    frozen = word == "frozen"
                if at > since:
                    seen = seen or so()
        return seen
