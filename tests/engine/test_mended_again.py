"""What is removed may not go at once either: it is tried again, and what our own commands ran before is not taken for somebody else's."""

from __future__ import annotations

import anyio
import pytest

import nexcage
from nexcage import Create, Delete, Spec, State
from nexcage.testing import SimCluster, faults

SPEC = Spec("local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst")


async def half_deleted(sim: SimCluster) -> int:
    """A container that neither its delete nor the repairs of that could remove; its VMID."""
    node = sim["pve-01"]
    async with sim.fleet() as fleet:
        web = fleet["web"]
        await web.create(SPEC)
        vmid = web.machine.vmid
        node.fault("kill-worker", on="pct destroy")
        node.fault("kill-worker", on="mend")
        with pytest.raises(nexcage.NexcageError):
            await web.delete()
    await repaired(sim, killed=True)
    assert node.model.config(vmid) is not None
    return vmid


async def repaired(sim: SimCluster, *, killed: bool = False) -> State:
    """What recovery makes of it; ``killed``: each time that its command changes something."""
    node = sim["pve-01"]
    if killed:
        node.fault("kill-worker", on="mend", times=0)
    async with sim.fleet() as fleet:
        await fleet.recover(wait=True)
        state = fleet["web"].machine.state
    with node.step():
        faults.update(node.model, faults=[])
    return state


@pytest.mark.sim(nodes=1)
async def test_a_delete_whose_repair_was_killed_too_is_finished_by_the_next_one(sim: SimCluster) -> None:
    vmid = await half_deleted(sim)

    assert await repaired(sim) is State.ABSENT
    assert sim["pve-01"].model.config(vmid) is None


@pytest.mark.sim(nodes=1)
@pytest.mark.parametrize("times", [2, 3])
async def test_it_goes_however_often_its_repair_was_killed(sim: SimCluster, times: int) -> None:
    vmid = await half_deleted(sim)
    for _ in range(times):
        assert await repaired(sim, killed=True) is State.UNKNOWN

    assert await repaired(sim) is State.ABSENT
    assert sim["pve-01"].model.config(vmid) is None
    async with sim.fleet() as fleet:
        assert (await fleet.run([Create("web", SPEC), Delete("web")])).ok


@pytest.mark.sim(nodes=1)
async def test_what_somebody_else_destroyed_between_two_repairs_stays(sim: SimCluster) -> None:
    vmid, node = await half_deleted(sim), sim["pve-01"]
    await node.run(["pct", "unlock", str(vmid)])
    node.fault("kill-worker", on="pct destroy")
    await node.run(["pct", "destroy", str(vmid)])
    await anyio.sleep(60)

    assert await repaired(sim) is State.UNKNOWN
    assert node.model.config(vmid) == "lock: destroyed\n"
    async with sim.fleet() as fleet:
        with pytest.raises(nexcage.Blocked, match=f"pct unlock {vmid}"):
            await fleet.observe("web")


@pytest.mark.sim(nodes=1)
async def test_one_that_somebody_has_made_there_between_two_repairs_stays(sim: SimCluster) -> None:
    vmid, node = await half_deleted(sim), sim["pve-01"]
    with node.step():
        node.model.remove_config(vmid)
    made = await node.run(["pct", "create", str(vmid), str(SPEC.image), "--storage", "local-zfs"])
    node.fault("kill-worker", on="pct destroy")
    await node.run(["pct", "destroy", str(vmid)])
    await anyio.sleep(60)

    assert made.exit == 0
    assert await repaired(sim) is State.UNKNOWN
    assert node.model.config(vmid) == "lock: destroyed\n"
