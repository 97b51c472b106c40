"""The archives of containers: which there are, and where one lies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import anyio

from nexcage._engine.node import FleetNode, Lost
from nexcage.errors import NexcageError, NodeUnreachable, NotFound
from nexcage.tools import pvesm
from nexcage.tools.pvesm import Volume

__all__ = ["archives", "everywhere", "having"]


async def archives(node: FleetNode, storage: str = "") -> tuple[Volume, ...]:
    """Every archive on a node's storages (or on that one), the oldest first by name; one command and one for each storage."""
    try:
        names = [storage] if storage else [one.name for one in await node.run(pvesm.status("backup")) if _open(one)]
        found = [volume for name in names for volume in await node.run(pvesm.list_(name, "backup"))]
    except Lost as lost:
        raise NodeUnreachable(node.key, str(lost)) from None
    return tuple(sorted(found, key=lambda volume: volume.id.partition(":")[2]))


def _open(storage: pvesm.Storage) -> bool:
    return storage.status == "active"


async def everywhere(nodes: Iterable[FleetNode]) -> tuple[dict[str, tuple[Volume, ...]], dict[str, NexcageError]]:
    """Those of many nodes at the same time, and the errors of nodes that failed."""
    found: dict[str, tuple[Volume, ...]] = {}
    errors: dict[str, NexcageError] = {}

    async def one(node: FleetNode) -> None:
        try:
            found[node.key] = await archives(node)
        except NexcageError as error:
            errors[node.key] = error

    async with anyio.create_task_group() as tasks:
        for node in nodes:
            tasks.start_soon(one, node)
    return found, errors


async def having(nodes: Mapping[str, FleetNode], volume: str) -> str:
    """A node that has this archive; raises NotFound, or the error of a node that may have it."""
    found, errors = await everywhere(nodes.values())
    for key in nodes:
        if any(one.id == volume for one in found.get(key, ())):
            return key
    if errors:
        raise next(iter(errors.values()))
    raise NotFound("backup", volume, f"is not on {', '.join(nodes)}")
