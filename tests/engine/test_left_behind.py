"""What others left behind or broke costs only itself: dead drivers, lost journals, changed containers, broken parts."""

from __future__ import annotations

import shutil
from pathlib import Path

import anyio
import pytest

import nexcage
from nexcage import Command, Config, Create, Limits, Result, Spec, Start, State
from nexcage._sinks.journal import open_journal
from nexcage.testing import SimCluster

DEBIAN = "local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst"
SPEC = Spec(DEBIAN)


@pytest.mark.sim(nodes=1)
async def test_waiting_in_the_queue_is_not_what_an_operation_takes(sim: SimCluster) -> None:
    async with sim.fleet(limits=Limits(op_timeout=10, creates_per_node=1)) as fleet:
        start = anyio.current_time()
        report = await fleet.run(Create(f"web-{n}", SPEC) for n in range(20))
        assert anyio.current_time() - start > 10
        assert report.ok


@pytest.mark.sim(nodes=1)
@pytest.mark.parametrize("how", ["state", "reconcile", "wait"])
async def test_looking_lets_go_of_what_a_dead_driver_began(sim: SimCluster, how: str) -> None:
    async with sim.fleet() as fleet:
        web = fleet["web-1"]
        await web.create(SPEC)
        await web.start()
        machine, at = web.machine, fleet.state_dir
        async with open_journal(at, owner="ghost", fleet=fleet.id) as ghost:
            await ghost.append(machine.begin(nexcage.Stop("web-1"), op_id="lost", owner="ghost"))
            assert (await web.state()).annotations["org.nexcage.state"] == "stopping"  # it is alive

        if how == "state":
            assert (await web.state()).annotations["org.nexcage.state"] == "running"
        elif how == "reconcile":
            await web.reconcile()
        else:
            await web.wait(State.RUNNING, timeout=60)
        assert web.machine.state is State.RUNNING


@pytest.mark.sim(nodes=2)
async def test_a_lost_journal_does_not_make_a_container_twice(sim: SimCluster, tmp_path: Path) -> None:
    config = Config(fleet="f1", state_dir=str(tmp_path / "state"))
    options = {"config": config, "state_dir": tmp_path / "state", "run_dir": tmp_path / "run"}
    async with sim.fleet(**options) as fleet:
        await fleet["web-1"].create(SPEC)
        await fleet["web-2"].create(SPEC)
    shutil.rmtree(tmp_path / "state")
    async with sim.fleet(**options) as fleet:
        for id in ("web-1", "web-2"):
            with pytest.raises(nexcage.AlreadyExists, match="this journal does not know it"):
                await fleet[id].create(SPEC)
        assert sum(len(look.guests) for look in (await fleet.look()).values() if isinstance(look, nexcage.Look)) == 2


@pytest.mark.sim(nodes=1)
async def test_one_that_lost_our_mark_a_moment_ago_is_refused_and_not_unknown(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        web = fleet["web-1"]
        await web.create(SPEC)
        await web.start()
        model, vmid = sim["pve-01"].model, web.machine.vmid
        with sim["pve-01"].step():
            text = model.config(vmid) or ""
            model.files.write(model.config_path(vmid), text.replace("#nexcage fleet", "#other fleet"))
        for intent in (nexcage.Stop("web-1"), nexcage.Kill("web-1"), nexcage.Delete("web-1", force=True)):
            with pytest.raises(nexcage.NotOurs):
                await fleet.do(intent)
            assert model.is_running(vmid)


@pytest.mark.sim(nodes=1)
async def test_what_is_asked_of_a_closed_fleet_ends(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        await fleet["web-1"].create(SPEC)
    with anyio.fail_after(10):
        async with fleet.events.subscribe() as events:
            assert [event async for event in events] == []


@pytest.mark.sim(nodes=1)
async def test_a_sink_that_cannot_even_close_costs_only_itself(sim: SimCluster) -> None:
    class Broken:
        async def put(self, event: nexcage.Event) -> None:
            raise ValueError(event.seq)

        async def aclose(self) -> None:
            raise RuntimeError("not that either")

    async with sim.fleet(sinks=[Broken()]) as fleet:
        assert (await fleet.run([Create("web-1", SPEC), Start("web-1")])).ok


@pytest.mark.sim(nodes=2)
async def test_a_transport_with_a_defect_costs_only_its_node(sim: SimCluster) -> None:
    class Broken:
        async def run(self, command: Command[object]) -> Result:
            raise OSError(24, "Too many open files")

        async def aclose(self) -> None: ...

    def connect(host: nexcage.Host) -> object:
        return Broken() if host.key == "pve-01" else sim.connect(host)

    async with sim.fleet(connect=connect) as fleet:
        assert isinstance((await fleet.look())["pve-01"], nexcage.NodeUnreachable)
        report = await fleet.run(Create(f"web-{n}", SPEC) for n in range(6))
        assert report.ok
        assert {outcome.node for outcome in report} == {"pve-02"}


@pytest.mark.sim(nodes=2)
async def test_a_placement_that_makes_nodes_up_is_told_so(sim: SimCluster) -> None:
    class Elsewhere:
        def place(self, id: str, spec: Spec, nodes: object) -> str:
            return "nowhere"

    async with sim.fleet(placement=Elsewhere()) as fleet:
        with pytest.raises(nexcage.NoRoute, match="nowhere"):
            await fleet["web-1"].create(SPEC)


@pytest.mark.sim(nodes=1)
@pytest.mark.parametrize("ask", ["look", "again", "reopen"])
async def test_a_copy_that_the_loss_of_quorum_leaves_half_made_goes_when_it_is_over(sim: SimCluster, ask: str) -> None:
    spec = Spec.from_container("web-1")
    async with sim.fleet() as fleet:
        await fleet["web-1"].create(SPEC)
        before = sim["pve-01"].model.config(fleet.machines["web-1"].vmid)

        async def lose() -> None:
            for _ in range(1000):  # it can be seen half made, so it is
                await anyio.sleep(0.01)
                if len(sim["pve-01"].model.containers()) == 2:
                    sim["pve-01"].fault("no-quorum")
                    return

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lose)
            with pytest.raises(nexcage.Uncertain):
                await fleet["web-2"].create(spec)
        with pytest.raises(nexcage.NoQuorum, match="half done is removed when its cluster is quorate again"):
            await fleet["web-2"].start()
        sim["pve-01"].fault("quorum")
        if ask == "look":
            await fleet["web-2"].reconcile()
        elif ask == "again":
            await fleet["web-2"].create(spec)
            await fleet["web-2"].delete()
    async with sim.fleet() as fleet:
        await fleet.recover(wait=True)

        assert fleet.machines["web-2"].state is State.ABSENT
        assert sim["pve-01"].model.containers() == [fleet.machines["web-1"].vmid]
        assert sim["pve-01"].model.config(fleet.machines["web-1"].vmid) == before
