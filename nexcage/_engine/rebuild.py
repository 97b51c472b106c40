"""Writing down again what a journal has lost, from the marks that containers carry on their nodes.

Nothing is guessed: what contradicts the journal or itself is left alone and said. Each container is one record that says all
about it, written only where the journal still knows nothing; so it may end anywhere and be done twice.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import anyio

from nexcage._core.census import Place, places
from nexcage._core.events import Observed
from nexcage._core.finding import Finding
from nexcage._core.machine import Event, Machine
from nexcage._core.seen import Guest, observed
from nexcage._core.states import State
from nexcage._engine.doctor import Survey, away, survey
from nexcage._engine.node import FleetNode
from nexcage.abc import Journal
from nexcage.errors import NexcageError

__all__ = ["Rebuilder"]

_CREATES = ("vzcreate", "vzrestore", "vzclone")
_FAMILIES = ("lxc", "crun")
"""Backends by whose looks a node is asked whose journal does not say what it has."""


class _Known(NexcageError):
    """Somebody else has just made or rebuilt it."""


class Rebuilder:
    """Rebuilds the journal of one fleet; ``backend`` is the name of the one that sees the containers when nobody says otherwise."""

    def __init__(self, fleet: str, journal: Journal, nodes: Mapping[str, FleetNode], backend: str) -> None:
        self._fleet = fleet
        self._journal = journal
        self._nodes = nodes
        self._backend = backend
        # The journal when the nodes were asked: what it got to know after that is newer than what they showed.
        self._since = 0

    async def rebuild(self, ids: Collection[str], aside: Collection[str]) -> list[Finding]:
        """Write down what the marks on the nodes say about containers that the journal does not know (all, or ``ids``), and about
        those of ``ids`` that damage has set aside. What contradicts something is left alone and said.
        """
        await self._journal.refresh()
        self._since = self._journal.seq
        seen = await survey(self._fleet, self._nodes, self._journal.machines.values(), also=_FAMILIES)
        await self._journal.refresh()
        found = [away(key, error) for key, error in sorted(seen.errors.items())]
        where: dict[str, list[Place]] = {}
        for looks in seen.looks.values():
            for id, there in places(self._fleet, looks).items():
                where.setdefault(id, []).extend(there)
        wanted = [id for id in sorted(where) if (id in ids if ids else id not in aside)]
        wanted += [id for id in ids if id not in where and id in aside]

        async def one(id: str) -> None:
            try:
                finding = await self._rebuilt(id, where.get(id, []), seen, lift=id in ids and id in aside)
            except NexcageError as error:
                finding = Finding(severity="error", what="rebuild", where=f"container '{id}'", why=str(error), id=id)
            if finding is not None:
                found.append(finding)

        async with anyio.create_task_group() as tasks:
            for id in wanted:
                tasks.start_soon(one, id)
        return sorted(found, key=lambda finding: (finding.what != "node", finding.id))

    async def _rebuilt(self, id: str, seen: list[Place], all_: Survey, *, lift: bool) -> Finding | None:
        machine = self._journal.machines.get(id)
        why_not = self._contradiction(id, seen, all_, machine, lift=lift)
        if why_not is not None:
            return Finding(severity="error", what="rebuild", where=f"container '{id}'", why=why_not, id=id)
        if machine is not None and _known(machine) and not lift:
            return None  # the journal has it, or finds out what became of it
        event = self._record(id, seen[0] if seen else None)

        def draft(machines: Mapping[str, Machine]) -> Event:
            now = machines.get(id)
            if now is not None and (_known(now) or now.seq > self._since):
                raise _Known
            return event

        try:
            await self._journal.append(event if lift else draft)
        except _Known:
            return None
        why = f"{event.state}, {event.vmid} on {event.node}" if seen else "no node has it"
        return Finding(
            severity="warning",
            what="set aside" if lift else "orphan",
            where=f"container '{id}'",
            why=why,
            mended=True,
            id=id,
            node=event.node,
        )

    def _contradiction(
        self, id: str, seen: list[Place], all_: Survey, machine: Machine | None, *, lift: bool
    ) -> str | None:
        if len(seen) > 1:
            there = " and ".join(f"{place.guest.vmid} on {place.node}" for place in seen)
            return f"its mark is on {there}: neither is taken"
        if lift:
            return self._guessing(id, seen, all_, machine)
        if machine is None or not _known(machine) or machine.running is not None or machine.unresolved is not None:
            return None
        ((node, _, guest),) = seen
        if (machine.node, machine.vmid) != (node, guest.vmid):
            return f"the journal has it as {machine.vmid} on {machine.node}, its mark is on {guest.vmid} on {node}"
        return None

    def _guessing(self, id: str, seen: list[Place], all_: Survey, machine: Machine | None) -> str | None:
        """Why the nodes alone do not tell what a container is whose records are damaged; None when nothing is left to guess."""
        if all_.errors:
            return f"it is set aside until all nodes answer: {', '.join(sorted(all_.errors))} did not"
        if machine is not None and machine.node and machine.node not in all_.nodes:
            return f"it is set aside until its node {machine.node} is asked too"
        others = {
            began.op_id for m in self._journal.machines.values() if m.id != id and (began := m.running or m.unresolved)
        }
        for key, held in all_.claims.items():
            for claim in held:
                if claim.kind == "running" and claim.op not in others:
                    return f"it is set aside: operation {claim.op} still runs on {key}, and may be its"
        vmids = {place.guest.vmid for place in seen} | {machine.vmid if machine is not None else 0}
        for key, look in all_.all():
            busy = [task for task in look.tasks if task.vmid in vmids or task.type in _CREATES]
            if busy:
                return f"it is set aside: task {busy[0].type} of {busy[0].vmid} works on {key}"
            half = look.guests.get(machine.vmid) if machine is not None and key == machine.node else None
            if half is not None and half.lock in ("create", "destroyed"):
                return f"it is set aside: {half.vmid} on {key} is half made or half deleted"
        return None

    def _record(self, id: str, place: Place | None) -> Observed:
        if place is None:
            why = "its records were damaged, and no node has it"
            return Observed(id=id, state=State.ABSENT, why=why, adopted=True, rebuilt=True)
        node, look, guest = place
        mark = guest.mark
        assert mark is not None
        return Observed(
            id=id,
            state=_state(id, guest),
            why=f"rebuilt from its mark on {node}",
            node=node,
            vmid=guest.vmid,
            pid=guest.pid,
            boot_id=look.boot_id,
            backend=_backend_of(guest, self._backend),
            mark=mark.op,
            adopted=True,
            rebuilt=True,
        )


def _backend_of(guest: Guest, first: str) -> str:
    """The backend whose it is; the one that looks tells nothing else about containers."""
    if guest.kind == "lxc":
        return first if first not in ("crun", "runc", "vm") else "lxc"
    return "vm" if guest.kind == "vm" else guest.tool


def _known(machine: Machine) -> bool:
    return machine.state is not State.ABSENT or machine.running is not None or machine.unresolved is not None


def _state(id: str, guest: Guest) -> State:
    """As a look shows it; a container that does not run is taken to have run once, for nobody knows."""
    return observed(guest, Machine(id, ran=True))
