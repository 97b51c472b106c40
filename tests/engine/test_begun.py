"""An operation whose beginning is written and which then cannot go on: what is recorded of it, and what its key means afterwards."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable

import pytest

import nexcage
from nexcage import Failed, Spec, State
from nexcage._sinks.disk import Disk
from nexcage.errors import JournalError, NodeTimeout
from nexcage.testing import SimCluster

SPEC = Spec(image="local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst")


def on_write(monkeypatch: pytest.MonkeyPatch, *words: bytes, do: Callable[[], None]) -> None:
    """Do it once, when records with these words are handed to the disk."""
    write, did = Disk.write, list[bytes]()

    def written(self: Disk, fd: int, data: bytes) -> None:
        if not did and all(word in data for word in words):
            did.append(data)
            do()
        write(self, fd, data)

    monkeypatch.setattr(Disk, "write", written)


def full() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


async def test_the_same_key_finds_out_what_became_of_one_whose_outcome_could_not_be_written(
    sim: SimCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with sim.fleet() as fleet:
        await fleet["web-1"].create(SPEC)
        on_write(monkeypatch, b'"event":"succeeded"', do=full)
        start = nexcage.Start("web-1", op_id="once")
        with pytest.raises(JournalError):
            await fleet.do(start)

        done = await fleet.do(start)

        assert done.state is State.RUNNING
    assert len([effect for effect in sim.effects() if effect["op_id"] == "once"]) == 1


@pytest.mark.parametrize("only_commands", [True, False])
async def test_what_cannot_be_recorded_has_surely_not_begun(
    sim: SimCluster, monkeypatch: pytest.MonkeyPatch, only_commands: bool
) -> None:
    monkeypatch.setattr("nexcage._backends.lxc.Lxc.only_commands", only_commands)
    async with sim.fleet() as fleet:
        await fleet["web-1"].create(SPEC)
        before = len(sim.effects())
        on_write(monkeypatch, b'"event":"began"', do=full)

        with pytest.raises(JournalError) as caught:
            await fleet["web-1"].start()

        assert not caught.value.uncertain
        machine = fleet.machines["web-1"]
        assert (machine.running, machine.state, len(sim.effects())) == (None, State.CREATED, before)
        await fleet["web-1"].start()


@pytest.mark.sim(nodes=1)
@pytest.mark.parametrize("only_commands", [True, False])
async def test_cancelled_natively_while_its_beginning_is_written_it_says_that_nothing_was_started(
    sim: SimCluster, monkeypatch: pytest.MonkeyPatch, only_commands: bool
) -> None:
    monkeypatch.setattr("nexcage._backends.lxc.Lxc.only_commands", only_commands)
    starts: list[asyncio.Task[object]] = []
    ids = ("web-1", "web-2", "web-3")
    async with sim.fleet() as fleet:
        for id in ids:
            await fleet[id].create(SPEC)
        before = len(sim.effects())
        on_write(monkeypatch, b'"event":"began"', *(id.encode() for id in ids), do=lambda: cancel(starts[1:]))
        starts += [asyncio.create_task(fleet[id].start()) for id in ids]

        ended = await asyncio.gather(*starts, return_exceptions=True)

        assert [isinstance(one, asyncio.CancelledError) for one in ended] == [False, True, True]
        for id in ids[1:]:
            machine = fleet.machines[id]
            assert (machine.running, machine.state) == (None, State.CREATED)
            assert isinstance(machine.done[-1], Failed)
        assert len(sim.effects()) == before + 1


def cancel(tasks: list[asyncio.Task[object]]) -> None:
    for task in tasks:
        task.cancel()


@pytest.mark.sim(nodes=1)
async def test_out_of_time_while_its_beginning_is_written_it_is_certain_that_nothing_was_started(
    sim: SimCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with sim.fleet() as fleet:
        await fleet["web-1"].create(SPEC)
        before = len(sim.effects())

        def time_is_up() -> None:
            held = fleet._driver._turns.holder("web-1")
            assert held is not None
            held.scope.cancel()  # as its deadline does

        on_write(monkeypatch, b'"event":"began"', do=time_is_up)

        with pytest.raises(NodeTimeout, match="op_timeout") as caught:
            await fleet["web-1"].start()

        machine = fleet.machines["web-1"]
        assert not caught.value.uncertain
        assert (machine.running, machine.state, len(sim.effects())) == (None, State.CREATED, before)
        assert isinstance(machine.done[-1], Failed)
