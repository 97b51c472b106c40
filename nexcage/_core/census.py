"""Whose the containers on the nodes are, and where those of the journal are: what does not fit together, out of one look per node."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import NamedTuple

from nexcage._core.finding import Finding, Severity
from nexcage._core.machine import Machine
from nexcage._core.seen import Guest, Look, task_of
from nexcage._core.states import State

__all__ = ["Place", "census", "places", "twice"]

REPAIR = "nexcage doctor --repair"


class Place(NamedTuple):
    """Where a container was seen: the node's key, the look and the guest."""

    node: str
    look: Look
    guest: Guest


def _found(
    severity: Severity, what: str, where: str, why: str, fix: str = "", *, id: str = "", node: str = ""
) -> Finding:
    return Finding(
        severity=severity, what=what, where=where, why=why, fix=fix, repairable=fix == REPAIR, id=id, node=node
    )


def twice(looks: Mapping[str, Look]) -> dict[str, str]:
    """Nodes that are the machine of another one before them, by its boot id: one machine was named in two ways."""
    first: dict[str, str] = {}
    return {key: other for key, look in looks.items() if (other := first.setdefault(look.boot_id, key)) != key}


def places(fleet: str, looks: Mapping[str, Look]) -> dict[str, list[Place]]:
    """Where containers with a mark of ``fleet`` are, by container id; copies and half-made ones do not count."""
    found: dict[str, list[Place]] = {}
    doubled = twice(looks)
    for key, look in looks.items():
        for guest in look.guests.values():
            mark = guest.mark
            if key in doubled or mark is None or mark.fleet != fleet or guest.copy or guest.half:
                continue
            found.setdefault(mark.id, []).append(Place(key, look, guest))
    return found


def census(
    fleet: str,
    machines: Mapping[str, Machine],
    looks: Mapping[str, Look],
    *,
    away: Collection[str] = (),
    aside: Collection[str] = (),
    shown: Callable[[Machine], bool] = lambda _: True,
) -> Iterator[Finding]:
    """What is wrong between the journal's ``machines`` and the nodes. ``away``: nodes that could not be seen, so that a container
    that nobody shows may be there. ``aside``: containers of which the journal's records are damaged. ``shown``: whether these looks
    are those of its family of backends, so that they would show it.
    """
    for key, other in twice(looks).items():
        yield _found("error", "two names", key, f"it is the same machine as {other}", "name it once", node=key)
    where = places(fleet, looks)
    for id, seen in sorted(where.items()):
        yield from _marked(id, seen, machines.get(id), id in aside)
    here = {id: machine for id, machine in machines.items() if shown(machine)}
    for id, machine in sorted(here.items()):
        if id not in where and id not in aside and machine.running is None and machine.state is not State.ABSENT:
            yield from _unseen(machine, looks, away)
    doubled = twice(looks)
    for key, look in looks.items():
        if key not in doubled:
            yield from _others(fleet, key, look)
            yield from _half(fleet, key, look, here)


def _marked(id: str, seen: list[Place], machine: Machine | None, aside: bool) -> Iterator[Finding]:
    if len(seen) > 1:
        there = " and ".join(f"{place.guest.vmid} on {place.node}" for place in seen)
        fix = "find out which one is real, take the line 'nexcage fleet=...' out of the other's description"
        yield _found("error", "two of one", f"container '{id}'", f"its mark is on {there}", fix, id=id)
        return
    ((node, _, guest),) = seen
    if aside or (machine is not None and (machine.running is not None or machine.unresolved is not None)):
        return  # damaged, or an operation of it is under way
    what = f"{guest.vmid} on {node}"
    if machine is None or machine.state is State.ABSENT:
        why = f"{what} carries its mark, and the journal does not know it"
        yield _found("error", "orphan", f"container '{id}'", why, "nexcage doctor --rebuild", id=id, node=node)
    elif guest.mark is not None and (guest.mark.op, guest.vmid) != (machine.mark, machine.vmid):
        why = f"{what} carries its mark and is another one than {machine.vmid}, which the journal has"
        yield _found("error", "another", f"container '{id}'", why, "see which one is wanted", id=id, node=node)
    elif node != machine.node:
        why = f"{what}, and the journal has it on {machine.node}: somebody moved it"
        yield _found("warning", "moved", f"container '{id}'", why, REPAIR, id=id, node=node)


def _unseen(machine: Machine, looks: Mapping[str, Look], away: Collection[str]) -> Iterator[Finding]:
    id, where = machine.id, f"container '{machine.id}'"
    look = looks.get(machine.node)
    if machine.unresolved is not None:
        op = f"nobody knows whether its {machine.unresolved.op} happened"
        yield _found("warning", "unresolved", where, op, REPAIR, id=id, node=machine.node)
    elif look is None:
        if machine.node not in away:
            why = f"its node {machine.node} is not among those that were asked"
            yield _found("note", "not looked for", where, why, id=id, node=machine.node)
    elif machine.vmid in look.guests:
        guest = look.guests[machine.vmid]
        if not guest.half:
            why = f"{machine.vmid} on {machine.node} does not carry its mark any more: it is somebody else's, or edited"
            yield _found("error", "gone", where, why, REPAIR, id=id, node=machine.node)
    elif machine.vmid in look.vmids:
        why = f"{machine.vmid} is on {look.vmids[machine.vmid]} now, which was not seen"
        yield _found("warning", "moved", where, why, "name that node in hosts", id=id, node=machine.node)
    elif not away:
        yield _found("error", "gone", where, "no node has it", REPAIR, id=id, node=machine.node)


def _others(fleet: str, key: str, look: Look) -> Iterator[Finding]:
    fleets: dict[str, int] = {}
    for guest in look.guests.values():
        if guest.mark is None:
            continue
        if guest.copy:
            why = f"a copy of {guest.mark.vmid}, which is '{guest.mark.id}': its mark is not believed"
            fix = "take the line 'nexcage fleet=...' out of its description"
            yield _found("note", "copy", f"{guest.vmid} on {key}", why, fix, node=key)
        elif guest.mark.fleet != fleet:
            fleets[guest.mark.fleet] = fleets.get(guest.mark.fleet, 0) + 1
    for other, count in sorted(fleets.items()):
        why = f"{count} of its containers are of fleet {other}"
        fix = f"if that fleet's state directory is lost: nexcage doctor --rebuild --fleet {other}"
        yield _found("note", "other fleet", key, why, fix, node=key)


def _half(fleet: str, key: str, look: Look, machines: Mapping[str, Machine]) -> Iterator[Finding]:
    for vmid, guest in sorted(look.guests.items()):
        how = guest.half
        if not how or (guest.kind == "oci" and (guest.mark is None or guest.mark.fleet != fleet)):
            continue  # another fleet may be making it right now, and no lock says so
        where = f"{vmid} on {key}"
        owner = next((m for m in machines.values() if m.vmid == vmid and m.node == key), None)
        if task_of(look, vmid) is not None:
            yield _found("note", how, where, "a task still works on it", node=key)
        elif owner is not None:
            left = owner.running or owner.unresolved
            why = f"left by {left.op if left else 'an operation'} of '{owner.id}'"
            yield _found("warning", how, where, why, REPAIR, id=owner.id, node=key)
        elif guest.kind == "oci":
            fix = f"nothing: a create of '{guest.name}' takes its place; `rm -r /var/lib/nexcage-oci/*/{guest.name}` there removes it"
            yield _found("note", how, where, "its container is gone, and what was kept beside it is not", fix, node=key)
        else:
            fix = f"if nobody needs it: {guest.tool} unlock {vmid} and {guest.tool} destroy {vmid} there"
            yield _found("note", how, where, "nothing shows that it is ours, so it is never removed", fix, node=key)
