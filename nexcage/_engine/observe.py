"""Comparing what a look shows with what the journal says, and recording the difference."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

import anyio

from nexcage._core.config import Limits
from nexcage._core.events import Interrupted, Observed, Problem
from nexcage._core.evidence import emptied
from nexcage._core.machine import Event, Machine
from nexcage._core.seen import Guest, Look, observed, probe
from nexcage._core.states import Op, State
from nexcage._engine.node import FleetNode
from nexcage.abc import Journal
from nexcage.errors import Blocked, Busy, NexcageError, NoRoute, Uncertain

__all__ = ["Observer", "Stale"]


class Stale(NexcageError):
    """The machine moved on while we looked."""


def _changed(before: State, state: State) -> str:
    """In the words of the operation that somebody else would have used for it."""
    if state is State.RUNNING:
        return f"somebody {'resumed' if before is State.PAUSED else 'started'} it"
    words = {State.STOPPED: "stopped", State.PAUSED: "paused"}
    return f"somebody {words[state]} it" if state in words else f"it is {state} now"


class Observer:
    """Looks at containers and records what differs as `Observed`; the only way out of UNKNOWN."""

    def __init__(
        self, fleet: str, journal: Journal, nodes: Mapping[str, FleetNode], limits: Limits, random: Random
    ) -> None:
        self._fleet = fleet
        self._journal = journal
        self._nodes = nodes
        self._limits = limits
        self._random = random

    def machine(self, id: str) -> Machine:
        """The machine as the journal has it; ABSENT for an id that nobody knows."""
        return self._journal.machines.get(id) or Machine(id)

    def node(self, machine: Machine) -> FleetNode:
        """The node that has it; raises NoRoute when that is not in this fleet."""
        node = self._nodes.get(machine.node)
        if node is None:
            raise NoRoute(f"container '{machine.id}' is on node '{machine.node}', which is not in this fleet")
        return node.of(machine.backend)

    async def observe(self, id: str, *, wait: bool = True) -> Observed | None:
        """Look at one container now; the event if something differed. Waits for a lost command that still runs, unless
        told not to: then it stays UNKNOWN.

        Raises NodeError when the node cannot be seen, Busy when that command does not end within ``probe_timeout``.
        """
        machine = self.machine(id)
        if machine.running is not None or (machine.state is State.ABSENT and machine.unresolved is None):
            return None
        node = self.node(machine)
        look = await self._when_quiet(machine, node, wait=wait)
        if look is None:
            return None
        return await self.record(
            machine, look, str(machine.unresolved.op) + " was interrupted" if machine.unresolved else ""
        )

    async def _when_quiet(self, machine: Machine, node: FleetNode, *, wait: bool) -> Look | None:
        lost = machine.unresolved
        if lost is None:
            return await node.look()
        until = anyio.current_time() + self._limits.probe_timeout
        pause = 0.2
        while True:
            look = await node.look((lost.op_id,))
            if probe(lost, machine, look, self._fleet) != "wait":
                return look
            if not wait:
                return None
            if anyio.current_time() > until:
                raise Busy(f"container '{machine.id}'", f"{lost.op} {lost.op_id} is still running on {node.key}")
            await anyio.sleep(pause * self._random.uniform(0.5, 1.5))
            pause = min(pause * 2, 5.0)

    async def there(self, machine: Machine, key: str) -> tuple[State, int]:
        """Its state and pid as that node shows it; as they were, where that node cannot be asked or does not have it."""
        try:
            look = await self._nodes[key].of(machine.backend).look()
        except (KeyError, NexcageError):
            return machine.was, 0
        guest = look.find(self._fleet, machine.id, machine.mark)
        return (machine.was, 0) if guest is None else (observed(guest, machine), guest.pid)

    async def record(self, machine: Machine, look: Look, why: str = "") -> Observed | None:
        """Compare ``look`` with ``machine`` and record the difference; None when there is none, or when it moved on meanwhile."""
        event = await self._difference(machine, look, why)
        return None if event is None else await self._append(machine, event)

    async def differs(self, machine: Machine, look: Look) -> bool:
        """Whether ``look`` shows anything else than the record."""
        try:
            return await self._difference(machine, look, "") is not None
        except Blocked:
            return True

    async def compared(self, machine: Machine) -> Observed | None:
        """What looking now would record, without recording it."""
        return await self._difference(machine, await self.node(machine).look(), "")

    async def adopt(self, machine: Machine) -> Observed | None:
        """From now on it is wanted as it is."""
        return await self._append(
            machine,
            Observed(
                id=machine.id,
                state=machine.state,
                why="adopted",
                node=machine.node,
                vmid=machine.vmid,
                pid=machine.pid,
                boot_id=machine.boot_id,
                adopted=True,
            ),
        )

    async def _difference(self, machine: Machine, look: Look, why: str) -> Observed | None:
        found = await self._find(machine, look)
        if found is None:
            state, guest, where, note = State.ABSENT, None, look, "it is gone"
            other = look.guests.get(machine.vmid)
            if other is not None and machine.vmid:
                left = other.half if other.mark is None else ""
                note = (
                    f"{left} {machine.vmid} is left on {look.node}"
                    if left
                    else f"{machine.vmid} is another container now"
                )
        else:
            guest, where = found
            state = observed(guest, machine)
            note = "" if where is look else f"it was moved to {where.node}"
        pid = guest.pid if guest else 0
        if (
            machine.unresolved is None
            and (state, where.node) == (machine.state, machine.node)
            and (not guest or pid == machine.pid or not pid)
        ):
            return None
        if not note and machine.boot_id and where.boot_id != machine.boot_id:
            note = f"{where.node} was rebooted"
        note = note or (_changed(machine.state, state) if state is not machine.state else f"its init is {pid} now")
        return Observed(
            id=machine.id,
            state=state,
            why="; ".join(filter(None, (why, note if not why or found is None or where is not look else "")))
            or str(state),
            node=where.node,
            vmid=guest.vmid if guest else 0,
            pid=pid,
            boot_id=where.boot_id,
        )

    async def _append(self, machine: Machine, event: Observed) -> Observed | None:
        def draft(machines: Mapping[str, Machine]) -> Event:
            now = machines.get(machine.id) or Machine(machine.id)
            if now.running is not None or now.seq != machine.seq:
                raise Stale
            return event

        try:
            (written,) = await self._journal.append(draft)
        except Stale:
            return None
        assert isinstance(written, Observed)
        return written

    async def _find(self, machine: Machine, look: Look) -> tuple[Guest, Look] | None:
        half = look.guests.get(machine.vmid)
        lost = machine.unresolved
        if (
            half is not None
            and half.mark is None
            and lost is not None
            and lost.op is Op.DELETE
            and (half.lock == "destroyed" or emptied(machine, look))
        ):
            unlock = f"`{half.tool} unlock {half.vmid}` and " if half.lock else ""
            do = f"{unlock}`{half.tool} destroy {half.vmid}` there finish it"
            raise Blocked(f"container '{machine.id}'", f"its half-deleted {half.vmid} on {look.node}; {do}")
        op = machine.unresolved.op_id if machine.unresolved and not machine.mark else machine.mark
        guest = look.find(self._fleet, machine.id, op, vmid=machine.vmid)
        if guest is not None and machine.unresolved is None and guest.vmid != machine.vmid:
            guest = None  # a copy whose mark was edited: ours has the VMID that its create was given
        if guest is not None:
            if guest.half:
                return None
            return guest, look
        owner = look.vmids.get(machine.vmid, "")
        if not owner or owner == look.pve:
            return None
        for node in (one.of(machine.backend) for one in self._nodes.values()):
            if node.key == look.node or (node.seen is not None and node.seen.pve != owner):
                continue
            there = await node.look()
            if there.pve == owner:
                moved = there.find(self._fleet, machine.id, op)
                return None if moved is None else (moved, there)
        raise Blocked(f"container '{machine.id}'", f"its move to node '{owner}', which is not in this fleet")

    async def abandon(self, machine: Machine) -> None:
        """Record that the operation under way has lost its driver: nobody knows whether it happened."""
        running = machine.running
        assert running is not None
        problem = Problem.of(Uncertain(running.op_id, f"its driver {running.owner} is gone"))

        def draft(machines: Mapping[str, Machine]) -> Event:
            now = machines.get(machine.id)
            if now is None or now.running is None or now.running.op_id != running.op_id:
                raise Stale
            return Interrupted(id=machine.id, op=running.op, op_id=running.op_id, error=problem)

        try:
            await self._journal.append(draft)
        except Stale:
            return
