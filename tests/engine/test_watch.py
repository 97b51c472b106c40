"""What somebody else does to containers is heard of and recorded, without anybody asking."""

from __future__ import annotations

import math
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Any, cast

import anyio
import pytest

import nexcage
from nexcage import Command, Config, Create, Observed, Result, Spec, Start, State
from nexcage._backends.lxc import Lxc
from nexcage._engine.node import FleetNode
from nexcage._engine.watch import Watcher
from nexcage.testing import SimCluster
from nexcage.tools.monitor import monitor

SPEC = Spec("local:vztmpl/alpine-3.20-default_20240908_amd64.tar.xz", storage="local-zfs")


async def until(true: Callable[[], bool], seconds: float = 2.0) -> None:
    with anyio.fail_after(seconds):
        while not true():
            await anyio.sleep(0.01)


async def seen(fleet: nexcage.Fleet, id: str) -> list[Observed]:
    return [event for event in nexcage.read_journal(fleet.state_dir) if isinstance(event, Observed) and event.id == id]


@pytest.mark.sim(nodes=2)
@pytest.mark.parametrize("how", ["stopped", "killed", "paused"])
async def test_what_somebody_else_does_is_recorded_within_two_seconds(sim: SimCluster, how: str) -> None:
    async with sim.fleet(watch=True) as fleet:
        web = fleet["web-1"]
        await web.create(SPEC)
        done = await web.start()
        await anyio.sleep(20)  # nobody looks any more
        argv = {
            "stopped": ("pct", "stop", str(done.vmid)),
            "killed": ("kill", "-9", str(done.pid)),
            "paused": ("lxc-freeze", "-n", str(done.vmid)),
        }[how]

        assert (await sim[done.node].run(argv)).exit == 0
        wanted = State.PAUSED if how == "paused" else State.STOPPED
        await until(lambda: web.machine.state is wanted)

        (event,) = await seen(fleet, "web-1")
    assert (event.state, event.node) == (wanted, done.node)


@pytest.mark.sim(nodes=1)
async def test_a_container_that_dies_right_after_its_start_is_not_missed(sim: SimCluster) -> None:
    async with sim.fleet(watch=True) as fleet:
        web = fleet["web-1"]
        await web.create(SPEC)
        await anyio.sleep(20)
        done = await web.start()
        await sim[done.node].run(("kill", "-9", str(done.pid)))

        await until(lambda: web.machine.state is State.STOPPED, 5.0)


@pytest.mark.sim(nodes=3)
async def test_only_the_node_that_says_something_is_looked_at(sim: SimCluster) -> None:
    async with sim.fleet(watch=True) as fleet:
        (await fleet.run([Create(f"web-{n}", SPEC) for n in range(9)])).raise_for_failures()
        report = await fleet.run([Start(f"web-{n}") for n in range(9)])
        await anyio.sleep(30)
        before = {key: node.seen for key, node in fleet.nodes.items()}
        done = report.done[0]

        await sim[done.node].run(("pct", "stop", str(done.vmid)))
        await until(lambda: fleet[done.id].machine.state is State.STOPPED)

        assert {key for key, node in fleet.nodes.items() if node.seen is not before[key]} == {done.node}


@pytest.mark.sim(nodes=2)
async def test_a_fleet_that_is_closed_leaves_nothing_running_on_its_nodes(sim: SimCluster) -> None:
    async with sim.fleet(watch=True):
        await anyio.sleep(5)
        following = [[call.ctx.argv[0] for call in node.calls] for node in sim]

    assert following == [["lxc-monitor"], ["lxc-monitor"]]
    assert [list(node.calls) for node in sim] == [[], []]


@pytest.mark.sim(nodes=1)
async def test_a_container_that_somebody_drives_is_left_alone_until_that_has_ended(sim: SimCluster) -> None:
    async with sim.fleet(watch=True) as fleet:
        web = fleet["web-1"]
        await web.create(SPEC)
        done = await web.start()
        await anyio.sleep(5)
        (node,) = sim
        node.fault("slow", on="lxc-freeze", seconds=30)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(web.pause)
            await until(lambda: web.machine.running is not None)
            await node.run(("kill", "-9", str(done.pid)))
            await anyio.sleep(10)
            during = await seen(fleet, "web-1")
            tasks.cancel_scope.cancel()
        await until(lambda: web.machine.state is State.STOPPED, 60.0)

    assert during == []


@pytest.mark.sim(nodes=1)
async def test_what_happened_while_nobody_followed_is_found_when_following_begins(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        await fleet["web-1"].create(SPEC)
        done = await fleet["web-1"].start()
    await sim[done.node].run(("pct", "stop", str(done.vmid)))

    async with sim.fleet(watch=True) as fleet:
        await until(lambda: fleet["web-1"].machine.state is State.STOPPED)


@pytest.mark.sim(nodes=1)
async def test_what_happens_before_a_slow_node_listens_is_found_too(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        await fleet["web-1"].create(SPEC)
        done = await fleet["web-1"].start()
    (node,) = sim
    node.fault("slow", on="lxc-monitor", seconds=10)

    async with sim.fleet(watch=True) as fleet:
        await anyio.sleep(5)
        await node.run(("pct", "stop", str(done.vmid)))
        await until(lambda: fleet["web-1"].machine.state is State.STOPPED, 30.0)


class Silent:
    """A node that can be followed for ``seconds``, then for ever, and says nothing."""

    key = "pve-01"

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    async def look(self) -> None:
        """It answers."""

    @asynccontextmanager
    async def stream(self, command: Command[Any]) -> AsyncIterator[Silent]:
        yield self

    async def send_eof(self) -> None:
        """Nothing reads it."""

    async def __aiter__(self) -> AsyncIterator[tuple[str, bytes]]:
        seconds, self.seconds = self.seconds, math.inf
        await anyio.sleep(seconds)
        yield "stdout", b""

    async def wait(self) -> Result:
        return Result(exit=1)


class Even(Random):
    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2


@pytest.mark.parametrize("seconds", [10.0, 24.5, 24.9, 100.0])
async def test_a_node_that_is_followed_again_is_looked_at_twice_whenever_that_is(
    virtual_time: object, seconds: float
) -> None:
    looked: list[float] = []
    machines = {"web-1": nexcage.Machine("web-1", state=State.RUNNING, node="pve-01", vmid=100)}

    async def refresh() -> None:
        """Nobody else writes."""

    async def reconcile(ids: list[str]) -> None:
        looked.append(anyio.current_time() - start)

    start = anyio.current_time()
    watcher = Watcher(
        cast("FleetNode", Silent(seconds)),
        Lxc(),
        machines=lambda: machines,
        refresh=refresh,
        reconcile=reconcile,
        random=Even(),
    )
    with anyio.move_on_after(seconds + 100):
        await watcher.run()

    again = seconds + 1
    assert [round(at - again) for at in looked if at >= again] == [0, 1, 26]


@pytest.mark.sim(nodes=1)
async def test_a_node_that_comes_back_is_followed_again(sim: SimCluster) -> None:
    async with sim.fleet(watch=True) as fleet:
        web = fleet["web-1"]
        await web.create(SPEC)
        await web.start()
        await anyio.sleep(5)
        (node,) = sim
        node.crash()
        await anyio.sleep(60)
        node.restart()

        await until(lambda: web.machine.state is State.STOPPED, 60.0)
        await web.start()
        await anyio.sleep(60)
        await node.run(("pct", "stop", str(web.machine.vmid)))
        await until(lambda: web.machine.state is State.STOPPED)


@pytest.mark.sim(nodes=1)
async def test_a_node_that_cannot_be_followed_is_looked_at_now_and_then(sim: SimCluster) -> None:
    sim.teach("lxc-monitor", lambda argv, stdin: (127, "", "sh: 1: lxc-monitor: not found\n"))
    async with sim.fleet(watch=True) as fleet:
        web = fleet["web-1"]
        await web.create(SPEC)
        done = await web.start()
        await anyio.sleep(120)

        await sim[done.node].run(("pct", "stop", str(done.vmid)))
        await until(lambda: web.machine.state is State.STOPPED, 30.0)


@pytest.mark.sim(nodes=1)
async def test_lines_that_are_lies_or_noise_change_nothing(sim: SimCluster) -> None:
    said = b"'104' changed state to [STOPPED]\n" * 3 + b"\xff\xfe\n'x' changed\n" + b"'1" * 9000

    sim.teach("lxc-monitor", lambda argv, stdin: (0, said, b""))
    async with sim.fleet(watch=True) as fleet:
        web = fleet["web-1"]
        await web.create(SPEC)
        await web.start()
        await anyio.sleep(60)

        assert web.machine.state is State.RUNNING
        assert await seen(fleet, "web-1") == []


@pytest.mark.sim(nodes=1)
async def test_reverting_puts_back_what_somebody_stopped(sim: SimCluster) -> None:
    async with sim.fleet(config=Config(on_drift="revert", watch=True)) as fleet:
        web = fleet["web-1"]
        await web.create(SPEC)
        done = await web.start()
        await anyio.sleep(20)
        await sim[done.node].run(("pct", "stop", str(done.vmid)))

        await until(lambda: web.machine.state is State.RUNNING and web.machine.pid != done.pid, 30.0)

        assert [event.state for event in await seen(fleet, "web-1")] == [State.STOPPED]


@pytest.mark.sim(nodes=2)
async def test_own_operations_are_told_from_those_of_others(sim: SimCluster) -> None:
    async with sim.fleet(watch=True) as fleet:
        web = fleet["web-1"]
        await web.create(SPEC)
        for act in (
            web.start,
            web.pause,
            web.resume,
            web.stop,
            web.start,
            web.stop,
            web.delete,
        ):
            await act()
        await anyio.sleep(10)

        assert await seen(fleet, "web-1") == []


@pytest.mark.sim(nodes=1)
async def test_the_pretend_monitor_speaks_like_the_real_one(sim: SimCluster) -> None:
    (node,) = sim
    async with sim.fleet() as fleet:
        done = await fleet.do(Create("web-1", SPEC))
        lines: list[bytes] = []

        async def listen() -> None:
            command = monitor()
            async with fleet.nodes[node.name].stream(command) as stream:
                async for _, data in stream:
                    lines.append(data)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listen)
            await anyio.sleep(5)
            web = fleet["web-1"]
            for act in (web.start, web.pause, web.resume, web.stop):
                await act()
                await anyio.sleep(1)
            tasks.cancel_scope.cancel()

    states = re.findall(rb"'%d' (?:changed state to \[([A-Z]+)\]|exited)" % done.vmid, b"".join(lines))
    assert b" ".join(states) == b"STARTING RUNNING FREEZING FROZEN FROZEN THAWED THAWED RUNNING  STOPPING STOPPED"
