"""Many intents at once: in order where order matters, as they finish where it does not, and honest when it is left early."""

from __future__ import annotations

from collections.abc import Iterator

import anyio
import pytest

import nexcage
from nexcage import Config, Create, Delete, Host, Intent, InvalidInput, Kill, Limits, NotFound, Start, State, Stop
from nexcage._engine.fleet import OUTSTANDING
from nexcage.abc import Transport
from nexcage.testing import SimCluster

DEBIAN = "local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst"
SPEC = nexcage.Spec(DEBIAN, storage="local-zfs")


# ---- run -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.sim(nodes=2)
async def test_a_report_has_the_outcomes_in_the_order_of_the_intents(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        ids = [f"web-{n}" for n in range(20)]
        report = await fleet.run(Create(id, SPEC) for id in ids)
        assert [outcome.id for outcome in report] == ids
        wanted: list[Intent] = [Start(ids[3]), Start("ghost"), Stop(ids[4]), Start(ids[0])]
        report = await fleet.run(wanted)
        assert [outcome.intent for outcome in report] == wanted
        assert [failure.id for failure in report.failures] == ["ghost"]


@pytest.mark.sim(nodes=2)
async def test_intents_for_one_container_run_in_the_order_given(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        report = await fleet.run(
            [
                Create("web-1", SPEC), Start("web-1"), Create("web-2", SPEC), Kill("web-1", signal="HUP"), Stop("web-1", timeout=20),
                Start("web-2"), Start("web-1"), Delete("web-1", force=True), Create("web-1", SPEC),
            ]
        )  # fmt: skip
        report.raise_for_failures()
        states = [str(outcome.state) for outcome in report]
    assert states == ["created", "running", "created", "running", "stopped", "running", "running", "absent", "created"]


@pytest.mark.sim(nodes=1)
async def test_the_same_intent_twice_in_a_batch_has_one_effect(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        await fleet["web-1"].create(SPEC)
        report = await fleet.run([Start("web-1")] * 4)
        assert [done.changed for done in report.done] == [True, False, False, False]
        report = await fleet.run(
            [Create("web-2", SPEC, "key-1"), Create("web-2", SPEC, "key-1"), Create("web-2", SPEC)]
        )
        assert [done.op_id for done in report.done] == ["key-1", "key-1"]
        assert [type(failure.error) for failure in report.failures] == [nexcage.AlreadyExists]
    assert len([effect for effect in sim.effects() if "create" in effect["argv"]]) == 2


@pytest.mark.sim(nodes=1)
async def test_what_is_no_intent_is_refused_before_anything_runs(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        for bad in ("web-1", None, SPEC, Start):
            with pytest.raises(InvalidInput, match="intent"):
                await fleet.run([Create("web-1", SPEC), bad])  # type: ignore[list-item]
        assert (fleet.seq, sim.effects()) == (0, [])


@pytest.mark.sim(nodes=1)
async def test_an_empty_batch_is_done(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        assert list(await fleet.run([])) == []
        async with fleet.stream([]) as outcomes:
            assert [outcome async for outcome in outcomes] == []


# ---- stream --------------------------------------------------------------------------------------------------------------------


@pytest.mark.sim(nodes=1)
async def test_outcomes_come_as_they_finish(sim: SimCluster) -> None:
    sim.inits("stubborn")
    async with sim.fleet() as fleet:
        await fleet.run([Create("slow", SPEC), Create("quick", SPEC), Start("slow")])
        order: list[str] = []
        async with fleet.stream([Stop("slow", timeout=300), Start("quick"), Start("ghost")]) as outcomes:
            order = [outcome.id async for outcome in outcomes]
    assert order == ["ghost", "quick", "slow"]


@pytest.mark.sim(nodes=2)
async def test_leaving_a_stream_early_records_what_had_begun_as_interrupted(sim: SimCluster) -> None:
    async with sim.fleet(limits=Limits(per_node=1)) as fleet:
        ids = [f"web-{n}" for n in range(10)]
        async with fleet.stream(Create(id, SPEC) for id in ids) as outcomes:
            first = await anext(outcomes)
        begun = [id for id in ids if id in fleet.machines]
        assert first.id in begun
        assert len(begun) < 6
        for id in begun:
            machine = fleet.machines[id]
            assert machine.running is None
            if machine.state is State.UNKNOWN:
                assert isinstance(machine.done[-1], nexcage.Interrupted)
        assert any(fleet.machines[id].state is State.UNKNOWN for id in begun)

        await fleet.reconcile()

        assert all(machine.state in (State.ABSENT, State.CREATED) for machine in fleet.machines.values())
        assert (await fleet.run(Create(id, SPEC) for id in ids if fleet[id].machine.state is State.ABSENT)).ok
    assert sum(len(node.model.containers()) for node in sim) == 10


@pytest.mark.sim(nodes=1)
async def test_the_callers_exception_comes_out_bare(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        with pytest.raises(ZeroDivisionError):
            async with fleet.stream([Create("web-1", SPEC), Create("web-2", SPEC)]) as outcomes:
                async for _ in outcomes:
                    raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError):
        async with sim.fleet():
            raise ZeroDivisionError


@pytest.mark.sim(nodes=1)
async def test_intents_that_break_while_they_are_made_break_bare_after_those_before_them(sim: SimCluster) -> None:
    def broken() -> Iterator[Intent]:
        yield Create("web-1", SPEC)
        raise ZeroDivisionError

    def wrong() -> Iterator[Intent]:
        yield Create("web-2", SPEC)
        yield "web-3"  # type: ignore[misc]

    async with sim.fleet() as fleet:
        found: list[str] = []
        with pytest.raises(ZeroDivisionError):
            async with fleet.stream(broken()) as outcomes:
                found += [outcome.id async for outcome in outcomes]
        with pytest.raises(InvalidInput):
            async with fleet.stream(wrong()) as outcomes:
                found += [outcome.id async for outcome in outcomes]
        assert found == ["web-1", "web-2"]
        assert [container.id for container in fleet] == ["web-1", "web-2"]


@pytest.mark.sim(nodes=1)
async def test_outcomes_that_nobody_takes_hold_back_the_intents(sim: SimCluster) -> None:
    made = 0

    def many() -> Iterator[Intent]:
        nonlocal made
        for n in range(OUTSTANDING + 100):
            made += 1
            yield Start(f"ghost-{n}")

    async with sim.fleet() as fleet, fleet.stream(many()) as outcomes:
        await anyio.sleep(60)
        assert made <= OUTSTANDING + 1
        assert len([outcome async for outcome in outcomes]) == made == OUTSTANDING + 100


@pytest.mark.sim(nodes=1)
async def test_a_cancel_goes_through_run_and_is_recorded(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        with anyio.move_on_after(0.5) as scope:
            await fleet.run([Create("web-1", SPEC), Start("web-1")])
        assert scope.cancelled_caught
        assert fleet["web-1"].machine.state is State.UNKNOWN


# ---- deadlines -----------------------------------------------------------------------------------------------------------------


@pytest.mark.sim(nodes=1)
async def test_an_operation_that_takes_too_long_is_unknown_and_says_so(sim: SimCluster) -> None:
    sim.inits("stubborn")
    async with sim.fleet(limits=Limits(op_timeout=30)) as fleet:
        web = fleet["web-1"]
        await web.create(SPEC)
        await web.start()
        start = anyio.current_time()

        with pytest.raises(nexcage.NodeTimeout, match="op_timeout") as late:
            await web.stop(timeout=600)

        assert late.value.uncertain
        assert anyio.current_time() - start < 120
        assert web.machine.state is State.UNKNOWN
        await web.reconcile()
        alive = sim["pve-01"].model.is_running(web.machine.vmid)
        assert web.machine.state is (State.RUNNING if alive else State.STOPPED)


@pytest.mark.sim(nodes=1)
async def test_one_that_ran_out_of_time_before_it_began_is_certain(sim: SimCluster) -> None:
    async with sim.fleet(limits=Limits(op_timeout=5)) as fleet:
        web = fleet["web-1"]
        await web.create(SPEC)
        await anyio.sleep(5)  # so that the last look is too old to decide by
        sim["pve-01"].fault("stall", on="sh", times=0)
        seq = fleet.seq
        with pytest.raises(nexcage.NodeTimeout) as late:
            await web.start()
        assert not late.value.uncertain
        assert (fleet.seq, web.machine.state) == (seq, State.CREATED)


# ---- finding and looking -------------------------------------------------------------------------------------------------------


@pytest.mark.sim(nodes=1)
async def test_a_container_is_found_by_its_id_and_else_by_its_number(sim: SimCluster) -> None:
    async with sim.fleet(config=Config(vmids=(200, 201))) as fleet:
        vmid = (await fleet["web-1"].create(SPEC)).vmid
        other = 401 - vmid
        assert await fleet.find("web-1") == "web-1"
        assert await fleet.find(str(vmid)) == "web-1"
        assert await fleet.find("nobody") == "nobody"
        assert await fleet.find("100") == "100"
        await fleet[str(vmid)].create(nexcage.Spec(DEBIAN, storage="local-zfs", hostname="other"))
        assert await fleet.find(str(vmid)) == str(vmid)  # an exact id beats a number
        assert await fleet.find(str(other)) == str(vmid)
        await fleet[str(vmid)].delete()
        assert await fleet.find(str(vmid)) == "web-1"
        for bad in ("", "a b", "-x", "a" * 200):
            with pytest.raises(InvalidInput):
                await fleet.find(bad)


async def test_a_number_on_two_nodes_is_refused_with_both_places(virtual_time: object) -> None:
    """Two stand-alone nodes know nothing of each other's numbers."""
    with SimCluster(["a-01"], seed=1) as a, SimCluster(["b-01"], seed=2) as b:

        def connect(host: Host) -> Transport:
            return (a if host.key == "a-01" else b).connect(host)

        async with a.fleet(["a-01", "b-01"], connect=connect, config=Config(vmids=(200, 200))) as fleet:
            await fleet["web-1"].create(nexcage.Spec(DEBIAN, storage="local-zfs", node="a-01"))
            await fleet["web-2"].create(nexcage.Spec(DEBIAN, storage="local-zfs", node="b-01"))
            with pytest.raises(InvalidInput) as both:
                await fleet.find("200")
            assert await fleet.find("web-2") == "web-2"
    for word in ("'web-1' on a-01", "'web-2' on b-01"):
        assert word in both.value.reason


@pytest.mark.sim(nodes=2)
async def test_states_of_all_take_one_look_per_node(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        await fleet.run([Create(f"web-{n}", SPEC) for n in range(12)])
        await fleet.run([Start(f"web-{n}") for n in range(0, 12, 2)])
        await fleet["web-11"].delete()
        sim["pve-01"].fault("slow", on="sh", times=0, seconds=0.0)

        states = await fleet.states()

    assert sorted(states) == sorted(f"web-{n}" for n in range(11))
    assert {states[f"web-{n}"].status for n in range(0, 11, 2)} == {"running"}
    assert {states[f"web-{n}"].status for n in range(1, 11, 2)} == {"created"}


@pytest.mark.sim(nodes=2)
async def test_the_state_of_a_container_whose_node_is_away_is_the_last_one_and_says_so(sim: SimCluster) -> None:
    async with sim.fleet(limits=Limits(retries=0)) as fleet:
        for n in (1, 2):
            await fleet[f"web-{n}"].create(nexcage.Spec(DEBIAN, storage="local-zfs", node=f"pve-0{n}"))
        sim["pve-02"].crash()

        states = await fleet.states()

        assert "org.nexcage.stale" not in states["web-1"].annotations
        assert states["web-2"].annotations["org.nexcage.stale"] == "true"
        assert states["web-2"].status == "created"


@pytest.mark.sim(nodes=1)
async def test_the_state_of_what_is_gone_is_not_found(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        await fleet.run([Create("web-1", SPEC), Create("web-2", SPEC)])
        await sim["pve-01"].run(["pct", "destroy", str(fleet["web-1"].machine.vmid)])
        with pytest.raises(NotFound):
            await fleet.states("web-1", "web-2")
        assert list(await fleet.states()) == ["web-2"]
        with pytest.raises(NotFound):
            await fleet.states("nobody")
        assert await fleet.find("web-1") == "web-1"


@pytest.mark.sim(nodes=2)
async def test_selecting_is_by_what_the_journal_says(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        tagged = nexcage.Spec(DEBIAN, storage="local-zfs", tags=("Web",), node="pve-02")
        await fleet.run([Create("web-1", tagged), Create("web-2", tagged), Create("db-1", SPEC), Start("web-2")])
        assert fleet.select("") == ["db-1", "web-1", "web-2"]
        assert fleet.select("tag=web state=created") == ["web-1"]
        assert fleet.select("id~^web- node=pve-02") == ["web-1", "web-2"]
        await fleet["web-1"].delete()
        assert fleet.select("tag=web") == ["web-2"]


@pytest.mark.sim(nodes=2)
async def test_looking_at_nodes_gives_each_its_look_or_its_error(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        sim["pve-02"].crash()
        seen = await fleet.look()
        assert list(seen) == ["pve-01", "pve-02"]
        assert isinstance(seen["pve-01"], nexcage.Look)
        assert isinstance(seen["pve-02"], nexcage.NodeUnreachable)
        with pytest.raises(NotFound, match="pve-09"):
            await fleet.look("pve-09")


@pytest.mark.sim(nodes=3)
async def test_patterns_open_the_same_nodes_however_they_are_given(sim: SimCluster) -> None:
    for given in ("pve-0[1-2]", ["pve-0[1-2]"], [Host("pve-01"), "pve-02"], iter(["pve-01", "pve-02", "pve-01"])):
        async with sim.fleet(given) as fleet:
            assert list(fleet.nodes) == ["pve-01", "pve-02"]
    for bad in ("", [], ["pve-[2-1]"], [5]):
        with pytest.raises(InvalidInput):
            async with sim.fleet(bad):
                pass
