"""One container of a fleet, as people hold it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from nexcage._core.drift import Difference
from nexcage._core.intents import Create, Delete, Kill, Pause, Resume, Start, Stop
from nexcage._core.machine import Machine
from nexcage._core.oci import OciState
from nexcage._core.outcome import Done
from nexcage._core.spec import Spec
from nexcage._core.states import State
from nexcage.errors import NexcageError, NotFound

if TYPE_CHECKING:
    from nexcage._engine.fleet import Fleet

__all__ = ["Container"]


class Container:
    """A handle: it holds the id and the fleet, nothing else, so it never goes stale. Made by ``fleet["web-1"]``.

    Every verb raises the library's typed errors; a cancel ends the running command by its class and leaves UNKNOWN.
    ``wait``: for an
    operation of another driver, instead of raising Busy.
    """

    def __init__(self, fleet: Fleet, id: str) -> None:
        self.id: str = id
        self._fleet: Fleet = fleet

    @property
    def machine(self) -> Machine:
        """What the journal says, without looking."""
        return self._fleet.machines.get(self.id) or Machine(self.id)

    def __repr__(self) -> str:
        machine = self.machine
        parts = [str(machine.state)]
        if machine.pid:
            parts.append(f"pid {machine.pid}")
        if machine.vmid:
            parts.append(f"{machine.backend} {machine.vmid} on {machine.node}")
        return f"<Container {self.id}: {', '.join(parts)}>"

    async def create(self, spec: Spec, *, op_id: str | None = None, wait: bool = False) -> Done:
        """Make it; raises AlreadyExists, UnsupportedImage, NoRoute and what the node says."""
        return await self._fleet.do(Create(self.id, spec, op_id), wait=wait)

    async def start(self, *, op_id: str | None = None, wait: bool = False) -> Done:
        """Run it; done when it was seen running with its init's pid."""
        return await self._fleet.do(Start(self.id, op_id=op_id), wait=wait)

    async def stop(
        self, timeout: float = 60.0, *, force: bool = False, op_id: str | None = None, wait: bool = False
    ) -> Done:
        """Ask, wait ``timeout`` seconds, then force; ``force`` does not ask and ends a graceful stop that is under way."""
        return await self._fleet.do(Stop(self.id, timeout=timeout, force=force, op_id=op_id), wait=wait)

    async def kill(self, signal: int | str = "TERM", *, op_id: str | None = None, wait: bool = False) -> Done:
        """Deliver a signal to its init from the host. Done says delivered, not stopped. Never repeated by itself."""
        return await self._fleet.do(Kill(self.id, signal, op_id=op_id), wait=wait)

    async def pause(self, *, op_id: str | None = None, wait: bool = False) -> Done:
        """Freeze it."""
        return await self._fleet.do(Pause(self.id, op_id=op_id), wait=wait)

    async def resume(self, *, op_id: str | None = None, wait: bool = False) -> Done:
        """Thaw it."""
        return await self._fleet.do(Resume(self.id, op_id=op_id), wait=wait)

    async def delete(
        self, *, force: bool = False, purge: bool = False, op_id: str | None = None, wait: bool = False
    ) -> Done:
        """Destroy it and its volumes, if it is still the one that we made; NotOurs otherwise."""
        return await self._fleet.do(Delete(self.id, force=force, purge=purge, op_id=op_id), wait=wait)

    async def state(self) -> OciState:
        """Its OCI state, looked up now; a difference is recorded as Observed first.

        With the node away it is the last record with the annotation ``org.nexcage.stale``. Raises NotFound for an unknown id.
        """
        return (await self._fleet.states(self.id))[self.id]

    async def reconcile(self) -> Difference | None:
        """Look, record what differs, leave UNKNOWN, and do what ``on_drift`` says; raises NodeError when the node cannot be seen."""
        found = await self._fleet.reconcile(self.id)
        return found[0] if found else None

    async def wait(self, *states: State | str, timeout: float | None = None) -> State:
        """Wait until it is in one of ``states`` (default: STOPPED or ABSENT), by events and by looking now and then.

        Raises TimeoutError after ``timeout`` seconds and NotFound for an id that nobody knows, unless ABSENT is waited for.
        """
        wanted = {State(state) for state in states} or {State.STOPPED, State.ABSENT}
        if self.machine.state is State.ABSENT and State.ABSENT not in wanted and not self.machine.seq:
            raise NotFound("container", self.id)
        with anyio.fail_after(timeout):
            async with self._fleet.events.subscribe(ids=[self.id]) as events:
                nap = 0.1
                while self.machine.state not in wanted:
                    with anyio.move_on_after(nap):
                        if await anext(events, None) is None:
                            raise NexcageError(f"the fleet was closed while waiting for container '{self.id}'")
                        continue
                    nap = min(nap * 2, 5.0)
                    await self._fleet.observe(self.id)
        return self.machine.state
