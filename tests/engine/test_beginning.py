"""The record that an operation began is on the disk before its first command, and costs no wait of its own."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

import nexcage
from nexcage import Command, Host, Result, Spec, State
from nexcage._backends.lxc import Lxc
from nexcage._sinks.disk import Disk
from nexcage._sinks.journal import FileJournal
from nexcage.abc import Transport
from nexcage.testing import SimCluster

SPEC = Spec(image="local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst")


class Told:
    """A transport that notes what the journal says when a command that changes something is handed to it."""

    def __init__(self, inner: Transport) -> None:
        self.inner = inner
        self.fleet: nexcage.Fleet | None = None
        self.known: list[tuple[State, int]] = []
        self.hold: anyio.Event | None = None

    async def run(self, command: Command[Any]) -> Result:
        if self.fleet is not None and not command.safe:
            machine = self.fleet.machines["web-1"]
            self.known.append((machine.state, machine.steps))
            if self.hold is not None:
                await self.hold.wait()
        return await self.inner.run(command)

    def stream(self, command: Command[Any]) -> Any:
        return self.inner.stream(command)

    async def aclose(self) -> None:
        await self.inner.aclose()


async def test_an_operation_waits_for_the_disk_twice(sim: SimCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    syncs: list[int] = []

    def counted(self: Disk, fd: int) -> None:
        syncs.append(fd)

    async with sim.fleet() as fleet:
        await fleet["web-1"].create(SPEC)
        monkeypatch.setattr(Disk, "sync", counted)
        await fleet["web-1"].start()

    assert len(syncs) == 2


async def test_its_beginning_and_its_step_are_recorded_when_its_first_command_runs(sim: SimCluster) -> None:
    told: list[Told] = []

    def connect(host: Host) -> Transport:
        told.append(Told(sim.connect(host)))
        return told[-1]

    async with sim.fleet(connect=connect) as fleet:
        await fleet["web-1"].create(SPEC)
        for one in told:
            one.fleet = fleet
        await fleet["web-1"].start()
        await fleet["web-1"].stop(force=True)

    assert [pair for one in told for pair in one.known] == [(State.STARTING, 1), (State.STOPPING, 1)]


class Careful(Lxc):
    """One that does not promise to change things by commands of its node only, as a plugin may not."""

    only_commands = False
    seen: list[State] = []

    async def start(self, node: Any, ref: Any) -> int:
        assert FLEET is not None
        self.seen.append(FLEET.machines["web-1"].state)
        return await super().start(node, ref)


FLEET: nexcage.Fleet | None = None


async def test_a_backend_that_may_act_otherwise_is_asked_only_when_the_beginning_is_recorded(
    sim: SimCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = Careful()
    async with sim.fleet(backend=[backend]) as fleet:
        monkeypatch.setattr(f"{__name__}.FLEET", fleet)
        await fleet["web-1"].create(SPEC)
        await fleet["web-1"].start()

    assert backend.seen == [State.STARTING]


async def test_what_another_driver_began_first_is_not_run_twice(sim: SimCluster, tmp_path: Any) -> None:
    dirs = {"state_dir": tmp_path / "state", "run_dir": tmp_path / "run"}
    async with sim.fleet(**dirs) as one, sim.fleet(**dirs) as other:
        await one["web-1"].create(SPEC)
        await other.refresh()
        answers: list[nexcage.Done | nexcage.Failure] = []

        async def start(fleet: nexcage.Fleet) -> None:
            answers.extend(await fleet.run([nexcage.Start("web-1")], wait=True))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(start, one)
            tasks.start_soon(start, other)

    assert sorted(answer.changed for answer in answers if isinstance(answer, nexcage.Done)) == [False, True]
    assert len(sim.effects()) == 2


class Lent:
    """A lease that is lost at a given moment."""

    def __init__(self, lease: Any) -> None:
        self.lease = lease
        self.lost = False

    async def hold(self) -> int:
        if self.lost:
            raise nexcage.Fenced("f1")
        return int(await self.lease.hold())

    async def aclose(self) -> None: ...


async def test_a_lease_that_is_lost_while_a_step_is_written_keeps_its_command_from_running(
    sim: SimCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with sim.fleet() as fleet:
        await fleet["web-1"].create(SPEC)
        driver: Any = fleet._driver  # pyright: ignore[reportPrivateUsage]
        lent = Lent(driver._lease)
        driver._lease = driver._recovery._lease = lent
        append = FileJournal.append

        async def slow(self: FileJournal, *drafts: Any) -> Any:
            written = await append(self, *drafts)
            lent.lost = any(isinstance(event, nexcage.Attempted) for event in written)
            return written

        monkeypatch.setattr(FileJournal, "append", slow)
        with pytest.raises(nexcage.Fenced):
            await fleet["web-1"].start()

        assert len(sim.effects()) == 1
        assert fleet["web-1"].machine.state is State.CREATED
