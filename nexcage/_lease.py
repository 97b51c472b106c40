"""Which lease a fleet has, by its settings."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from nexcage._core.config import Config
from nexcage._engine.node import FleetNode
from nexcage._sinks.disk import Disk
from nexcage._sinks.holder import Holder
from nexcage._sinks.lease import FileLease
from nexcage.abc import Lease
from nexcage.errors import InvalidSpec

__all__ = ["make_lease"]


def make_lease(
    config: Config,
    where: str | os.PathLike[str],
    fleet: str,
    clock: Callable[[], float],
    nodes: Mapping[str, FleetNode],
    *,
    disk: Disk | None = None,
    inline: bool = False,
) -> Lease:
    """The lease of ``fleet`` for the state directory ``where``. Does no I/O. Raises InvalidSpec when it names an unknown node."""
    settings = config.lease
    holder = Holder(disk or Disk(), os.fspath(where))
    if settings.kind == "cluster":
        if settings.node and settings.node not in nodes:
            raise InvalidSpec("lease.node", settings.node, f"one of the fleet's nodes: {', '.join(nodes)}")
        from nexcage._engine.cluster_lease import ClusterLease

        asked = [nodes[settings.node]] if settings.node else list(nodes.values())
        return ClusterLease(asked, holder, fleet, ttl=settings.ttl, clock=clock)
    path = settings.path or os.path.join(where, "lease")  # noqa: PTH118 (a name, as the port of the sinks takes it)
    return FileLease(path, holder, fleet, ttl=settings.ttl, clock=clock, disk=disk, inline=inline)
