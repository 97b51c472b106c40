"""Changes are pushed, not polled: following what a node says about its containers, and looking when it says something.

What is heard is a hint and never a fact: it wakes a reconcile of the containers that it names, which looks, records what differs and
does what ``on_drift`` says. So a line that is lost, late or a lie costs a look at most. Nodes say nothing about some changes (a
container that is destroyed while it is stopped, or moved), and what happened before they were listened to is unknown; therefore
everything is looked at once when following begins, and now and then as long as it goes on. Where a node cannot be
followed, trying again and looking is all there is: polling, with jitter.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from random import Random

import anyio

from nexcage._core.command import shown
from nexcage._core.machine import Machine
from nexcage._core.states import State
from nexcage._engine.node import FleetNode
from nexcage.abc import Follows
from nexcage.errors import NexcageError
from nexcage.tools.monitor import Lines

__all__ = ["Watcher", "poll"]

_log = logging.getLogger("nexcage")

GATHERED = 0.05  # seconds in which hints are taken together: a stop alone is three of them
SETTLED = 1.0  # seconds after which the far side listens, unless it is slow: what came before is looked for
AT_LAST = 25.0  # seconds after that look in which it surely listens, and everything is looked at once more
SWEPT = 300.0  # seconds between looks at everything while a node is followed
FIRST, MOST = 1.0, 15.0  # seconds between tries to follow, and so between looks at a node that cannot be followed
STEADY = 30.0  # seconds of following after which the next try is the first one again
POLLED = 5.0  # seconds between looks at containers of other families of backends
BUSY, BUSIEST = 0.1, 1.0  # seconds until a container that somebody works on is asked for again

_ALL = 0  # no VMID


async def poll(
    others: Callable[[], list[str]],
    *,
    refresh: Callable[[], Awaitable[None]],
    reconcile: Callable[[list[str]], Awaitable[object]],
    random: Random,
) -> None:
    """Look now and then at containers that no `Watcher` hears of, until cancelled; nothing is asked while there are none."""
    while True:
        await anyio.sleep(POLLED * random.uniform(0.5, 1.5))
        try:
            await refresh()
            if ids := others():
                await reconcile(ids)
        except NexcageError as error:
            _log.warning("what changed cannot be recorded: %s", error)


class Watcher:
    """Follows one node for as long as `run` runs.

    ``backend`` says how; None, or one that cannot, means polling. ``reconcile`` takes ids and raises nothing.
    """

    def __init__(
        self,
        node: FleetNode,
        backend: Follows | None,
        *,
        machines: Callable[[], Mapping[str, Machine]],
        refresh: Callable[[], Awaitable[None]],
        reconcile: Callable[[list[str]], Awaitable[object]],
        random: Random,
    ) -> None:
        self._node = node
        self._backend = backend
        self._machines = machines
        self._refresh = refresh
        self._reconcile = reconcile
        self._random = random
        self._pending: set[int] = set()
        self._news = anyio.Event()
        self._begun = anyio.Event()
        self._told = ""

    async def run(self) -> None:
        """Follow until cancelled; no trouble of the node or of the journal ends it."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._act)
            tasks.start_soon(self._now_and_then)
            pause = FIRST
            while True:
                self._notice(_ALL)
                began = anyio.current_time()
                await self._until_it_ends()
                if anyio.current_time() - began > STEADY:
                    pause = FIRST
                await anyio.sleep(pause * self._random.uniform(0.5, 1.5))
                pause = min(pause * 2, MOST)

    # ---- listening ---------------------------------------------------------------------------------------------------------

    async def _until_it_ends(self) -> None:
        if self._backend is None:
            return
        try:
            why = await self._follow(self._backend)
        except NexcageError as error:
            why = str(error)
        except Exception as error:  # noqa: BLE001 (a defect of a backend or transport costs the following, not the fleet)
            why = f"{type(error).__name__}: {error}"
        if why != self._told:  # a node that is away is told once
            self._told = why
            _log.info("%s is looked at now and then, as it cannot be followed: %s", self._node.key, why)

    async def _follow(self, backend: Follows) -> str:
        """Hand on what the node says until it says no more; why it ended."""
        lines = Lines()
        await (
            self._node.look()
        )  # it answers; a stream, which may say nothing for days, would not tell the circuit breaker
        async with self._node.stream(backend.follow()) as stream:
            await stream.send_eof()
            self._begun.set()
            async for kind, data in stream:
                for line in lines.feed(data) if kind == "stdout" else ():
                    self._told = ""
                    self._notice(*backend.changed(line))
            result = await stream.wait()
        said = shown(result.stderr, 400).strip().splitlines()
        return said[-1] if said else f"{backend.follow()} ended ({result.lost or result.exit})"

    async def _now_and_then(self) -> None:
        pause = math.inf
        while True:
            with anyio.move_on_after(pause):
                await self._begun.wait()
            if self._begun.is_set():
                self._begun = anyio.Event()
                await anyio.sleep(SETTLED)
                pause = AT_LAST
            else:
                pause = SWEPT * self._random.uniform(0.5, 1.5)
            self._notice(_ALL)

    def _notice(self, *vmids: int) -> None:
        if vmids:
            self._pending.update(vmids)
            self._news.set()

    # ---- looking -----------------------------------------------------------------------------------------------------------

    async def _act(self) -> None:
        pause = BUSY
        while True:
            await self._news.wait()
            await anyio.sleep(GATHERED)
            self._news = anyio.Event()
            hints, self._pending = self._pending, set()
            busy: set[int] = set()
            try:
                busy = await self._look(hints)
            except NexcageError as error:
                _log.warning("%s: what changed there cannot be recorded: %s", self._node.key, error)
            except Exception:  # noqa: BLE001 (a defect costs this look, not the fleet)
                _log.exception("%s: looking at what changed there broke", self._node.key)
            pause = min(pause * 2, BUSIEST) if busy else BUSY
            if busy:  # its own end will be looked at; what happens right after that must not be missed
                await anyio.sleep(pause)
                self._notice(*busy)

    async def _look(self, hints: set[int]) -> set[int]:
        """Reconcile the containers that ``hints`` are about; the VMIDs of those that somebody works on now."""
        await self._refresh()
        wanted = self._meant(hints)
        if ids := [machine.id for machine in wanted if machine.running is None]:
            await self._reconcile(ids)
        return {machine.vmid for machine in wanted if machine.running is not None} & hints

    def _meant(self, hints: set[int]) -> list[Machine]:
        """The containers of this node that were named (all of them, by 0). A VMID that none of them has may be one that was moved here."""
        known = [machine for machine in self._machines().values() if machine.state is not State.ABSENT]
        here = [machine for machine in known if machine.node == self._node.key]
        found = here if _ALL in hints else [machine for machine in here if machine.vmid in hints]
        strange = hints - {machine.vmid for machine in here} - {_ALL}
        return found + [machine for machine in known if machine.vmid in strange]
