"""After the trouble: nothing goes wrong any more, and in bounded time everything must come to rest and agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import anyio
import anyio.abc

from nexcage._core.events import Attempted, Began, Succeeded
from nexcage._core.intents import Adopt, Delete
from nexcage._core.keeping import Migrate
from nexcage._core.machine import Event, Machine, fold
from nexcage._core.oci import oci_status
from nexcage._core.outcome import Failure
from nexcage._core.states import Op, State
from nexcage._sinks.segments import read_journal
from nexcage._sinks.statefile import read_state
from nexcage.errors import Blocked
from nexcage.testing._explore import harm
from nexcage.testing._explore.kept import kept
from nexcage.testing._explore.program import FLEET, VMIDS, Program
from nexcage.testing._explore.truth import Guest, guests, leftovers

if TYPE_CHECKING:
    from nexcage.testing._explore.world import World

__all__ = ["calm"]

PATIENCE = 1800.0
"""Seconds of virtual time after which what was asked must have ended."""
CALM = 1800.0
"""Seconds of virtual time in which everything must converge once nothing goes wrong any more."""
LEAVE = 150.0
"""Seconds that those who asked may wait for their answers before the programs end."""


async def calm(world: World, tasks: anyio.abc.TaskGroup) -> None:
    """Let everything end, then open the fleet again, and judge what it makes of it all."""
    world.note("nothing goes wrong any more")
    for program in world.programs:
        program.go_on()
        program.plug.trouble = 0
    harm.mend(world)
    await anyio.sleep(0.1)
    world.over = True
    await _in_time(world, PATIENCE, "promise 2: what was asked has not ended", lambda: _all_leave(world))
    await _in_time(world, PATIENCE, "promise 2: commands on the nodes have not ended", lambda: _nodes_idle(world))
    harm.mend(world)
    for host in range(world.plan.hosts):
        last = await _opened(world, tasks, 90, host)
        await _converged(world, last)
        await last.leave()
    _nothing_unknown(world)
    _nothing_twice(world)
    for wrong in kept(_ours(world), _journal(world), world):
        world.broken(wrong)
    for host in range(world.plan.hosts):
        again = await _opened(world, tasks, 91, host)
        await _nothing_new(world, again)
        await _everything_deleted(world, again)
    _nothing_left(world)
    _foreigners_untouched(world)


async def _in_time(world: World, seconds: float, otherwise: str, work: Callable[[], Awaitable[None]]) -> None:
    with anyio.move_on_after(seconds) as scope:
        await work()
    if scope.cancelled_caught:
        world.broken(f"{otherwise} after {seconds:g} s")


async def _all_leave(world: World) -> None:
    await anyio.sleep(LEAVE)
    for program in world.programs:
        await program.leave()
        program.go_on()


async def _nodes_idle(world: World) -> None:
    while any(node.calls for node in world.sim):  # noqa: ASYNC110 (of another machine: there is no event to wait for)
        await anyio.sleep(5)


async def _opened(world: World, tasks: anyio.abc.TaskGroup, number: int, host: int) -> Program:
    program = Program(world, number, host)
    world.programs.append(program)
    tasks.start_soon(program.live)
    for _ in range(100):
        await anyio.sleep(0.1)
        if program.up:
            return program
    world.broken("promise 3: the fleet cannot be opened any more")
    return program


# ---- it converges --------------------------------------------------------------------------------------------------------------


async def _converged(world: World, program: Program) -> None:
    fleet = program.fleet
    if fleet is None:
        return
    until = anyio.current_time() + CALM
    pause = 5.0
    while anyio.current_time() < until:
        await fleet.reconcile()
        if not any(_open(machine) for machine in fleet.machines.values()):
            break
        await anyio.sleep(pause)
        pause *= 2
    _compare(world, fleet.machines.values())
    _told_elsewhere(world, program, fleet.machines)


def _open(machine: Machine) -> bool:
    return machine.running is not None or machine.unresolved is not None or machine.state is State.UNKNOWN


def _compare(world: World, machines: Iterable[Machine]) -> None:
    real = {guest.id: guest for guest in _ours(world)}
    for machine in machines:
        guest = real.get(machine.id)
        if _open(machine):
            debris = guests(world.sim).get(machine.vmid)
            if debris is None or not _unproven(world, debris):
                began = machine.running or machine.unresolved
                world.broken(
                    f"promise 3: {machine.id} is still {machine.state}, and nobody says what became of {began}"
                )
        elif guest is None and machine.state is not State.ABSENT:
            world.broken(f"promise 6: {machine.id} is {machine.state} and does not exist")
        elif guest is not None and machine.mark == guest.op and _state(machine) != guest.state:
            world.broken(f"promise 6: {machine.id} is {machine.state} and really {guest}")


def _told_elsewhere(world: World, program: Program, machines: Mapping[str, Machine]) -> None:
    """What the journal's files and the state files say is what the live machines say."""
    folded = fold(read_journal(program.home / "state"))
    for id, machine in machines.items():
        if folded.get(id) != machine:
            world.broken(f"promise 3: {id} is {machine} and its journal folds to {folded.get(id)}")
        state = read_state(program.home / "run", id)
        said, wanted = state and state.status, None if machine.state is State.ABSENT else oci_status(machine)
        if said != wanted:
            world.broken(f"promise 4: the state file of {id} says {said}, and it is {wanted}")
    world.look_at_state_files(program.home / "run")


def _nothing_unknown(world: World) -> None:
    """Each container of ours is what the journal that made it says, and not absent there."""
    known: set[str] = set()
    for host in range(world.plan.hosts):
        machines = fold(read_journal(world.state(host)))
        known |= {machine.mark for machine in machines.values() if machine.state is not State.ABSENT}
    for guest in _ours(world):
        if guest.op not in known:
            world.broken(f"promise 3: nobody knows of {guest}")


def _nothing_twice(world: World) -> None:
    """A create makes one container, wherever it tried."""
    for mark, count in Counter(guest.op for guest in _ours(world)).items():
        if count > 1:
            world.broken(f"promise 1: {mark} made {count} containers: {[g for g in _ours(world) if g.op == mark]}")


def _journal(world: World) -> list[Event]:
    return [event for host in range(world.plan.hosts) for event in read_journal(world.state(host))]


def _ours(world: World) -> list[Guest]:
    """The containers whose mark is one that a create of ours gave to that VMID; an edited copy is somebody else's."""
    journal = _journal(world)
    made = {(e.op_id, e.tries.get("vmid")) for e in journal if isinstance(e, Attempted)}
    made |= {(e.op_id, e.intent.vmid) for e in journal if isinstance(e, Began) and isinstance(e.intent, Adopt)}
    return [g for g in guests(world.sim).values() if g.fleet == FLEET and (g.op, g.vmid) in made]


def _state(machine: Machine) -> str:
    return "at rest" if machine.state in (State.CREATED, State.STOPPED) else str(machine.state)


def _unproven(world: World, guest: Guest) -> bool:
    """Debris that nobody can prove to be ours, because its node was rebooted or somebody else made it: told, never touched."""
    if guest.id or guest.lock not in ("create", "destroyed"):
        return False
    if guest.vmid in world.by_hand:
        return True
    journal = _journal(world)
    deleted = {e.op_id for e in journal if isinstance(e, Began) and e.vmid == guest.vmid}
    steps = [
        e for e in journal if isinstance(e, Attempted) and (e.tries.get("vmid") == guest.vmid or e.op_id in deleted)
    ]
    boot = (world.sim[guest.node].files.read("/proc/sys/kernel/random/boot_id") or "").strip()
    unproven = any(step.boot_id != boot for step in steps)
    if unproven:
        world.count("debris left to people")
    return unproven


async def _nothing_new(world: World, program: Program) -> None:
    """Recovering again changes nothing."""
    fleet = program.fleet
    if fleet is None:
        return
    before = fleet.seq
    await fleet.reconcile()
    new = list(read_journal(fleet.state_dir, since=before))
    if new:
        world.broken(f"promise 3: looking again wrote {new}")


async def _everything_deleted(world: World, program: Program) -> None:
    """Whatever became of it, a container can be deleted, and then nothing of it is left."""
    fleet = program.fleet
    if fleet is None:
        return
    report = await fleet.run([Delete(id, force=True) for id in world.plan.ids])
    for _ in world.plan.ids:  # a template goes after its linked copies
        if not any(isinstance(failure.error, Blocked) for failure in report.failures):
            break
        report = await fleet.run([failure.intent for failure in report.failures])
    for failure in report.failures:
        if not _excused(world, failure):
            world.broken(
                f"promise 3: {failure.op} {failure.id} in the calm: {type(failure.error).__name__}: {failure.error}"
            )
    await program.leave()


def _nothing_left(world: World) -> None:
    debris = [g for g in guests(world.sim).values() if not g.id and g.lock in ("create", "destroyed")]
    for guest in [*_ours(world), *(g for g in debris if not _unproven(world, g))]:
        if not _locked(world, guest):
            world.broken(f"promise 3: after everything was deleted there is {guest}")
    for volume in leftovers(world.sim, range(VMIDS[0], VMIDS[1] + 1)):
        if not _stale(world, volume):
            world.broken(f"promise 3: after everything was deleted there is {volume}")


def _stale(world: World, volume: str) -> bool:
    """Whether it may be what `pct migrate` calls a stale volume copy: on the node to which a migration went that did not come there."""
    journal = _journal(world)
    moves = [e for e in journal if isinstance(e, Began) and isinstance(e.intent, Migrate)]
    came = {e.op_id for e in journal if isinstance(e, Succeeded)}
    stale = any(
        f"/subvol-{e.vmid}-disk-" in volume
        and isinstance(e.intent, Migrate)
        and volume.endswith(f" on {e.intent.node}")
        for e in moves
        if e.op_id not in came
    )
    if stale:
        world.count("copies left to people")
    return stale


def _excused(world: World, failure: Failure) -> bool:
    """What only a person can end: debris that nobody can prove to be ours, and a lock that somebody else left."""
    guest = guests(world.sim).get(failure.vmid)
    if guest is None:
        return False
    return _unproven(world, guest) or _locked(world, guest)


_LEAVES = {"disk": (Op.CREATE, Op.MOVE_VOLUME), "rollback": (Op.ROLLBACK,)}
"""What a command of ours that was killed, or whose node went down, leaves in the config of a container, and nobody takes away."""
_DEADLY = ("kill-worker", "kill-supervisor", "crash", "restart")


def _locked(world: World, guest: Guest) -> bool:
    """Whether it has a lock that only a person can take away: somebody else's, or of a command that was killed. A rollback that was ended
    in its middle, also by TERM, keeps its lock: nobody knows what its disks are.
    """
    if guest.lock in ("backup", "snapshot"):
        return True
    tried = {e.op for e in _journal(world) if isinstance(e, Began)}
    killed = guest.lock == "rollback" or any(world.counts[kind] for kind in _DEADLY)
    left = killed and bool(tried.intersection(_LEAVES.get(guest.lock, ())))
    if left:
        world.count("locks left to people")
    return left


def _foreigners_untouched(world: World) -> None:
    now = guests(world.sim)
    adopted = {e.intent.vmid for e in _journal(world) if isinstance(e, Began) and isinstance(e.intent, Adopt)}
    for vmid, (guest, config) in world.foreign.items():
        if vmid in adopted:
            continue
        if vmid not in now:
            world.broken(f"promise 5: foreign {vmid} is gone")
        elif world.sim[guest.node].model.config(vmid) != config:
            world.broken(f"promise 5: the config of foreign {vmid} was changed")
