"""From the words of a command line to container ids."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nexcage import NotFound, Spec
from nexcage._cli.dialects import Targets

if TYPE_CHECKING:
    from nexcage import Fleet

__all__ = ["backend_named", "ids_of", "of_backend"]


def backend_named(fleet: Fleet, runtime: str) -> str:
    """The backend that ``--runtime`` means, aliases resolved as a create would; raises InvalidInput for an unknown one."""
    return fleet.route("any", Spec(image="any.tar.zst", backend=runtime)).backend


def of_backend(fleet: Fleet, id: str, runtime: str | None) -> str:
    """``id``, after checking that it is a container of ``--runtime``, where that was said; raises NotFound."""
    if runtime is not None:
        name = backend_named(fleet, runtime)
        machine = fleet[id].machine
        if machine.backend and machine.backend != name:
            raise NotFound("container", id, f"is not one of the backend {name}: it is {machine.backend}")
    return id


async def ids_of(fleet: Fleet, targets: Targets, runtime: str | None) -> list[str]:
    """Every container that ``targets`` means, in order, each once. Unknown words stay as they are: the operation says so."""
    if targets.selector is None:
        found = [of_backend(fleet, await fleet.find(word), runtime) for word in targets.words]
        return list(dict.fromkeys(found))
    await fleet.refresh()
    ids = fleet.select(targets.selector)
    if runtime is None:
        return ids
    name = backend_named(fleet, runtime)
    return [id for id in ids if fleet[id].machine.backend == name]
