"""Looking for a guest that somebody else made."""

from __future__ import annotations

from collections.abc import Mapping

import anyio

from nexcage._core.adopting import sought
from nexcage._core.intents import Adopt
from nexcage._core.seen import Look
from nexcage._engine.node import FleetNode
from nexcage.abc import Backend
from nexcage.errors import NexcageError, NoRoute, NotFound, Unsupported

__all__ = ["find"]


async def find(
    intent: Adopt, nodes: Mapping[str, FleetNode], backends: Mapping[str, Backend]
) -> tuple[FleetNode, Backend]:
    """The node that has it and the backend for its kind; all nodes are looked at, unless the intent names one.

    Raises what `sought` raises, and the error of a node that cannot be seen when it may be there.
    """
    if intent.node and intent.node not in nodes:
        raise NotFound("node", intent.node, "is not in this fleet")
    # Only what PVE made can be adopted, and one look shows its containers and its machines.
    views = [node.of("lxc") for node in nodes.values() if intent.node in ("", node.key)]
    looks, errors = await _looks(views)
    if errors and (intent.node or not any(intent.vmid in look.guests for look in looks.values())):
        raise errors[0]
    key, guest = sought(intent, looks)
    name = "vm" if guest.kind == "vm" else "lxc"
    backend = backends.get(name)
    if backend is None:
        raise NoRoute(f"guest {intent.vmid} on {key} is for backend '{name}', which is not installed")
    if not callable(getattr(backend, "adopt", None)):
        raise Unsupported(intent.id, "adopt", name)
    return nodes[key].of(name), backend


async def _looks(nodes: list[FleetNode]) -> tuple[dict[str, Look], list[NexcageError]]:
    seen: dict[str, Look] = {}
    errors: list[NexcageError] = []

    async def one(node: FleetNode) -> None:
        try:
            seen[node.key] = await node.look()
        except NexcageError as error:
            errors.append(error)

    async with anyio.create_task_group() as tasks:
        for node in nodes:
            tasks.start_soon(one, node)
    return {node.key: seen[node.key] for node in nodes if node.key in seen}, errors
