"""Containers that somebody else moves to another node while we work on them are neither lost nor looked for in the wrong place."""

from __future__ import annotations

import anyio
import pytest

import nexcage
from nexcage import Create, Spec, State
from nexcage.testing import SimCluster

SPEC = Spec("local:vztmpl/alpine-3.20-default_20240908_amd64.tar.xz", storage="local-zfs")


@pytest.mark.sim(nodes=2)
async def test_a_container_that_is_moved_under_a_delete_is_still_ours(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        web = fleet["web-1"]
        made = await web.create(SPEC)
        sim[made.node].fault("migrate", on="pct destroy")
        with pytest.raises(nexcage.NexcageError):
            await web.delete()
        left = web.machine.state
        await fleet.reconcile()
        there = web.machine
        await web.delete()

    assert left is State.CREATED
    assert there.node != made.node
    assert not any(node.model.containers() for node in sim)


@pytest.mark.sim(nodes=2)
async def test_two_who_find_out_at_once_that_it_has_moved_both_go_to_its_new_node(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        made = await fleet.do(Create("web-1", SPEC))
        await anyio.sleep(10)
        sim[made.node].fault("migrate", vmid=made.vmid)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(fleet.states, "web-1")
            tasks.start_soon(fleet["web-1"].delete)

    assert not any(node.model.containers() for node in sim)


@pytest.mark.sim(nodes=2)
async def test_a_new_container_that_is_moved_before_anybody_saw_it_is_found(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        report: list[nexcage.Report] = []

        async def create() -> None:
            report.append(await fleet.run([Create("web-1", SPEC)]))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(create)
            await anyio.sleep(0.5)
            (node,) = (node for node in sim if node.calls)
            node.partition()
            await anyio.sleep(5)
            (vmid,) = node.model.containers()
            node.fault("migrate", vmid=vmid)
            node.heal()
        await fleet.reconcile()
        there = fleet["web-1"].machine
        await fleet["web-1"].delete()

    assert there.state is State.CREATED
    assert there.node not in ("", node.name)
    assert not any(one.model.containers() for one in sim)
