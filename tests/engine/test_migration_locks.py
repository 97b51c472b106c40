"""The lock of a migration goes when its own command said that it has failed; whatever else may have left it, it stays and is told."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import pytest

import nexcage
from nexcage import Spec
from nexcage.testing import SimCluster
from nexcage.testing.cluster import SimNode

SPEC = Spec("local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst", node="pve-01", storage="local-zfs")


async def when_locked(node: SimNode, vmid: int, then: Callable[[], object]) -> None:
    """Do it when that is being moved."""
    for _ in range(2000):  # it can be seen with its lock, so it is
        await anyio.sleep(0.01)
        if "lock: migrate" in (node.model.config(vmid) or ""):
            then()
            return


async def moved(sim: SimCluster, fault: str) -> tuple[nexcage.NexcageError, int]:
    """How a migration ends under which that happens; the container's VMID."""
    node = sim["pve-01"]
    async with sim.fleet() as fleet:
        web = fleet["web"]
        await web.create(SPEC)
        vmid = web.machine.vmid
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(when_locked, node, vmid, lambda: node.fault(fault))
            with pytest.raises(nexcage.NexcageError) as told:
                await web.migrate("pve-02")
        return told.value, vmid


@pytest.mark.sim(nodes=2)
async def test_a_migration_that_lost_the_quorum_leaves_no_lock_when_that_is_back(sim: SimCluster) -> None:
    node = sim["pve-01"]
    error, vmid = await moved(sim, "no-quorum")
    assert "lock: migrate" in (node.model.config(vmid) or "")
    node.fault("quorum")
    async with sim.fleet() as fleet:
        await fleet.recover(wait=True)

        assert isinstance(error, nexcage.Uncertain)
        assert "lock:" not in (node.model.config(vmid) or "")
        (end,) = (e for e in nexcage.read_journal(fleet.state_dir) if isinstance(e, nexcage.Failed))
        assert end.op is nexcage.Op.MIGRATE
        assert end.resolved_by == "repair"
        seq = fleet.seq
        await fleet.recover(wait=True)
        assert fleet.seq == seq
        assert (await fleet["web"].start()).changed


@pytest.mark.sim(nodes=2)
async def test_the_lock_that_somebody_else_s_migration_took_meanwhile_stays(sim: SimCluster) -> None:
    node = sim["pve-01"]
    _, vmid = await moved(sim, "no-quorum")
    node.fault("quorum")
    await node.run(["pct", "unlock", str(vmid)])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(when_locked, node, vmid, lambda: node.fault("no-quorum"))
        theirs = await node.run(["pct", "migrate", str(vmid), "pve-02"])
    node.fault("quorum")
    assert theirs.exit
    async with sim.fleet() as fleet:
        await fleet.recover(wait=True)

        assert "lock: migrate" in (node.model.config(vmid) or "")


def locked(node: SimNode, vmid: int) -> None:
    """As somebody else's migration leaves it, which was killed."""
    text = node.model.config(vmid) or ""
    with node.step():
        node.model.write_config(vmid, text.replace("\nmemory:", "\nlock: migrate\nmemory:"))


@pytest.mark.sim(nodes=2)
async def test_the_lock_that_was_there_before_our_migration_stays_and_its_way_out_is_told(sim: SimCluster) -> None:
    node = sim["pve-01"]
    async with sim.fleet() as fleet:
        web = fleet["web"]
        await web.create(SPEC)
        vmid = web.machine.vmid
        locked(node, vmid)
        with pytest.raises(nexcage.NexcageError) as told:
            await web.migrate("pve-02")
    async with sim.fleet() as fleet:
        await fleet.recover(wait=True)

        assert "lock: migrate" in (node.model.config(vmid) or "")
        assert f"`pct unlock {vmid}` on pve-01" in "".join(told.value.__notes__)


@pytest.mark.sim(nodes=2)
async def test_the_lock_of_one_whose_node_went_down_stays_and_its_way_out_is_told(sim: SimCluster) -> None:
    node = sim["pve-01"]
    error, vmid = await moved(sim, "crash")
    locked(node, vmid)
    node.restart()
    async with sim.fleet() as fleet:
        await fleet.recover(wait=True)

        assert isinstance(error, nexcage.Uncertain)
        assert "lock: migrate" in (node.model.config(vmid) or "")
        (end,) = (e for e in nexcage.read_journal(fleet.state_dir) if isinstance(e, nexcage.Failed))
        assert f"`pct unlock {vmid}` on pve-01" in end.error.message
