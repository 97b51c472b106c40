"""What a program that reads a bundle itself would drop of it without a word: such a create is refused, as the plan says."""

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
from nexcage.errors import BundleRefused, CommandFailed

__all__ = ["demanded"]


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
