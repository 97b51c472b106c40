"""What hooks may do to an operation, and what they may not."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

import nexcage
from nexcage import Config, PluginConfig, Spec, State
from nexcage.testing import SimCluster

SPEC = Spec("local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst", storage="local-zfs")
TOLD = """
import anyio, threading
told = []
class Told:
    async def pre_create(self, intent, machine): told.append(("pre_create", str(machine.state)))
    def post_create(self, done): told.append(("post_create", str(done.state)))
    async def pre_start(self, intent, machine): told.append(("pre_start", str(machine.state)))
    async def post_start(self, done): told.append(("post_start", str(done.state)))
    def failed(self, failure): told.append(("failed", type(failure.error).__name__))
"""
BROKEN = """
import anyio
import anyio.lowlevel
calls = []
class Broken:
    timeout = 2.0
    async def pre_start(self, intent, machine):
        calls.append("pre_start")
        raise ValueError("no more")
class Slow:
    timeout = 2.0
    async def pre_start(self, intent, machine):
        calls.append("slow")
        await anyio.sleep(3600)
    async def failed(self, failure):
        calls.append("failed")
class Typo:
    def pre_strat(self, intent, machine): pass
def nothing():
    raise RuntimeError("it needs a licence")
"""

Install = Callable[..., None]
NUMBERS = itertools.count()  # each package has a module of its own: what was imported stays imported


def module(name: str) -> Any:
    from importlib import import_module

    return import_module(name)


@pytest.fixture
def told(package: Install) -> Any:
    name = f"told_{next(NUMBERS)}"
    package(name, TOLD, hooks=f"told = {name}:Told")
    return module(name).told


@pytest.fixture
def broken(package: Install) -> Any:
    name = f"broken_{next(NUMBERS)}"
    entries = f"broken = {name}:Broken\nslow = {name}:Slow\ntypo = {name}:Typo\nnothing = {name}:nothing"
    package(name, BROKEN, hooks=entries)
    return module(name).calls


def only(name: str, **options: Any) -> Config:
    return Config(plugins={"*": PluginConfig(enabled=False), name: PluginConfig(**options)})


@pytest.mark.sim(nodes=1)
async def test_hooks_are_called_before_it_begins_and_after_it_was_done(sim: SimCluster, told: list[Any]) -> None:
    async with sim.fleet() as fleet:
        await fleet["web-1"].create(SPEC)
        await fleet["web-1"].start()

    assert told == [
        ("pre_create", "absent"), ("post_create", "created"), ("pre_start", "created"), ("post_start", "running"),
    ]  # fmt: skip


@pytest.mark.sim(nodes=1)
async def test_what_is_so_already_or_not_allowed_calls_nothing(sim: SimCluster, told: list[Any]) -> None:
    async with sim.fleet() as fleet:
        await fleet["web-1"].create(SPEC)
        await fleet["web-1"].start()
        del told[:]

        assert not (await fleet["web-1"].start()).changed
        with pytest.raises(nexcage.AlreadyExists):
            await fleet["web-1"].create(SPEC)

    assert told == []


@pytest.mark.sim(nodes=1)
async def test_a_failed_operation_is_told_once(sim: SimCluster, told: list[Any]) -> None:
    async with sim.fleet(limits=nexcage.Limits(retries=0)) as fleet:
        await fleet["web-1"].create(SPEC)
        sim["pve-01"].fault("lock-held", on="pct start", times=9)
        with pytest.raises(nexcage.NexcageError):
            await fleet["web-1"].start()

    assert [what for what, _ in told] == ["pre_create", "post_create", "pre_start", "failed"]


@pytest.mark.sim(nodes=1)
async def test_a_cancelled_operation_is_told_as_failed(sim: SimCluster, told: list[Any]) -> None:
    sim["pve-01"].fault("stall", on="pct create")
    async with sim.fleet() as fleet:
        with anyio.move_on_after(5):
            await fleet["web-1"].create(SPEC)

        assert fleet["web-1"].machine.state is State.UNKNOWN
    assert told == [("pre_create", "absent"), ("failed", "Uncertain")]


@pytest.mark.sim(nodes=1)
async def test_one_that_raises_is_named_unplugged_and_costs_the_operation_nothing(
    sim: SimCluster, broken: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    async with sim.fleet(config=only("broken")) as fleet:
        for id in ("web-1", "web-2"):
            await fleet[id].create(SPEC)
            assert (await fleet[id].start()).state is State.RUNNING

    assert broken == ["pre_start"]
    (line,) = [record.getMessage() for record in caplog.records if "plugin 'broken'" in record.getMessage()]
    assert "unplugged: ValueError: no more" in line


@pytest.mark.sim(nodes=1)
async def test_retry_tries_three_times_before_it_is_unplugged(sim: SimCluster, broken: list[str]) -> None:
    async with sim.fleet(config=only("broken", policy="retry")) as fleet:
        await fleet["web-1"].create(SPEC)
        assert (await fleet["web-1"].start()).state is State.RUNNING

    assert broken == ["pre_start"] * 3


@pytest.mark.sim(nodes=1)
async def test_abort_refuses_every_time_and_nothing_begins(sim: SimCluster, broken: list[str]) -> None:
    async with sim.fleet(config=only("broken", policy="abort")) as fleet:
        await fleet["web-1"].create(SPEC)
        before = fleet.seq
        for _ in range(2):
            with pytest.raises(nexcage.Refused, match="cannot start container 'web-1': plugin 'broken' refuses it"):
                await fleet["web-1"].start()

        assert fleet["web-1"].machine.state is State.CREATED
        assert fleet.seq == before
    assert broken == ["pre_start"] * 2


@pytest.mark.sim(nodes=1)
async def test_one_that_hangs_has_its_deadline(sim: SimCluster, broken: list[str]) -> None:
    async with sim.fleet(config=only("slow")) as fleet:
        await fleet["web-1"].create(SPEC)
        since = anyio.current_time()
        assert (await fleet["web-1"].start()).state is State.RUNNING
        took = anyio.current_time() - since

    assert broken == ["slow"]
    assert 2.0 <= took < 60.0


@pytest.mark.sim(nodes=1)
async def test_whoever_was_asked_before_a_refusal_hears_of_it(sim: SimCluster, broken: list[str]) -> None:
    async with sim.fleet(config=only("slow", policy="abort", timeout=1.0)) as fleet:
        await fleet["web-1"].create(SPEC)
        with pytest.raises(nexcage.Refused, match="it took longer than 1 s"):
            await fleet["web-1"].start()

    assert broken == ["slow", "failed"]


@pytest.mark.sim(nodes=1)
async def test_what_cannot_be_loaded_is_named_and_left_out(
    sim: SimCluster, broken: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    off = PluginConfig(enabled=False)
    async with sim.fleet(config=Config(plugins={"broken": off, "slow": off})) as fleet:
        await fleet["web-1"].create(SPEC)
        assert (await fleet["web-1"].start()).state is State.RUNNING

    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert [("'typo'" in line, "did you mean 'pre_start'?" in line) for line in lines if "typo" in line] == [
        (True, True)
    ]
    assert any("'nothing'" in line and "it needs a licence" in line for line in lines)


def test_the_list_says_what_is_wrong_with_them(broken: list[str]) -> None:
    states = {one.name: (one.state, one.why) for one in nexcage.plugins()}

    assert states["typo"][0] == "failed"
    assert "did you mean 'pre_start'?" in states["typo"][1]
    assert states["broken"] == ("on", "")


async def test_a_plain_function_does_not_hold_up_the_loop(tmp_path: Path) -> None:
    """Real time: a sync hook waits for something that only the loop can do."""
    from random import Random

    from nexcage._engine.hooks import Around, Hooked
    from nexcage._engine.operation import Operation

    go = threading.Event()

    class Waits:
        def pre_start(self, intent: nexcage.Start, machine: nexcage.Machine) -> None:
            assert go.wait(20)

    around = Around([Hooked("waits", Waits(), 30.0, "abort")], Random(1))
    async with anyio.create_task_group() as tasks:
        op = Operation(nexcage.Start("web-1"), "op-1")
        tasks.start_soon(around.before, op, op.intent, nexcage.Machine("web-1"))
        await anyio.lowlevel.checkpoint()
        go.set()


EXITS = """
import sys
class Exits:
    def pre_start(self, intent, machine): sys.exit(3)
class Shy:
    asked = 0
    @property
    def pre_start(self):
        Shy.asked += 1
        if Shy.asked > 1: raise RuntimeError("not now")
        return lambda intent, machine: None
def unmade(): sys.exit(4)
"""


@pytest.mark.sim(nodes=1)
@pytest.mark.parametrize("name", ["Exits", "Shy", "unmade"])
async def test_one_that_wants_the_program_to_end_is_unplugged_instead(
    sim: SimCluster, package: Install, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    made = f"exits_{next(NUMBERS)}"
    package(made, EXITS, hooks=f"one = {made}:{name}")

    async with sim.fleet(config=only("one")) as fleet:
        await fleet["web-1"].create(SPEC)
        assert (await fleet["web-1"].start()).state is State.RUNNING

    assert any("plugin 'one'" in record.getMessage() for record in caplog.records)
