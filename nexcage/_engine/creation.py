"""What a create needs before it may begin: its backend and plan, its bundle, image and content, and the node that it goes to."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from contextlib import asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from nexcage._core.config import Config
from nexcage._core.copies import copied
from nexcage._core.intents import Create
from nexcage._core.machine import Machine
from nexcage._core.route import Plan, plan
from nexcage._core.states import State
from nexcage._engine.images import Images
from nexcage._engine.node import FleetNode
from nexcage._engine.observe import Observer
from nexcage._engine.placement import Coming, chosen, open_nodes, takers
from nexcage._engine.provisions import Provisions
from nexcage._engine.retry import again
from nexcage._engine.steps import Raced
from nexcage.abc import Backend, Journal, Placement
from nexcage.errors import AlreadyExists, NodeUnreachable, NoRoute, Unsupported

if TYPE_CHECKING:
    from nexcage._engine.bundles import Ready
    from nexcage._engine.sent import Handed

__all__ = ["Creation", "Made", "backend_of"]


class Made(NamedTuple):
    """A create that can begin: with all that its spec did not say, and where.

    ``bundle``: what it is made from, where its backend is told.
    """

    intent: Create
    node: FleetNode
    backend: Backend
    bundle: Ready | Handed | None


def backend_of(machine: Machine, backends: Mapping[str, Backend]) -> Backend:
    """The backend that a container belongs to; raises NoRoute when it is not installed."""
    if (known := backends.get(machine.backend)) is None:
        raise NoRoute(f"container '{machine.id}' belongs to backend '{machine.backend}', which is not installed")
    return known


class Creation:
    """Makes creates ready. Nothing of it changes a container; what it sends to a node lies there under its digest."""

    def __init__(
        self,
        *,
        fleet: str,
        journal: Journal,
        observer: Observer,
        nodes: Mapping[str, FleetNode],
        backends: Mapping[str, Backend],
        config: Config,
        placement: Placement,
        cordoned: Callable[[], Collection[str]],
        images: Images | None = None,
        provisions: Provisions | None = None,
    ) -> None:
        self._fleet = fleet
        self._journal = journal
        self._observer = observer
        self._nodes = nodes
        self._backends = backends
        self._config = config
        self._placement = placement
        self._cordoned = cordoned
        self._images = images
        self._provisions = provisions
        self._coming = Coming()

    @asynccontextmanager
    async def ready(self, op_id: str, intent: Create, *, send: bool = True) -> AsyncGenerator[Made]:
        """The create, ready to begin; placement counts it as on its way to its node until the context ends.

        ``send`` False is for a rehearsal: nothing is sent to the node, nor counted. Raises what refuses it.
        """
        bundle: Ready | Handed | None
        intent, wanted, backend = self._planned(intent)
        intent, bundle = await self._read(op_id, intent, backend)
        node = await self._place(intent, wanted.nodes, backend)
        with self._coming.to(node.key, intent.spec) if send else nullcontext():
            if bundle is None:
                intent, bundle = await self._imaged(op_id, intent, backend, node)
            if send:
                await self._sent(intent, wanted, bundle, node, backend)
            yield Made(await self._supplied(intent, node, backend, send=send), node, backend, bundle)

    async def not_twice(self, id: str, node: FleetNode) -> None:
        """Refuse to make what a node has already, although this journal does not know it (another one was lost).

        Raises AlreadyExists; Raced when it knows of it by now.
        """
        for view in node.views():
            await self._not_there(id, view)

    async def _not_there(self, id: str, node: FleetNode) -> None:
        if node.having(self._fleet, id) is None:
            return
        await node.look()  # what was seen then may be gone by now
        vmid = node.having(self._fleet, id)
        if vmid is not None:
            await self._journal.refresh()
            machine = self._observer.machine(id)
            if machine.running is not None or machine.state is not State.ABSENT:
                raise Raced  # another process has begun or made it since we decided
            raise AlreadyExists(
                "container", id, f"already exists as {vmid} on {node.key}, and this journal does not know it"
            )

    # ---- its plan ----------------------------------------------------------------------------------------------------------

    def _planned(self, intent: Create) -> tuple[Create, Plan, Backend]:
        """The intent with the spec that its backend makes of it."""
        if intent.spec.source is not None:
            return self._copied(intent, self._observer.machine(intent.spec.source))
        wanted = plan(intent.id, intent.spec, self._config, self._nodes, self._backends)
        backend = self._backends[wanted.backend]
        if (check := getattr(backend, "check", None)) is not None:  # a backend may leave it out
            check(intent.id, wanted.spec)
        return msgspec.structs.replace(intent, spec=wanted.spec), wanted, backend

    def _copied(self, intent: Create, source: Machine) -> tuple[Create, Plan, Backend]:
        wanted = copied(intent.spec, source)
        backend = backend_of(source, self._backends)
        if not callable(getattr(backend, "clone", None)):
            raise Unsupported(source.id, "clone", backend.name)
        if source.spec is not None and source.spec.bundle:  # a copy's config would name the files of its source
            raise Unsupported(
                source.id, "clone", backend.name, "cannot copy what was made from a bundle: create it from the bundle"
            )
        self._observer.node(source)  # raises NoRoute
        return msgspec.structs.replace(intent, spec=wanted.spec), wanted, backend

    async def _place(self, intent: Create, keys: tuple[str, ...], backend: Backend) -> FleetNode:
        keys = takers(intent.id, keys, self._cordoned())
        nodes = {key: self._nodes[key].of(backend.name) for key in keys}
        if len(keys) == 1:
            node = nodes[keys[0]]
            if node.seen is not None and node.seen.maintenance:  # it may be over
                open_nodes(intent.id, [self._coming.candidate(node.key, await node.look())])
            return node
        able = [node for node in nodes.values() if not node.lost] or list(nodes.values())
        unseen = [node for node in able if node.seen is None or node.seen.maintenance]
        looks = [node.ask() for node in unseen]
        for asked in looks:
            if not asked.done.is_set():
                await asked.done.wait()
        errors = [asked.error for asked in looks if asked.error is not None]
        candidates = [self._coming.candidate(n.key, n.seen) for n in able if n.seen is not None and not n.lost]
        for candidate in candidates:
            await self.not_twice(intent.id, nodes[candidate.node])
        if not candidates:
            raise again(errors[0]) if errors else NodeUnreachable(able[0].key, f"none of {len(able)} nodes answers")
        return nodes[chosen(self._placement, intent.id, intent.spec, open_nodes(intent.id, candidates))]

    # ---- what it is made from ----------------------------------------------------------------------------------------------

    async def _read(self, op_id: str, intent: Create, backend: Backend) -> tuple[Create, Ready | None]:
        """The intent with what its bundle says, and the bundle where the backend has to be told of it."""
        if self._provisions is None or not self._provisions.plans(intent.spec, backend):
            return intent, None
        spec, ready = await self._provisions.bundles.read(intent.id, intent.spec, backend, op_id)
        return msgspec.structs.replace(intent, spec=spec), ready

    async def _imaged(
        self, op_id: str, intent: Create, backend: Backend, node: FleetNode
    ) -> tuple[Create, Ready | Handed | None]:
        """The same for an image of this machine, once it is known where it goes."""
        if self._provisions is None or not self._provisions.plans(intent.spec, backend):
            return intent, None
        spec, ready = await self._provisions.bundles.image(intent.id, intent.spec, backend, op_id, node)
        return msgspec.structs.replace(intent, spec=spec), ready

    async def _sent(
        self, intent: Create, wanted: Plan, bundle: Ready | Handed | None, node: FleetNode, backend: Backend
    ) -> None:
        """The node has its bundle or its template."""
        if self._provisions is not None and bundle is not None:
            await self._provisions.bundles.ready(bundle, intent.spec, node)
        if self._images is not None and getattr(backend, "templates", False) and not intent.spec.source:
            await self._images.ready(node, wanted)

    async def _supplied(self, intent: Create, node: FleetNode, backend: Backend, *, send: bool) -> Create:
        """The intent with its content, which the node has by then, where the backend makes containers from that."""
        if self._provisions is None or not self._provisions.supplied(intent.spec, backend):
            return intent
        spec = await self._provisions.supplies.ready(intent.id, intent.spec, node, backend=backend, send=send)
        return msgspec.structs.replace(intent, spec=spec)
