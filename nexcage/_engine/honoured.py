"""What the version of a program on a node tells: whether it is there, and what of a bundle it would drop without a word."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import msgspec

from nexcage._bundles import BundleFiles
from nexcage._core.bundle_plan.decide import BACKENDS, demand
from nexcage._core.bundle_plan.model import BundlePlan
from nexcage._core.bundle_plan.runtimes import Runtime
from nexcage._core.command import Command
from nexcage._engine.node import FleetNode
from nexcage._engine.shelves import carried
from nexcage._planning import planned
from nexcage.abc import Backend
from nexcage.errors import BundleRefused, CommandFailed, NodeNotUsable

__all__ = ["at_home", "demanded"]


@runtime_checkable
class Versioned(Protocol):
    """Optional for a backend: the version of its program on a node, and that of the specification which it follows."""

    def version(self) -> Command[tuple[str, str]]: ...


async def demanded(files: BundleFiles, allow: tuple[str, ...], backend: Backend, node: FleetNode) -> None:
    """Raises BundleRefused, InvalidBundle, and the errors of the node. Its program is asked for its version only when one that is as
    old as nexcage knows would not do.
    """
    if backend.name not in BACKENDS:
        return
    try:
        demand(files.path, _loud(planned(files, backend=backend.name, allow=allow)))
    except BundleRefused:
        if not isinstance(backend, Versioned):
            raise
        try:
            version, _ = await carried(node, backend.version())
        except CommandFailed:
            version = ""
        runtime = Runtime(backend.name, version)
        demand(files.path, _loud(planned(files, backend=backend.name, allow=allow, runtime=runtime)))


def _loud(plan: BundlePlan) -> BundlePlan:
    """Without what the program refuses itself, in its own words: a root file system that is not there."""
    return msgspec.structs.replace(
        plan, refused=tuple(one for one in plan.refused if not one.pointer.startswith("/root"))
    )


async def at_home(backend: Backend, node: FleetNode) -> bool:
    """Whether the program of the backend is on the node; not, where it does not tell which version it is."""
    if not isinstance(backend, Versioned):
        return False
    try:
        version, _ = await carried(node, backend.version())
        return bool(version)
    except (CommandFailed, NodeNotUsable):
        return False
