"""Every crash: a scenario is run once to count what it does, and then again and again, dying at each of those points.

After each death a fleet is opened again on the same state directory, as the operator would, and everything must be right: what the
journal says is so, nothing was done twice, nothing of ours is left locked, recovering again changes nothing, and the scenario, run
again, gets to its end::

    def test_a_roll_out_survives_everything():
        async def roll_out(fleet):                        # may find some of it done
            await fleet.run([Create(f"web-{n}", SPEC, op_id=f"make-{n}") for n in range(3)])
            (await fleet.run([Start(f"web-{n}") for n in range(3)])).raise_for_failures()

        every_crash(roll_out)

A point is a change to the state directory, or a command on a node: before it is sent, while it runs, after its answer. At each of
them the program dies three times: the directory keeps everything, loses what was not synced, or has it in pieces.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, TypeAlias

import anyio
import msgspec

from nexcage._core.config import Config
from nexcage._core.events import Attempted, NodeFound, NodeLost
from nexcage._core.machine import Checkpointed, Machine
from nexcage._core.runtimes import RUNTIMES
from nexcage._core.states import State
from nexcage._sinks.owners import owner_alive
from nexcage._sinks.segments import read_journal
from nexcage._sinks.statefile import read_state
from nexcage.errors import JournalError, NexcageError
from nexcage.testing._dying import DyingTransport
from nexcage.testing._model import vms
from nexcage.testing._model.files import SIM
from nexcage.testing._model.oci import kept as oci
from nexcage.testing.clock import virtual_run
from nexcage.testing.cluster import IMAGES, SimCluster
from nexcage.testing.disk import AFTER, After, CrashDisk, Fate

if TYPE_CHECKING:
    from nexcage import Fleet, Host

__all__ = ["INVARIANTS", "Aftermath", "Death", "Invariant", "Scenario", "Sweep", "every_crash"]

Scenario: TypeAlias = "Callable[[Fleet], Awaitable[object]]"
_SHOWN = 5


class Death(msgspec.Struct, frozen=True):
    """Where the program died and what it left; ``every_crash(..., only=death)`` repeats it."""

    point: int
    after: After


class Sweep(msgspec.Struct, frozen=True, kw_only=True):
    """What was gone through: the points of the scenario, the deaths, and the effects on nodes that were counted."""

    points: tuple[str, ...]
    cases: int
    effects: int

    def __str__(self) -> str:
        return f"{len(self.points)} points, {self.cases} deaths, {self.effects} effects"


class Aftermath:
    """What an invariant is asked about: a fleet that was opened after the death and has recovered."""

    def __init__(self, sim: SimCluster, fleet: Fleet, home: Path) -> None:
        self.sim: SimCluster = sim
        self.fleet: Fleet = fleet
        self.state_dir: Path = home / "state"
        self.run_dir: Path = home / "run"


Invariant: TypeAlias = Callable[[Aftermath], Iterable[str]]
"""What is wrong, in words; nothing when all is well."""


class _Found(msgspec.Struct, frozen=True):
    """A container as it really is, read from the simulated files without any of the library's own eyes."""

    vmid: int
    node: str
    id: str
    state: str
    lock: str

    @classmethod
    def all(cls, now: Aftermath) -> list[_Found]:
        """Those that say that they are of this fleet and no copies."""
        found: list[_Found] = []
        for node in now.sim:
            model = node.model
            for vmid in [*model.containers(), *vms.machines(model)]:
                text = model.config(vmid)
                main = (vms.config(model, vmid) or "" if text is None else text).split("\n[")[0]
                mark, lock = _MARK.search(main), _LOCK.search(main)
                said = vms.status(model, vmid)
                running = model.is_running(vmid) or said in ("running", "paused")
                paused = model.is_frozen(vmid) or said == "paused"
                state = "at rest" if not running else "paused" if paused else "running"
                ours = mark is not None and mark[1] == now.fleet.id and mark[3] == str(vmid)
                found.append(cls(vmid, node.name, mark[2] if ours and mark else "", state, lock[1] if lock else ""))
            for one in oci.marked(model):
                state = one.status if one.status in ("running", "paused") else "at rest"
                id = one.id if one.fleet == now.fleet.id else ""
                found.append(cls(one.vmid, node.name, id, state, "" if one.status else "a mark without its container"))
        return found


_MARK = re.compile(r"(?m)^#nexcage fleet=(\S+) id=(\S+) vmid=(\d+) op=\S+$")
_LOCK = re.compile(r"(?m)^lock: (\S+)$")


def as_the_journal_says(now: Aftermath) -> Iterable[str]:
    """Every container that the journal knows is so on the cluster, once, and there are no others of this fleet."""
    real = [guest for guest in _Found.all(now) if guest.id]
    for id, machine in now.fleet.machines.items():
        there = [guest for guest in real if guest.id == id]
        if machine.state is State.ABSENT:
            if there:
                yield f"'{id}' is deleted, and there is {there}"
        elif machine.running is not None or machine.unresolved is not None or machine.state is State.UNKNOWN:
            yield f"nobody knows what became of '{id}': {machine.state}"
        elif len(there) != 1:
            yield f"'{id}' is {machine.state}, and there is {there or 'nothing'}"
        elif there[0].state != _really(machine):
            yield f"'{id}' is {machine.state}, and really {there[0].state}"
    for guest in real:
        if guest.id not in now.fleet.machines:
            yield f"nobody knows of {guest}"


def _really(machine: Machine) -> str:
    if machine.state is State.CREATED and machine.pid and machine.backend not in RUNTIMES:
        return "running"  # its init waits at its gate
    return "at rest" if machine.state in (State.CREATED, State.STOPPED) else str(machine.state)


def at_most_once(now: Aftermath) -> Iterable[str]:
    """Each step of each operation has had its effect at most once, and the journal had it before."""
    steps = {(event.op_id, event.step) for event in read_journal(now.state_dir) if isinstance(event, Attempted)}
    calls = Counter((effect["op_id"], effect["step"]) for effect in now.sim.effects() if effect["op_id"])
    for (op_id, step), times in calls.items():
        if times > 1:
            yield f"step {step} of operation {op_id} had {times} effects"
        if (op_id, step) not in steps:
            yield f"step {step} of operation {op_id} had an effect, and is not in the journal"


def nothing_is_locked(now: Aftermath) -> Iterable[str]:
    """No config has a lock that we left."""
    for guest in _Found.all(now):
        if guest.lock:
            yield f"{guest.vmid} on {guest.node} has lock: {guest.lock}"


def state_files_are_whole(now: Aftermath) -> Iterable[str]:
    """Each state.json can be read and is there exactly for what exists."""
    for id, machine in now.fleet.machines.items():
        try:
            found = read_state(now.run_dir, id)
        except JournalError as error:
            yield str(error)
        else:
            if (found is None) != (machine.state is State.ABSENT):
                yield f"'{id}' is {machine.state}, and its state.json is {'missing' if found is None else 'there'}"


def nothing_is_left_over(now: Aftermath) -> Iterable[str]:
    """No volume is there without its container, and of an OCI runtime nothing without a mark."""
    known = {vmid for node in now.sim for vmid in [*node.model.containers(), *vms.machines(node.model)]}
    for node in now.sim:
        datasets = re.findall(r"/(?:subvol|vm)-(\d+)-(?:disk-|cloudinit)", node.files.read(f"{SIM}/zfs.json") or "")
        images = node.files.names("/var/lib/vz/images")
        for vmid in sorted({int(word) for word in [*datasets, *images] if word.isdigit()} - known):
            yield f"there are volumes of {vmid} on {node.name}, and no such container"
        for what in oci.left_over(node.model):
            yield f"there is {what} on {node.name}, and no mark of it"


INVARIANTS: tuple[Invariant, ...] = (
    as_the_journal_says,
    at_most_once,
    nothing_is_locked,
    nothing_is_left_over,
    state_files_are_whole,
)
"""What must be so after every death."""


def every_crash(
    scenario: Scenario,
    *,
    before: Scenario | None = None,
    invariants: Sequence[Invariant] = INVARIANTS,
    cluster: Callable[[], SimCluster] = lambda: SimCluster(2),
    after: Sequence[After] = AFTER,
    most: int | None = None,
    seed: int = 0,
    only: Death | None = None,
    disk: Callable[[Path, Fate], CrashDisk] = CrashDisk,
    **options: Any,  # those of nexcage.open_fleet
) -> Sweep:
    """Die at every point of ``scenario``; raises AssertionError that names each case in which something was wrong then.

    ``scenario`` drives a fleet to a goal, and is run again after each death: it must be content when some of it, or all, has been
    done already. ``before`` is what was so
    before, without any death. ``invariants`` are asked after each recovery and at the end. ``cluster`` makes a new one for each run.
    ``most``: only so many deaths, drawn by ``seed``; ``only``: this one. ``disk`` makes the disk that dies. Runs its own event loops
    under virtual time, so it is not for async tests.
    """
    play = _Play(scenario, before, invariants, cluster, seed, disk, options)
    points, shape, effects = virtual_run(play.uncrashed)
    cases = [Death(point, left) for point in range(len(points)) for left in after]
    if only is not None:
        cases = [only]
    elif most is not None and most < len(cases):
        cases = sorted(Random(seed).sample(cases, most), key=cases.index)
    wrong: list[str] = []
    failed = 0
    for case in cases:
        found, counted = virtual_run(play.crashed, case, points[case.point], shape)
        effects += counted
        failed += bool(found)
        wrong += [f"{case}, before '{points[case.point]}': {what}" for what in found]
    if wrong:
        __tracebackhide__ = True  # pytest shows the scenario's line and what went wrong, not these
        more = f"\n... and {len(wrong) - 20} more" if len(wrong) > 20 else ""
        again = "\nevery_crash(..., only=Death(...)) with one of these repeats it" if only is None else ""
        raise AssertionError(
            f"{failed} of {len(cases)} deaths (seed {seed}) went wrong:\n" + "\n".join(wrong[:20]) + more + again
        )
    return Sweep(points=tuple(points), cases=len(cases), effects=effects)


class _Play:
    """The scenario and what belongs to it; each method is one run from the beginning."""

    def __init__(
        self,
        scenario: Scenario,
        before: Scenario | None,
        invariants: Sequence[Invariant],
        cluster: Callable[[], SimCluster],
        seed: int,
        disk: Callable[[Path, Fate], CrashDisk],
        options: Mapping[str, Any],  # Any: open_fleet's
    ) -> None:
        self._scenario = scenario
        self._before = before
        self._invariants = invariants
        self._cluster = cluster
        self._seed = seed
        self._disk = disk
        self._options = options

    async def uncrashed(self) -> tuple[list[str], Mapping[str, str], int]:
        """The points, how it ends, and the number of effects."""
        with self._cluster() as sim, _home() as folder:
            home = Path(folder)
            fate = Fate()
            await self._prepared(sim, home)
            await self._live(sim, home, self._disk(home, fate), Random(self._seed))
            wrong, shape = await self._recovered(sim, home)
            if wrong:
                raise AssertionError("without any death: " + "; ".join(wrong[:_SHOWN]))
            return fate.points, shape, len(sim.effects())

    async def crashed(self, case: Death, name: str, shape: Mapping[str, str]) -> tuple[list[str], int]:
        """What was wrong after that death, and the number of effects."""
        random = Random(f"{self._seed}:{case.point}:{case.after}")
        with self._cluster() as sim, _home() as folder:
            home = Path(folder)
            fate = Fate(case.point)
            await self._prepared(sim, home)
            disk = self._disk(home, fate)
            await self._live(sim, home, disk, random)
            if fate.points[case.point : case.point + 1] != [name]:
                return [f"the scenario does not do the same again: {fate.points[case.point :] or 'nothing'}"], 0
            disk.present(case.after, random)
            await anyio.sleep(random.choice((0.0, 0.0, random.uniform(0.0, 5.0))))
            wrong: list[str] = []
            try:
                await self._again(sim, home, shape, wrong)
            except (NexcageError, ExceptionGroup) as error:
                wrong.append(f"it cannot be opened again: {type(error).__name__}: {error}")
            return wrong, len(sim.effects())

    async def _again(self, sim: SimCluster, home: Path, shape: Mapping[str, str], wrong: list[str]) -> None:
        wrong += [f"after recovery, {what}" for what in (await self._recovered(sim, home))[0]]
        since = _last(home)
        wrong += [f"after a second recovery, {what}" for what in (await self._recovered(sim, home))[0]]
        new = [
            e
            for e in read_journal(home / "state", since=since)
            if not isinstance(e, (NodeFound, NodeLost, Checkpointed))
        ]
        if new:
            wrong.append(f"recovering again wrote {new[:_SHOWN]}")
        try:
            async with self._fleet(sim, home) as fleet:
                await self._scenario(fleet)
        except (NexcageError, ExceptionGroup) as error:
            wrong.append(f"the scenario cannot be run again: {type(error).__name__}: {error}")
        found, ended = await self._recovered(sim, home)
        wrong += [f"in the end, {what}" for what in found]
        if ended != shape:
            wrong.append(f"in the end there is {ended}, and without the death {shape}")

    async def _prepared(self, sim: SimCluster, home: Path) -> None:
        if self._before is not None:
            async with self._fleet(sim, home) as fleet:
                await self._before(fleet)

    async def _live(self, sim: SimCluster, home: Path, disk: CrashDisk, random: Random) -> None:
        """The life that may end early. The errors of the dead are nobody's."""
        fate = disk.fate

        def connect(host: Host) -> DyingTransport:
            node = sim[host.address or host.key]
            return DyingTransport(sim.connect(host), node.name, fate, lambda: bool(node.calls), random)

        def cut() -> None:
            for node in sim:
                for link in list(node.links):
                    link.cut()

        owner = ""
        with anyio.CancelScope() as scope:
            fate.at_death += [cut, scope.cancel]
            try:
                async with self._fleet(sim, home, connect=connect, disk=disk) as fleet:
                    owner = fleet.owner
                    await self._scenario(fleet)
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException:
                if not fate.dead:
                    raise
        if owner and owner_alive(home / "state", owner):
            raise AssertionError(f"owner {owner} looks alive after its death")

    async def _recovered(self, sim: SimCluster, home: Path) -> tuple[list[str], Mapping[str, str]]:
        """What is wrong once a new driver has recovered, and what there is then."""
        async with self._fleet(sim, home) as fleet:
            await fleet.recover(wait=True)
            await fleet.reconcile()
            now = Aftermath(sim, fleet, home)
            wrong = [what for invariant in self._invariants for what in invariant(now)]
            return wrong, {id: str(m.state) for id, m in sorted(fleet.machines.items()) if m.state is not State.ABSENT}

    def _fleet(self, sim: SimCluster, home: Path, **more: Any) -> Any:  # Any: open_fleet's; its context manager
        # With an id that was rolled, hashes of it would come out differently each time.
        options = {"config": Config(images=IMAGES, fleet="crash"), **self._options, **more}
        return sim.fleet(state_dir=home / "state", run_dir=home / "run", **options)


def _home() -> tempfile.TemporaryDirectory[str]:
    shared = "/dev/shm"  # no power to lose: a disk in memory does
    return tempfile.TemporaryDirectory(prefix="nexcage-crash-", dir=shared if os.access(shared, os.W_OK) else None)


def _last(home: Path) -> int:
    return max((event.seq for event in read_journal(home / "state")), default=0)
