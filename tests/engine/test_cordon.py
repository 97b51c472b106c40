"""Nodes that take no new containers: cordoned ones, and those in the maintenance mode of Proxmox VE."""

from __future__ import annotations

import json
from collections import Counter

import pytest

import nexcage
from nexcage import Create, NoRoute, Spec
from nexcage.testing import SimCluster

DEBIAN = "local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst"
SPEC = Spec(DEBIAN, storage="local-zfs")
PINNED = Spec(DEBIAN, storage="local-zfs", node="pve-01")


def maintained(sim: SimCluster, node: str, mode: str = "maintenance") -> None:
    """What its HA manager writes down."""
    sim[node].model.files.write(f"/etc/pve/nodes/{node}/lrm_status", json.dumps({"mode": mode, "state": "active"}))


@pytest.mark.sim(nodes=3)
async def test_a_cordoned_node_takes_no_new_containers_in_any_process(sim: SimCluster) -> None:
    async with sim.fleet() as one, sim.fleet() as other:
        assert one.cordon("pve-01")
        assert not other.cordon("pve-01")
        assert other.cordoned == {"pve-01"}

        report = await other.run([Create(f"web-{n}", SPEC) for n in range(8)])
        assert Counter(done.node for done in report.done) == {"pve-02": 4, "pve-03": 4}
        with pytest.raises(NoRoute, match="pve-01 is cordoned"):
            await other.do(Create("pinned", PINNED))

    async with sim.fleet() as later:
        assert later.cordoned == {"pve-01"}
        assert later.route("web-9", SPEC).nodes == ("pve-02", "pve-03")
        with pytest.raises(NoRoute, match="pve-01 is cordoned") as refused:
            later.route("web-9", PINNED)
        assert refused.value.__notes__ == ["nexcage uncordon pve-01"]

        assert later.uncordon("pve-01")
        assert not later.uncordon("pve-01")
        assert (await later.do(Create("pinned", PINNED))).node == "pve-01"


@pytest.mark.sim(nodes=2)
async def test_a_node_that_has_left_the_fleet_can_be_uncordoned(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        fleet.cordon("pve-02")
    async with sim.fleet(["pve-01"]) as fleet:
        assert fleet.uncordon("pve-02")
        with pytest.raises(nexcage.NotFound, match="'pve-02' is not in this fleet"):
            fleet.uncordon("pve-02")


@pytest.mark.sim(nodes=3)
async def test_what_is_on_a_cordoned_node_goes_on_and_nothing_is_moved_there(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        (await fleet.run([Create(f"web-{n}", PINNED) for n in range(4)])).raise_for_failures()
        fleet.cordon("pve-01")
        fleet.cordon("pve-02")

        assert (await fleet["web-0"].start()).changed
        assert {move.node for move in await fleet.moves_off("pve-01")} == {"pve-03"}
        with pytest.raises(NoRoute, match="pve-01 is cordoned"):
            await fleet.do(Create("copy", Spec.from_container("web-1")))


@pytest.mark.sim(nodes=3)
async def test_a_node_in_maintenance_takes_nothing_until_that_is_over(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        (await fleet.run([Create(f"web-{n}", SPEC) for n in range(3)])).raise_for_failures()  # all were seen once
        maintained(sim, "pve-01")
        assert (await fleet.look("pve-01"))["pve-01"].maintenance  # type: ignore[union-attr]

        report = await fleet.run([Create(f"new-{n}", SPEC) for n in range(6)])
        assert {done.node for done in report.done} == {"pve-02", "pve-03"}
        with pytest.raises(NoRoute, match="pve-01 is in the maintenance mode of Proxmox VE"):
            await fleet.do(Create("pinned", PINNED))
        assert {move.node for move in await fleet.moves_off("pve-02")} == {"pve-03"}

        maintained(sim, "pve-01", "active")
        assert (await fleet.do(Create("pinned", PINNED))).node == "pve-01"


@pytest.mark.sim(nodes=2)
async def test_a_maintenance_that_nobody_has_seen_yet_is_seen_in_time(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        (await fleet.run([Create("web-1", PINNED)])).raise_for_failures()
        maintained(sim, "pve-02")
        report = await fleet.run([Create(f"new-{n}", SPEC) for n in range(4)])
        assert report.ok
        assert {done.node for done in report.done} == {"pve-01"}


@pytest.mark.parametrize("text", ["", "{}", "[1]", "{", '{"mode": 3}', '{"mode": "active"}', "\N{NO-BREAK SPACE}"])
@pytest.mark.sim(nodes=1)
async def test_only_a_clear_word_is_maintenance(sim: SimCluster, text: str) -> None:
    sim["pve-01"].model.files.write("/etc/pve/nodes/pve-01/lrm_status", text)
    async with sim.fleet() as fleet:
        assert (await fleet.do(Create("web-1", SPEC))).node == "pve-01"
