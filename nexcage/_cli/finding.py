"""From the words of a command line to container ids."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nexcage import InvalidInput, NexcageError, NotFound, NotOurs, Spec
from nexcage._cli.dialects import Targets

if TYPE_CHECKING:
    from nexcage import Fleet, Guest

__all__ = ["backend_named", "foreign", "ids_of", "of_backend"]


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


async def foreign(fleet: Fleet, word: str) -> tuple[str, Guest] | None:
    """The node and the guest of a VMID that nobody manages here; raises InvalidInput when two nodes have it."""
    if not (word.isascii() and word.isdigit() and len(word) < 10):
        return None
    vmid, looks = int(word), await fleet.look(backend="lxc")
    seen = [(node, look) for node, look in looks.items() if not isinstance(look, NexcageError)]
    having = [(node, look.guests[vmid]) for node, look in seen if vmid in look.guests]
    if len(having) > 1:
        raise InvalidInput("container", word, f"an id; this VMID is on {', '.join(node for node, _ in having)}")
    return having[0] if having else None


async def _ours(fleet: Fleet, word: str) -> str:
    """The container that ``word`` means. A VMID of somebody else's guest is refused; other unknown words stay as they are."""
    id = await fleet.find(word)
    if not fleet[id].machine.seq:
        theirs = await foreign(fleet, word)
        if theirs is not None:
            refused = NotOurs(id, theirs[0], int(word), "it is not managed by this fleet")
            raise refused.noted(f"nexcage adopt {word} --id ID makes it one of this fleet")
    return id


async def ids_of(fleet: Fleet, targets: Targets, runtime: str | None) -> list[str]:
    """Every container that ``targets`` means, in order, each once. Unknown words stay as they are: the operation says so."""
    if targets.selector is None:
        found = [of_backend(fleet, await _ours(fleet, word), runtime) for word in targets.words]
        return list(dict.fromkeys(found))
    await fleet.refresh()
    ids = fleet.select(targets.selector)
    if runtime is None:
        return ids
    name = backend_named(fleet, runtime)
    return [id for id in ids if fleet[id].machine.backend == name]
