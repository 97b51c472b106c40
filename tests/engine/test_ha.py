"""Containers that the HA manager has: requests return early, so the engine waits for the state and says who did it."""

from __future__ import annotations

import pytest

import nexcage
from nexcage import CommandFailed, Create, Failed, Migrate, Spec, Start, State, Stop
from nexcage.testing import SimCluster

SPEC = Spec("local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst", node="pve-01", storage="local-zfs")
NOTE = ("done by the HA manager, which was asked for it",)


async def managed(sim: SimCluster, fleet: nexcage.Fleet, seconds: float = 40.0) -> None:
    """A container of ours that is handed to the HA manager, which takes its time."""
    done = await fleet.do(Create("web-1", SPEC))
    sim["pve-01"].fault("ha-delay", vmid=done.vmid, seconds=seconds)


@pytest.mark.sim(nodes=1)
async def test_a_start_is_done_when_it_runs_and_a_stop_when_it_does_not(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        await managed(sim, fleet)

        done = await fleet.do(Start("web-1"))
        assert (done.state, done.notes) == (State.RUNNING, NOTE)
        assert done.seconds > 40
        assert sim["pve-01"].model.is_running(done.vmid)

        done = await fleet.do(Stop("web-1", timeout=30))
        assert (done.state, done.notes) == (State.STOPPED, NOTE)
        assert not sim["pve-01"].model.is_running(done.vmid)


@pytest.mark.sim(nodes=2)
async def test_a_running_one_is_moved_when_it_runs_on_its_new_node(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        await managed(sim, fleet)
        await fleet.do(Start("web-1"))

        done = await fleet.do(Migrate("web-1", "pve-02", restart=True))

        assert (done.node, done.state, done.notes) == ("pve-02", State.RUNNING, NOTE)
        assert done.pid
        assert sim["pve-02"].model.is_running(done.vmid)
        assert sim["pve-01"].model.containers() == []
        assert (await fleet["web-1"].stop()).node == "pve-02"


@pytest.mark.sim(nodes=2)
async def test_a_stopped_one_is_moved_and_stays_stopped(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        await managed(sim, fleet)
        done = await fleet.do(Migrate("web-1", "pve-02"))
        assert (done.node, done.state) == ("pve-02", State.CREATED)


@pytest.mark.sim(nodes=1)
async def test_a_manager_that_never_comes_round_is_named(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        await managed(sim, fleet, seconds=100_000)
        with pytest.raises(CommandFailed, match="HA manager was asked and has not done it in 180 s") as failure:
            await fleet.do(Start("web-1"))
        assert "see `ha-manager status` there" in failure.value.__notes__
        assert fleet["web-1"].machine.state is State.CREATED
        async with fleet.events.subscribe(since=fleet.seq - 1) as events:
            assert isinstance(await anext(aiter(events)), Failed)


@pytest.mark.sim(nodes=1)
async def test_others_are_not_waited_for_longer_than_the_settings_say(sim: SimCluster) -> None:
    async with sim.fleet(limits=nexcage.Limits(settle_timeout=5)) as fleet:
        await fleet.do(Create("web-1", SPEC))
        assert (await fleet.do(Start("web-1"))).notes == ()
