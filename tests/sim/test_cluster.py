"""A cluster in memory: what tests lean on."""

from __future__ import annotations

import re

import anyio
import pytest

import nexcage
from nexcage import Command
from nexcage._core.command import nothing
from nexcage.testing import FAULTS, Fault, SimCluster, virtual_run
from nexcage.testing.clock import backend

DEBIAN = "local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst"

both_loops = pytest.mark.parametrize("anyio_backend", [backend("asyncio"), backend("trio")], ids=["asyncio", "trio"])


def pct(*words, **options):
    return Command(("pct", *map(str, words)), parse=nothing, **options)


@both_loops
async def test_a_life_on_a_simulated_cluster(sim, anyio_backend):
    async with sim.fleet() as fleet:
        web = fleet["web-1"]
        await web.create(nexcage.Spec(image=DEBIAN, memory=512))
        await web.start()
        assert re.fullmatch(r"<Container web-1: running, pid \d+, lxc \d+ on pve-0\d>", repr(web))
        await web.kill("HUP")
        await web.pause()
        await web.resume()
        await web.stop(timeout=30)
        await web.delete()
    assert [effect["exit"] for effect in sim.effects()] == [0] * len(sim.effects())


async def test_tools_take_the_time_that_they_take(sim):
    began = anyio.current_time()
    await sim["pve-01"].run(["pct", "list"])
    assert 0.5 < anyio.current_time() - began < 2


@pytest.mark.sim(pace=0.0)
async def test_pace_nought_takes_none(sim):
    began = anyio.current_time()
    await sim["pve-01"].run(["pct", "create", "100", DEBIAN])
    assert anyio.current_time() == began


async def test_a_second_fleet_goes_on_where_the_first_one_ended(sim):
    async with sim.fleet() as fleet:
        await fleet["web-1"].create(nexcage.Spec(image=DEBIAN))
        first = fleet.id
    async with sim.fleet() as fleet:
        assert fleet.id == first
        await fleet["web-1"].start()


async def test_a_command_outlives_the_fleet_that_started_it(sim):
    transport = sim.transport("pve-01")
    await transport.run(pct("create", 100, DEBIAN))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(transport.run, pct("start", 100))
        await anyio.sleep(1.2)  # it is past its start-up
        await transport.aclose()
    await anyio.sleep(60)
    assert sim["pve-01"].model.is_running(100)


async def test_a_partition_costs_the_link_when_it_lasts(sim):
    transport = sim.transport("pve-01")
    await transport.run(pct("list"))
    sim["pve-01"].partition()
    with pytest.raises(nexcage.NodeError):
        await transport.run(pct("list"))
    with pytest.raises(nexcage.NodeUnreachable, match="no answer within"):
        await sim.transport("pve-01").run(pct("list"))
    await anyio.sleep(120)
    sim["pve-01"].heal()
    assert (await transport.run(pct("list"))).exit == 0


async def test_a_running_command_loses_its_answer_to_a_long_partition(sim):
    transport = sim.transport("pve-01")
    await transport.run(pct("create", 100, DEBIAN))
    sim["pve-01"].fault("partition", on="pct start")
    result = await transport.run(pct("start", 100))
    assert (result.exit, result.lost) == (None, "link")
    assert sim["pve-01"].model.is_running(100)


async def test_a_deadline_under_a_partition_leaves_the_command_to_itself(sim):
    transport = sim.transport("pve-01")
    await transport.run(pct("create", 100, DEBIAN))
    sim["pve-01"].fault("partition", on="pct start")
    result = await transport.run(pct("start", 100, timeout=10.0, cancel="term"))
    assert (result.exit, result.lost) == (None, "deadline")


async def test_cancelling_the_caller_ends_the_command_by_its_class(sim):
    transport = sim.transport("pve-01")
    sim["pve-01"].fault("stall", on="pct create")
    with anyio.move_on_after(5):
        await transport.run(pct("create", 100, DEBIAN, cancel="term"))
    assert sim["pve-01"].model.config(100) is None
    assert not sim["pve-01"].calls


async def test_a_deaf_command_is_killed_in_class_kill(sim):
    sim["pve-01"].fault("stall", on="pct list", deaf=True)
    result = await sim.transport("pve-01").run(pct("list", timeout=3.0))
    assert (result.exit, result.lost) == (None, "deadline")
    assert not sim["pve-01"].calls


async def test_a_changed_host_key_is_never_taken(sim):
    transport = sim.transport("pve-01")
    await transport.run(pct("list"))
    sim["pve-01"].fault("host-key")
    with pytest.raises(nexcage.HostKeyRejected):
        await transport.run(pct("list"))
    assert (await sim.transport("pve-01").run(pct("list"))).exit == 0  # somebody who has not seen the old one


async def test_the_flock_can_be_somebody_elses(sim):
    transport = sim.transport("pve-01")
    await transport.run(pct("create", 100, DEBIAN))
    sim["pve-01"].fault("lock-held", on="pct start")
    result = await transport.run(pct("start", 100))
    assert b"got timeout" in result.stderr
    assert 10 < result.seconds < 14


async def test_inits_react_as_they_are_told(sim):
    sim.inits("stubborn")
    async with sim.fleet() as fleet:
        web = fleet["web-1"]
        await web.create(nexcage.Spec(image=DEBIAN))
        await web.start()
        done = await web.stop(timeout=5)
        assert done.seconds > 5
        assert done.state is nexcage.State.STOPPED


async def test_a_stream_comes_as_it_is_printed(sim):
    sim["pve-01"].fault("endless", on="pct list")
    async with sim.transport("pve-01").stream(pct("list")) as stream:
        async for kind, data in stream:
            assert (kind, data[:8]) == ("stdout", b"nexcage\n")
            break
    assert not sim["pve-01"].calls


@pytest.mark.parametrize(
    ("answer", "exit", "stdout"),
    [
        (None, 0, b""),
        ("text", 0, b"text"),
        (b"bytes", 0, b"bytes"),
        (3, 3, b""),
        ((1, "out"), 1, b"out"),
        (nexcage.Result(4, b"result"), 4, b"result"),
    ],
)
async def test_a_taught_program_answers_as_it_likes(sim, answer, exit, stdout):
    sim.teach("frob", lambda argv, stdin: answer)
    result = await sim["pve-02"].run(["frob", "--now"])
    assert (result.exit, result.stdout) == (exit, stdout)


async def test_a_taught_program_may_be_a_generator(sim):
    from nexcage.testing._model.tool import Sleep

    def frob(ctx):
        yield Sleep(30)
        ctx.out(" ".join(ctx.argv))
        return 0

    sim.teach("frob", frob)
    result = await sim["pve-02"].run(["frob", "now"])
    assert result.stdout == b"frob now"
    assert anyio.current_time() >= 30


async def test_a_broken_taught_program_costs_only_itself(sim):
    def frob(argv):
        raise RuntimeError("oops")

    sim.teach("frob", frob)
    result = await sim["pve-02"].run(["frob"])
    assert result.exit == 70
    assert b"oops" in result.stderr
    assert (await sim["pve-02"].run(["pct", "list"])).exit == 0


@pytest.mark.parametrize("kind", sorted(FAULTS))
def test_every_fault_has_a_meaning_and_can_be_scripted(kind):
    with SimCluster(nodes=1) as sim:
        sim["pve-01"].fault(kind, on="pct create", times=3)
    assert FAULTS[kind]


@pytest.mark.parametrize("kind", ["", "crush", "drop", "crash-now", None, 3])
def test_other_faults_are_refused(kind):
    with pytest.raises(nexcage.InvalidInput, match="drop-before"):
        Fault(kind)


@pytest.mark.parametrize("kind", ["Crash", "changed host key", "non-UTF-8", "lock held", "wrong_exit"])
def test_a_fault_may_be_said_as_people_say_it(kind):
    with SimCluster(nodes=1) as sim:
        sim["pve-01"].fault(kind)
        assert sim["pve-01"].down is (kind == "Crash")


@pytest.mark.parametrize("times", [-1, True, "2", 1.5])
def test_a_fault_happens_a_whole_number_of_times(times):
    with pytest.raises(nexcage.InvalidInput, match="times"):
        Fault("crash", times=times)


def test_a_fault_is_for_the_commands_that_begin_like_it():
    fault = Fault("crash", on="pct create")
    assert fault.matches(("pct", "create", "100"))
    assert not fault.matches(("pct", "start", "100"))
    assert not fault.matches(("pct",))
    assert Fault("crash").matches(("anything",))


async def thousand_nodes():
    with SimCluster(nodes=1000, seed=1, pace=0.0) as sim:
        async with anyio.create_task_group() as tasks:
            for name in sim.hosts:
                tasks.start_soon(sim.transport(name).run, pct("list"))


def test_a_thousand_nodes_are_not_much():
    virtual_run(thousand_nodes)
