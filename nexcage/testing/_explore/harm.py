"""Making troubles happen at their moments, and taking all of them back."""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

import anyio

from nexcage.testing import faults
from nexcage.testing._explore.power import Powered
from nexcage.testing._explore.program import VMIDS
from nexcage.testing._explore.trouble import TO_ONE, Trouble
from nexcage.testing._explore.truth import Guest, guests, log_size
from nexcage.testing._model.files import SIM
from nexcage.testing._model.storage import Die
from nexcage.testing.cluster import SimNode

if TYPE_CHECKING:
    from nexcage.testing._explore.program import Program
    from nexcage.testing._explore.world import World

__all__ = ["make", "mend"]


async def make(world: World, trouble: Trouble) -> None:
    """Let it happen, and end where it has an end."""
    await _MAKE.get(trouble.kind, _fault)(world, trouble)


def mend(world: World) -> None:
    """Nothing goes wrong with a node any more."""
    for node in world.sim:
        with node.step():
            faults.update(node.model, faults=[])
            node.files.remove(f"{SIM}/ha")
        if any(isinstance(step, Trouble) and step.kind == "endless" for step in world.plan.steps):
            for call in list(node.calls):
                call.interrupt()
        node.fault("quorum")
        node.fault("storage-free")
        _up(node)


def _up(node: SimNode) -> None:
    if node.down:
        node.restart()
    if node.partitioned:
        node.heal()


def _node(world: World, trouble: Trouble) -> SimNode:
    return list(world.sim)[trouble.node % world.plan.nodes]


def _program(world: World, trouble: Trouble) -> Program:
    return world.programs[trouble.program % world.plan.programs]


# ---- of nodes ------------------------------------------------------------------------------------------------------------------


async def _fault(world: World, trouble: Trouble) -> None:
    node = _node(world, trouble)
    options = cast("dict[str, Any]", dict(trouble.options))  # Any: each kind has its own
    if trouble.kind == "migrate" and world.plan.nodes < 2:
        return
    if trouble.kind in TO_ONE:
        if trouble.on:
            world.by_hand.update(range(VMIDS[0], VMIDS[1] + 1))  # whichever it meets
        elif (guest := _ours(world, node, trouble)) is None:
            return
        else:
            options["vmid"] = guest.vmid
            world.by_hand.add(guest.vmid)
    since = log_size(world.sim)
    try:
        node.fault(trouble.kind, on=trouble.on or None, **options)
    except Die as error:  # somebody else has trouble too: a full storage, say
        world.note(f"{trouble.kind} did not work: {error}")
    else:
        if trouble.kind == "swap" and not trouble.on:
            world.taken.append((int(str(options["vmid"])), anyio.current_time(), since))
    if trouble.seconds and not trouble.on:
        await anyio.sleep(trouble.seconds)
        _up(node)


def _ours(world: World, node: SimNode, trouble: Trouble) -> Guest | None:
    ours = [guest for guest in guests(world.sim).values() if guest.node == node.name and guest.id]
    return ours[int(trouble.which * len(ours))] if ours else None


async def _cut_links(world: World, trouble: Trouble) -> None:
    for link in list(_node(world, trouble).links):
        link.cut()


async def _by_hand(world: World, trouble: Trouble) -> None:
    """Somebody who sits in front of the node."""
    node = _node(world, trouble)
    guest = _ours(world, node, trouble)
    if guest is None or node.down:
        return
    world.by_hand.add(guest.vmid)
    argv = ("pct", str(trouble.options["verb"]), str(guest.vmid))
    result = await node.run(argv)
    world.note(f"by hand on {node.name}: {' '.join(argv)} → {result.exit}")


# ---- of programs ---------------------------------------------------------------------------------------------------------------


async def _kill(world: World, trouble: Trouble) -> None:
    program = _program(world, trouble)
    if program.up:
        world.count("kills")
        world.away[program.number] = trouble.seconds
        await program.kill()


async def _leave(world: World, trouble: Trouble) -> None:
    program = _program(world, trouble)
    if program.up:
        world.away[program.number] = trouble.seconds
        await program.leave()


async def _pause(world: World, trouble: Trouble) -> None:
    program = _program(world, trouble)
    name = program.name
    if program.up:
        program.hold()
        await anyio.sleep(trouble.seconds)
        if program.name == name:
            program.go_on()


async def _clock(world: World, trouble: Trouble) -> None:
    _program(world, trouble).jump += float(str(trouble.options["seconds"]))


async def _full_disk(world: World, trouble: Trouble) -> None:
    await _bad_disk(world, trouble, errno.ENOSPC)


async def _broken_disk(world: World, trouble: Trouble) -> None:
    await _bad_disk(world, trouble, errno.EIO)


async def _bad_disk(world: World, trouble: Trouble, number: int) -> None:
    plug = _program(world, trouble).plug
    plug.trouble = number
    await anyio.sleep(trouble.seconds)
    plug.trouble = 0


async def _torn_tail(world: World, trouble: Trouble) -> None:
    """Killed in the middle of a write."""
    program = _program(world, trouble)
    if program.up:
        world.count("kills")
        await program.kill()
        _append(world, program.host, b'{"event":"began","seq":99')


async def _nul_tail(world: World, trouble: Trouble) -> None:
    """Killed with the machine: the file has its new length, its last blocks were never written."""
    host = _program(world, trouble).host
    for program in world.programs:
        if program.up and program.host == host:
            world.count("kills")
            await program.kill()
    _append(world, host, b"\0" * 700)


async def _power_loss(world: World, trouble: Trouble) -> None:
    """The machine of a host loses its power: all of its programs end at once, and with them what its disk had not got."""
    host = _program(world, trouble).host
    disk = world.disks[host]
    assert isinstance(disk, Powered)
    there = [program for program in world.programs if program.host == host]
    for program in there:
        world.away[program.number] = trouble.seconds
        world.count("kills" if program.up else "kills of nobody")
        program.plug.die()
    disk.fail("torn" if trouble.options["after"] == "torn" else "lost")
    world.read_again()
    for program in there:
        await program.kill()


def _append(world: World, host: int, data: bytes) -> None:
    folder = world.state(host) / "journal"
    segments = sorted(name for name in os.listdir(folder) if name.endswith(".jsonl")) if folder.exists() else []
    if segments:
        with open(folder / segments[-1], "ab") as file:
            file.write(data)


_MAKE: Mapping[str, Callable[[World, Trouble], Awaitable[None]]] = {
    "cut-links": _cut_links,
    "by-hand": _by_hand,
    "kill-driver": _kill,
    "leave-driver": _leave,
    "pause-driver": _pause,
    "driver-clock": _clock,
    "enospc": _full_disk,
    "eio": _broken_disk,
    "torn-tail": _torn_tail,
    "nul-tail": _nul_tail,
    "power-loss": _power_loss,
}
