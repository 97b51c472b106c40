"""A template and its linked copies, when others drive the one and the other."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

import nexcage
from nexcage import Blocked, Busy, Spec, State
from nexcage._core.events import Interrupted, Problem
from nexcage._sinks.journal import open_journal
from nexcage.testing import SimCluster
from nexcage.tools import lxc, pct
from tests.engine.test_recovery import SPEC, Ghost


async def left_cloning(sim: SimCluster, fleet: nexcage.Fleet, *, interrupted: bool) -> None:
    """A linked clone of ``base`` that runs on its node, and whose driver is no more, or has given it up."""
    base, wanted = fleet["base"].machine, nexcage.Create("web-1", Spec.from_container("base", linked=True))
    async with open_journal(fleet.state_dir, owner="ghost", fleet=fleet.id) as journal:
        ghost = Ghost(sim, fleet, journal)
        began = await ghost.begin(wanted)
        made = nexcage.Mark(fleet.id, "web-1", 7777, began.op_id)
        source = nexcage.Mark(fleet.id, "base", base.vmid, base.mark)
        command = pct.clone(base.vmid, 7777, full=False, hostname="web-1", description=str(made))
        await ghost.step(began, lxc.guarded(source, command))
        if interrupted:
            lost = Problem.of(nexcage.Uncertain(began.op_id, "no answer"))
            await journal.append(Interrupted(id="web-1", op=began.op, op_id=began.op_id, error=lost))


@pytest.mark.sim(nodes=1)
@pytest.mark.parametrize("interrupted", [False, True])
@pytest.mark.parametrize("later", [0.0, 0.5, 2.0])
async def test_a_template_is_not_deleted_before_it_is_known_what_became_of_a_linked_clone_of_it(
    sim: SimCluster, interrupted: bool, later: float
) -> None:
    async with sim.fleet() as fleet:
        await fleet["base"].create(SPEC)
        await fleet.do(nexcage.MakeTemplate("base"))
        await left_cloning(sim, fleet, interrupted=interrupted)
        await anyio.sleep(later)

        with pytest.raises(Blocked, match="linked clones web-1"):
            await fleet["base"].delete()

        assert fleet["web-1"].machine.state is State.CREATED
        assert (sim["pve-01"].model.config(fleet["base"].machine.vmid) or "").count("template: 1") == 1
        await fleet["web-1"].delete()
        await fleet["base"].delete()


@pytest.mark.sim(nodes=1)
async def test_what_somebody_else_made_a_template_a_moment_ago_is_not_deleted_while_it_is_cloned(
    sim: SimCluster,
) -> None:
    async with sim.fleet() as fleet, sim.fleet() as other:
        await fleet["base"].create(SPEC)
        await other.refresh()
        (node,) = sim
        vmid = fleet["base"].machine.vmid

        async def look() -> None:
            while "template: 1" not in (node.model.config(vmid) or ""):
                await other.look()
                await anyio.sleep(0.01)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(look)
            await fleet.do(nexcage.MakeTemplate("base"))
            assert (seen := other.nodes["pve-01"].seen) is not None
            assert not seen.guests[vmid].template
            tasks.start_soon(fleet["web-1"].create, Spec.from_container("base", linked=True))
            await anyio.lowlevel.checkpoint()

            with pytest.raises(Busy, match="the linked copy 'web-1' is made of it"):
                await other["base"].delete()

        assert sorted(node.model.containers()) == sorted((vmid, fleet["web-1"].machine.vmid))
