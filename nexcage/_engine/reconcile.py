"""Making the journal and the nodes agree: find what differs, say why, and do about it what the policy says (design 3).

Looking decides, and it is the same looking as everywhere else: one look per node for all of its containers. Whatever else is to be
done, what was seen is recorded; a policy only says what is wanted from then on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
import msgspec

from nexcage._core.drift import Difference, DriftPolicy, back
from nexcage._core.events import Observed, Problem
from nexcage._core.intents import Intent
from nexcage._core.machine import Machine
from nexcage._core.outcome import Done
from nexcage._core.states import State
from nexcage._engine.observe import Observer
from nexcage._engine.recover import Recovery
from nexcage.errors import NexcageError

__all__ = ["Reconciler"]


class Reconciler:
    """Compares containers with their nodes. ``do`` drives an intent to its end (to revert)."""

    def __init__(
        self,
        observer: Observer,
        recovery: Recovery,
        do: Callable[[Intent], Awaitable[Done]],
        policy: DriftPolicy,
    ) -> None:
        self._observer = observer
        self._recovery = recovery
        self._do = do
        self._policy = policy

    async def reconcile(self, ids: list[str], *, dry_run: bool) -> list[Difference]:
        """What differs, by id. A container whose node cannot be asked is listed with its error and left as it is."""
        found: dict[str, Difference] = {}

        async def one(id: str) -> None:
            difference = await self._one(id, dry_run)
            if difference is not None:
                found[id] = difference

        async with anyio.create_task_group() as tasks:
            for id in ids:
                tasks.start_soon(one, id)
        return [found[id] for id in sorted(found)]

    async def _one(self, id: str, dry_run: bool) -> Difference | None:
        before = self._observer.machine(id)
        left = self._recovery.left(id)
        if before.running is not None and left is None:
            return None  # somebody drives it
        if before.state is State.ABSENT and left is None:
            return None
        action = f"resolve {left.op}" if left is not None else "record"
        try:
            if dry_run:
                return await self._foreseen(before, action)
            return await self._done(before, action)
        except NexcageError as error:
            return _difference(before, before.state, str(error), action="" if dry_run else action, error=error)

    async def _foreseen(self, before: Machine, action: str) -> Difference | None:
        if action != "record":
            return _difference(before, before.state, "nobody knows what became of it", action=action)
        found = await self._observer.compared(before)
        if found is None:
            return self._differs(before, before, "")
        seen = msgspec.structs.replace(before, state=found.state, node=found.node, vmid=found.vmid, pid=found.pid)
        wanted = self._differs(before, seen, found.why)
        if wanted is None or not wanted.action:  # nobody acts on it, but it is written down
            return _difference(before, found.state, found.why, now=seen, action="record")
        return msgspec.structs.replace(wanted, done=False)

    async def _done(self, before: Machine, action: str) -> Difference | None:
        event = await self._recovery.resolve(before.id) if action != "record" else None
        if event is None:
            event = await self._observer.observe(before.id)
        now = self._observer.machine(before.id)
        why = (
            event.why
            if isinstance(event, Observed)
            else f"{action.removeprefix('resolve ')} was interrupted"
            if event
            else ""
        )
        plain = None if event is None else _difference(before, now.state, why, now=now, action=action, done=True)
        wanted = self._differs(before, now, why)
        if wanted is None:
            return plain
        # What was seen is written down either way; without an action it is still not as it was asked to be.
        return await self._acted(now, wanted) if wanted.action else wanted

    def _differs(self, before: Machine, now: Machine, why: str) -> Difference | None:
        """A container that is not as it was asked to be, and what the policy does about it."""
        if now.wanted is None or now.wanted is now.state or now.state is State.UNKNOWN or now.running is not None:
            return None
        if {now.wanted, now.state} == {State.CREATED, State.STOPPED}:
            return None  # the journal's own distinction; on the node they are the same
        why = why or f"{now.wanted} was asked for"
        if self._policy == "adopt":
            return _difference(before, now.state, why, now=now, action="adopt")
        step = back(now) if self._policy == "revert" else None
        if now.state is State.ABSENT and step is None:
            return (
                None
                if before.state is State.ABSENT
                else _difference(before, now.state, why, now=now, action="record", done=True)
            )
        return _difference(before, now.state, why, now=now, action=str(step.op) if step else "")

    async def _acted(self, now: Machine, wanted: Difference) -> Difference:
        if wanted.action == "adopt":
            return msgspec.structs.replace(wanted, done=await self._observer.adopt(now) is not None)
        step = back(now)
        while step is not None:
            await self._do(step)
            after = self._observer.machine(now.id)
            following = back(after)
            step = following if following is not None and following.op is not step.op else None
        return msgspec.structs.replace(wanted, done=True)


def _difference(
    before: Machine,
    state: State,
    why: str,
    *,
    now: Machine | None = None,
    action: str = "",
    done: bool = False,
    error: NexcageError | None = None,
) -> Difference:
    now = now or before
    return Difference(
        id=before.id,
        node=now.node or before.node,
        vmid=now.vmid or before.vmid,
        was=before.state,
        state=state,
        why=why,
        action=action,
        done=done,
        error=None if error is None else Problem.of(error),
    )
