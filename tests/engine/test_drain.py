"""Emptying a node."""

from __future__ import annotations

import msgspec
import pytest

import nexcage
from nexcage import Create, Spec, Start, State
from nexcage.testing import SimCluster

SPEC = Spec("local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst", node="pve-01", storage="local-zfs")


@pytest.mark.sim(nodes=3)
async def test_the_containers_of_a_node_are_spread_over_the_others(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        made = await fleet.run([Create(f"web-{n}", SPEC) for n in range(4)])
        made.raise_for_failures()
        await fleet["web-0"].start()
        before = fleet.seq

        moves = await fleet.moves_off("pve-01", restart=True)
        assert fleet.seq == before
        (await fleet.run(moves)).raise_for_failures()

        assert sorted(machine.node for machine in fleet.machines.values()) == ["pve-02"] * 2 + ["pve-03"] * 2
        assert fleet["web-0"].machine.state is State.RUNNING
        assert sim["pve-01"].model.containers() == []
        assert await fleet.moves_off("pve-01") == []


@pytest.mark.sim(nodes=2)
async def test_a_running_container_stays_without_restart(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        (await fleet.run([Create("web-1", SPEC), Start("web-1")])).raise_for_failures()

        report = await fleet.run(await fleet.moves_off("pve-01"))

        assert [type(failure.error) for failure in report.failures] == [nexcage.IllegalTransition]
        assert fleet["web-1"].machine.node == "pve-01"


@pytest.mark.sim(nodes=3)
async def test_nodes_that_are_away_take_nothing(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        (await fleet.run([Create(f"web-{n}", SPEC) for n in range(2)])).raise_for_failures()
        sim["pve-03"].crash()
        assert {move.node for move in await fleet.moves_off("pve-01")} == {"pve-02"}

        sim["pve-02"].crash()
        with pytest.raises(nexcage.NexcageError):
            await fleet.moves_off("pve-01")


@pytest.mark.sim(nodes=2)
async def test_a_node_that_is_not_there_is_not_found(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        with pytest.raises(nexcage.NotFound, match="'pve-09' is not in this fleet"):
            await fleet.moves_off("pve-09")
        assert await fleet.moves_off("pve-01") == []
        assert msgspec.to_builtins(await fleet.moves_off("pve-02")) == []
