"""A cluster that loses its quorum, or a node its power, while something half done is removed: that is not forgotten."""

from __future__ import annotations

import anyio
import pytest

import nexcage
from nexcage import Create, Delete, DelSnapshot, Intent, NexcageError, Snapshot, Spec, State, Uncertain
from nexcage.testing import SimCluster

SPEC = Spec("local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst", storage="local-zfs")
INTENTS: dict[str, Intent] = {
    "create": Create("web", SPEC),
    "destroy": Delete("web"),
    "snapshot": Snapshot("web", "one"),
    "delsnapshot": DelSnapshot("web", "one"),
}


async def prepared(fleet: nexcage.Fleet, intent: Intent) -> None:
    if not isinstance(intent, Create):
        await fleet["web"].create(SPEC)
    if isinstance(intent, DelSnapshot):
        await fleet.do(Snapshot("web", "one"))


async def crash_while_mending(sim: SimCluster, fleet: nexcage.Fleet) -> None:
    while (last := fleet.machines["web"].last) is None or last.tool != "mend":
        await anyio.sleep(0.001)
    await anyio.sleep(0.5)
    sim["pve-01"].crash()
    await anyio.sleep(5)
    sim["pve-01"].restart()


@pytest.mark.sim(nodes=1)
async def test_a_snapshot_whose_node_crashes_while_its_rest_is_removed_is_not_forgotten(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        await fleet["web"].create(SPEC)
        sim["pve-01"].fault("kill-worker", on="pct snapshot")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(crash_while_mending, sim, fleet)
            with pytest.raises(Uncertain):
                await fleet.do(Snapshot("web", "one"))

        await fleet.reconcile("web")

        config = sim["pve-01"].model.config(fleet["web"].machine.vmid) or ""
        assert ("lock:" in config, "snapstate" in config) == (False, False)


async def lose_quorum_while_mending(sim: SimCluster, fleet: nexcage.Fleet, after: int) -> None:
    """Lose it once a step later than ``after`` has begun to mend."""
    while True:
        machine = fleet.machines.get("web")
        if machine is not None and machine.steps > after and machine.last is not None and machine.last.tool == "mend":
            sim["pve-01"].fault("no-quorum")
            return
        await anyio.sleep(0.001)


@pytest.mark.sim(nodes=1)
@pytest.mark.parametrize("tool", INTENTS)
@pytest.mark.parametrize("twice", [False, True])
async def test_what_is_half_done_goes_also_when_quorum_was_lost_while_it_was_removed(
    sim: SimCluster, tool: str, twice: bool
) -> None:
    async with sim.fleet() as fleet:
        intent = INTENTS[tool]
        await prepared(fleet, intent)
        sim["pve-01"].fault("kill-worker", on=f"pct {tool}")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lose_quorum_while_mending, sim, fleet, 0)
            with pytest.raises(Uncertain):
                await fleet.do(intent)
        sim["pve-01"].fault("quorum")
        if twice:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(lose_quorum_while_mending, sim, fleet, fleet["web"].machine.steps)
                with pytest.raises(NexcageError, match="when its cluster is quorate again"):
                    await fleet.reconcile("web")
            sim["pve-01"].fault("quorum")

        await fleet.reconcile("web")

        machine = fleet["web"].machine
        config = sim["pve-01"].model.config(machine.vmid) or ""
        assert machine.state is (State.ABSENT if tool in ("create", "destroy") else State.CREATED)
        assert ("lock:" in config, "snapstate" in config) == (False, False)
        assert sim["pve-01"].model.containers() == ([machine.vmid] if machine.vmid else [])
