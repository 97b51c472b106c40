"""A node of the fleet as one family of backends sees it: looks that many callers share.

``lxc`` and ``vm`` show their containers in one look, ``crun`` and ``runc`` in another. A container is only ever judged by a look of its
own family, for in all others it looks destroyed. The views of a node share its link (`nexcage._engine.link`), and nothing that was seen.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

import anyio
import msgspec
from anyio.abc import TaskGroup

from nexcage._core.command import Claim, Command, Result
from nexcage._core.hosts import Host
from nexcage._core.machine import Machine
from nexcage._core.seen import Look, Settled
from nexcage._core.states import State
from nexcage._engine.link import Link, Lost, answer
from nexcage._engine.retry import again
from nexcage._loop import Once, loop_time
from nexcage.abc import Backend, Stream
from nexcage.errors import NexcageError, NodeNotUsable, NodeTimeout, NodeUnreachable, NoRoute

__all__ = ["Asked", "Families", "FleetNode", "Lost", "Views", "answer", "by_family", "in_use"]

T = TypeVar("T")
_log = logging.getLogger("nexcage.command")

PERIOD = 0.02  # seconds between looks at one node: those who ask meanwhile share the next
GATHERED = 0.01  # seconds at least that a look waits for the other operations at work on the node to ask for it too
AT_MOST = 0.1  # and at most: half of what the last look took, or a tenth of what an operation's command takes there


class Families:
    """Which backends look together. ``first`` is the backend that looks when nobody says which."""

    def __init__(self, backends: Mapping[str, Backend], first: str) -> None:
        self.first: str = first
        self._backends = backends

    def of(self, backend: str) -> str:
        """The family of a backend: the one that it says, else its name. Without a backend, that of the first."""
        backend = backend or self.first
        family: str = getattr(self._backends.get(backend), "family", backend)
        return family

    def others(self) -> tuple[str, ...]:
        """The backends that are not of the family of the first."""
        return tuple(name for name in self._backends if self.of(name) != self.of(""))

    def observe(self, backend: str, node: str, ops: tuple[str, ...]) -> Command[Look]:
        """The look of that backend; raises NoRoute when it is not installed."""
        known = self._backends.get(backend)
        if known is None:
            raise NoRoute(f"the containers of backend '{backend}' cannot be seen: it is not installed")
        return known.observe(node, ops)


class Asked:
    """A look that somebody waits for."""

    def __init__(self) -> None:
        self.done: anyio.Event = anyio.Event()
        self.all: Once = Once()
        """Every operation at work on the node has asked for it."""
        self.askers: int = 0
        self.look: Look | None = None
        self.error: NexcageError | None = None


class Views:
    """The views of one node, which they share."""

    def __init__(self) -> None:
        self.by_backend: dict[str, FleetNode] = {}
        self.all: list[FleetNode] = []


class FleetNode:
    """One node. ``key`` is its host string; ``seen`` the newest look (None before the first) of ``family``."""

    def __init__(
        self,
        link: Link,
        families: Families,
        *,
        tasks: TaskGroup,
        clock: Callable[[], float],
        backend: str = "",
        views: Views | None = None,
    ) -> None:
        self.key: str = link.key
        self.host: Host = link.host
        self.family: str = families.of(backend)
        self.seen: Look | None = None
        self.at_work: int = 0
        """How many operations are under way on it; each of them will ask for a look."""
        self.pace: float = 0.0
        """Seconds that a command which changes something took there lately."""
        self._link = link
        self._families = families
        self._backend = backend or families.first
        self._tasks = tasks
        self._clock = clock
        self._views: Views = views or Views()
        self._views.by_backend[self._backend] = self
        self._views.all.append(self)
        self._next: Asked | None = None
        self._looking = False
        self._looked = -1e9
        self._took = 0.0  # seconds, of the last look
        self._marks: tuple[Look | None, dict[tuple[str, str], int]] = (None, {})

    # ---- views -------------------------------------------------------------------------------------------------------------

    def of(self, backend: str) -> FleetNode:
        """The same node as the family of ``backend`` sees it (the first one, by an empty name)."""
        known = self._views.by_backend.get(backend or self._families.first)
        return known if known is not None else self._view(backend)

    def _view(self, backend: str) -> FleetNode:
        family = self._families.of(backend)
        for view in self._views.all:
            if view.family == family:
                self._views.by_backend[backend] = view
                return view
        return FleetNode(
            self._link, self._families, tasks=self._tasks, clock=self._clock, backend=backend, views=self._views
        )

    def views(self) -> Sequence[FleetNode]:
        """The node by every family that was asked for so far."""
        return self._views.all

    # ---- its link ----------------------------------------------------------------------------------------------------------

    @property
    def lost(self) -> bool:
        """Whether it is given up for now."""
        return self._link.breaker.open

    @property
    def away(self) -> bool:
        """Whether it could not be reached when it was last asked."""
        return self._link.breaker.last is not None

    @property
    def fencing(self) -> bool:
        """Whether the node itself refuses commands of a driver that has lost its lease: it has a runner."""
        return self._link.fencing

    @property
    def mode(self) -> str:
        """How commands reach it (``runner``, ``exec``, and why), as far as its transport says."""
        return self._link.mode

    def having(self, fleet: str, id: str) -> int | None:
        """The VMID of the container that the newest look shows as ``id`` of ``fleet``; copies do not count, nor marks whose container
        is gone.
        """
        if self.seen is not self._marks[0]:
            guests = self.seen.guests.values() if self.seen else ()
            marks = {
                (g.mark.fleet, g.mark.id): g.vmid
                for g in guests
                if g.mark is not None and not g.copy and not (g.kind == "oci" and g.half)
            }
            self._marks = (self.seen, marks)
        return self._marks[1].get((fleet, id))

    def forgive(self) -> None:
        """Close the circuit by hand: after a rejected login or host key was put right."""
        self._link.breaker.reset()

    def __repr__(self) -> str:
        if self.lost:
            return f"<Node {self.key}: lost ({self._link.breaker.last})>"
        return f"<Node {self.key}: {len(self.seen.guests)} guests>" if self.seen else f"<Node {self.key}: not seen yet>"

    async def call(self, command: Command[Any], env: Mapping[str, str] | None = None) -> Result:
        """Run a command; raises a NodeError only when it surely did not begin."""
        return await self._link.call(command, env)

    def stream(self, command: Command[Any]) -> AbstractAsyncContextManager[Stream]:
        """Run a command and hand out what it prints as it comes; a NodeError of this node only when it surely did not begin."""
        return self._link.stream(command)

    async def run(self, command: Command[T], env: Mapping[str, str] | None = None) -> T:
        """Run a command and parse its answer; raises Lost when there is none."""
        return answer(command, await self._link.call(command, env), self.key)

    async def settle(self, *steps: Claim) -> tuple[Settled, ...]:
        """What the node knows of these steps; those that have not begun never will. Those who ask at the same time share a command.

        Raises NodeError when it cannot be asked.
        """
        return await self._link.settle(*steps)

    # ---- looking -----------------------------------------------------------------------------------------------------------

    async def look(self, ops: tuple[str, ...] = (), *, within: float = 0.0) -> Look:
        """What is so now: a look that began after this call, or at most ``within`` seconds before it.

        Callers at the same time share one, unless they ask for ``ops``. Raises NodeError when the node cannot be seen.
        """
        if ops:
            return await self._look(ops)
        if within and self.seen is not None and not self.lost and loop_time() - self._looked <= within:
            return self.seen
        shared = self.ask()
        await shared.done.wait()
        if shared.look is None:
            raise again(shared.error or NodeUnreachable(self.key, "the fleet is closing"))
        return shared.look

    def ask(self) -> Asked:
        """Have a look that begins after this call; whoever asks before it begins shares it. Does not wait."""
        if self._link.closed:
            raise NodeUnreachable(self.key, "the fleet is closing")
        if self._next is None:
            self._next = Asked()
            if not self._looking:
                self._looking = True
                self._tasks.start_soon(self._looks)
        self._next.askers += 1
        if self._next.askers >= self.at_work:
            self._next.all.set()
        return self._next

    async def _looks(self) -> None:
        shared: Asked | None = None
        try:
            while self._next is not None:
                await self._gathered(self._next)
                shared, self._next = self._next, None
                try:
                    shared.look = await self._look(())
                except NexcageError as error:
                    shared.error = error
                    if self._link.breaker.last is error and self._next is not None:
                        # There is no link: who asked meanwhile would wait as long again for the same answer.
                        self._next.error, meanwhile, self._next = error, self._next, None
                        meanwhile.done.set()
                except Exception as error:  # noqa: BLE001 (a defect of a backend costs a look, not the fleet)
                    _log.exception("%s: looking broke", self.key)
                    shared.error = NodeUnreachable(self.key, f"looking broke: {type(error).__name__}: {error}")
                shared.done.set()
        finally:
            self._looking = False
            for left in (shared, self._next):
                if left is not None:
                    left.done.set()

    async def _gathered(self, asked: Asked) -> None:
        """Give the other operations at work on the node the time to ask for the same look."""
        await anyio.sleep(max(0.0, self._looked + PERIOD - loop_time()))
        if self.at_work > asked.askers:
            with anyio.move_on_after(min(AT_MOST, max(GATHERED, self._took / 2, self.pace / 10))):
                await asked.all.wait()

    async def _look(self, ops: tuple[str, ...]) -> Look:
        began = loop_time()
        try:
            look = await self.run(self._families.observe(self._backend, self.key, ops))
        except Lost as lost:
            if lost.result.lost == "deadline":
                raise NodeTimeout(self.key, "it did not show its containers in time") from None
            raise NodeUnreachable(self.key, "the link was lost while looking") from None
        look = msgspec.structs.replace(look, at=self._clock())
        self._took = loop_time() - began
        if began > self._looked:  # a slow look must not replace a newer one
            self.seen, self._looked, self._link.boot_id = look, began, look.boot_id
        return look

    async def aclose(self) -> None:
        """Close the link, for all views."""
        await self._link.aclose()


def in_use(nodes: Mapping[str, FleetNode], machines: Iterable[Machine]) -> dict[str, list[FleetNode]]:
    """By which families those of ``machines`` are seen that are on ``nodes``; none for a node without any."""
    found: dict[str, list[FleetNode]] = {key: [] for key in nodes}
    for machine in machines:
        there = found.get(machine.node)
        if there is None or (machine.state is State.ABSENT and machine.running is None and machine.unresolved is None):
            continue
        view = nodes[machine.node].of(machine.backend)
        if view not in there:
            there.append(view)
    return found


async def by_family(needed: Sequence[FleetNode], also: Iterable[FleetNode]) -> dict[str, Look]:
    """Looks at one node, by family. A family of ``also`` may be one that this node does not have, unless it has none at all.

    Raises NodeError.
    """
    seen: dict[str, Look] = {}
    missing: NexcageError | None = None
    for view in dict.fromkeys((*needed, *also)):
        try:
            seen[view.family] = await view.look()
        except (NodeNotUsable, NoRoute) as error:
            if view in needed:
                raise
            missing = missing or error
    if missing is not None and not seen:
        raise missing
    return seen
