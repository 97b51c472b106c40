"""From the words of a command line to container ids."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from nexcage import InvalidInput, NotFound
from nexcage._cli.dialects import Targets

if TYPE_CHECKING:
    from nexcage import Fleet

__all__ = ["ALIASES", "backend_named", "ids_of", "of_backend"]

ALIASES = {"proxmox-lxc": "lxc", "pct": "lxc", "qemu": "vm", "proxmox-vm": "vm"}


def backend_named(fleet: Fleet, runtime: str) -> str:
    """The backend that ``--runtime`` means; raises InvalidInput for one that is not installed."""
    name = ALIASES.get(runtime, runtime)
    if name not in fleet.backends:
        raise InvalidInput("runtime", runtime, f"one of {', '.join(sorted(fleet.backends))}")
    return name


def of_backend(fleet: Fleet, id: str, runtime: str | None) -> str:
    """``id``, after checking that it is a container of ``--runtime``, where that was said; raises NotFound."""
    if runtime is not None:
        name = backend_named(fleet, runtime)
        machine = fleet[id].machine
        if machine.backend and machine.backend != name:
            raise NotFound("container", id, f"is not one of the backend {name}: it is {machine.backend}")
    return id


async def ids_of(fleet: Fleet, targets: Targets, runtime: str | None) -> list[str]:
    """Every container that ``targets`` means, in order, each once. Words that nobody knows stay as they are: the operation says so."""
    if targets.selector is None:
        found = [of_backend(fleet, await fleet.find(word), runtime) for word in targets.words]
        return list(dict.fromkeys(found))
    await fleet.refresh()
    ids = fleet.select(targets.selector)
    if runtime is None:
        return ids
    name = backend_named(fleet, runtime)
    return [id for id in ids if fleet[id].machine.backend == name]


def parent_exists(path: str) -> bool:
    """Whether a file could be made at ``path``."""
    return os.path.isdir(os.path.dirname(os.path.abspath(path)))
