"""Where new containers go: spread by what is there, what comes and what is free; pinned ones stay where they are wanted."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

import nexcage
from nexcage import Guest, Look, NoRoute, Spec
from nexcage._engine.placement import Spread
from nexcage.abc import Candidate
from nexcage.testing import SimCluster

DEBIAN = "local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst"
SPEC = Spec(DEBIAN, storage="local-zfs")


def node(name: str, guests: int = 0, coming: int = 0, memory: int = 0, *, quorate: bool = True) -> Candidate:
    there = {vmid: Guest(vmid) for vmid in range(100, 100 + guests)}
    return Candidate(name, Look(name, name, "b", there, {}, quorate=quorate, memory=memory), coming)


def test_the_node_with_the_fewest_and_then_the_most_memory_is_taken() -> None:
    place = Spread().place
    assert place("web-1", SPEC, [node("a", 2), node("b", 1), node("c", 3)]) == "b"
    assert place("web-1", SPEC, [node("a", 1), node("b", 0, coming=2)]) == "a"
    assert place("web-1", SPEC, [node("a", memory=4096), node("b", memory=65536)]) == "b"


def test_a_node_without_quorum_is_left_out() -> None:
    assert Spread().place("web-1", SPEC, [node("a", quorate=False), node("b", 50)]) == "b"
    with pytest.raises(NoRoute, match="quorum"):
        Spread().place("web-1", SPEC, [node("a", quorate=False)])


@given(
    st.lists(
        st.builds(node, st.text("abc", min_size=1, max_size=3), st.integers(0, 5), st.integers(0, 5)),
        min_size=1,
        max_size=5,
        unique_by=lambda c: c.node,
    )
)
def test_the_order_of_the_nodes_does_not_matter(nodes: list[Candidate]) -> None:
    assert Spread().place("web-1", SPEC, nodes) == Spread().place("web-1", SPEC, nodes[::-1])


@pytest.mark.sim(nodes=4)
async def test_many_at_once_are_spread_evenly(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        assert (await fleet.run([nexcage.Create(f"web-{n}", SPEC) for n in range(40)])).ok
        spread = Counter(machine.node for machine in fleet.machines.values())
    assert set(spread.values()) == {10}


@pytest.mark.sim(nodes=3)
async def test_a_pinned_container_goes_where_it_is_wanted(sim: SimCluster) -> None:
    pinned = nexcage.Spec(DEBIAN, storage="local-zfs", node="pve-02")
    async with sim.fleet() as fleet:
        report = await fleet.run([nexcage.Create(f"web-{n}", pinned) for n in range(6)])
        assert {done.node for done in report.done} == {"pve-02"}
        assert fleet.route("web-9", pinned).nodes == ("pve-02",)


@pytest.mark.sim(nodes=3)
async def test_a_pinned_container_fails_with_its_node_and_the_others_go_elsewhere(sim: SimCluster) -> None:
    sim["pve-02"].crash()
    pinned = nexcage.Spec(DEBIAN, storage="local-zfs", node="pve-02")
    async with sim.fleet(limits=nexcage.Limits(retries=1)) as fleet:
        report = await fleet.run(
            [nexcage.Create("pinned", pinned), *(nexcage.Create(f"web-{n}", SPEC) for n in range(6))]
        )
        assert [failure.id for failure in report.failures] == ["pinned"]
        assert isinstance(report.failures[0].error, nexcage.NodeError)
        assert Counter(done.node for done in report.done) == {"pve-01": 3, "pve-03": 3}
        assert report.lost_nodes == {"pve-02"}
