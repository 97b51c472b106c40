"""A template on each node, and many quick copies of them."""

from __future__ import annotations

from collections import Counter

import pytest

import nexcage
from nexcage import Create, MakeTemplate, NoRoute, Spec
from nexcage.testing import SimCluster

DEBIAN = "local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst"
NODES = ("pve-01", "pve-02", "pve-03")


async def pool(fleet: nexcage.Fleet) -> list[str]:
    """The ids of a template on each node."""
    made = [Create(f"base-{node}", Spec(DEBIAN, storage="local-zfs", node=node)) for node in NODES]
    (await fleet.run(made)).raise_for_failures()
    (await fleet.run([MakeTemplate(create.id) for create in made])).raise_for_failures()
    return [create.id for create in made]


@pytest.mark.sim(nodes=4)
async def test_a_batch_of_copies_goes_to_the_nodes_of_its_templates(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        bases = await pool(fleet)
        wanted = [Create(f"web-{n}", Spec.from_container(bases[n % 3], linked=True)) for n in range(60)]

        report = await fleet.run(wanted)

        report.raise_for_failures()
        assert Counter(done.node for done in report.done) == dict.fromkeys(NODES, 20)
        assert len({done.vmid for done in report.done}) == 60
        for done in report.done:
            assert done.node == fleet[f"base-{done.node}"].machine.node
        assert sim["pve-04"].model.containers() == []


@pytest.mark.sim(nodes=3)
async def test_a_cordoned_part_of_a_pool_is_refused_and_the_others_go_on(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        bases = await pool(fleet)
        fleet.cordon("pve-02")

        report = await fleet.run([Create(f"web-{n}", Spec.from_container(bases[n % 3], linked=True)) for n in range(9)])

        assert {type(failure.error) for failure in report.failures} == {NoRoute}
        assert Counter(done.node for done in report.done) == {"pve-01": 3, "pve-03": 3}
