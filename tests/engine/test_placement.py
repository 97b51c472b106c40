"""Where new containers go: spread by what is there, what comes and what is free; pinned ones stay where they are wanted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import nexcage
from nexcage import Guest, Look, NoRoute, Spec
from nexcage._engine.placement import Count, Memory, Spread
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


def tagged(name: str, *tags: str, coming: str = "", more: int = 0) -> Candidate:
    """A node with a container for each tag, another one on its way, and some without a tag."""
    there = {vmid: Guest(vmid, tags=("nexcage", tag)) for vmid, tag in enumerate(tags, 100)}
    there |= {vmid: Guest(vmid, tags=("nexcage",)) for vmid in range(500, 500 + more)}
    specs = (Spec(DEBIAN, tags=(coming,)),) if coming else ()
    return Candidate(name, Look(name, name, "b", there, {}), len(specs), specs)


def test_containers_with_the_same_tag_are_kept_apart() -> None:
    web = Spec(DEBIAN, tags=("web", "blue"))
    place = Spread().place
    assert place("web-1", web, [tagged("a", "web"), tagged("b", "db", "db", more=9)]) == "b"
    assert place("web-1", web, [tagged("a", coming="WEB"), tagged("b", more=9)]) == "b"
    assert place("web-1", web, [tagged("a", "web", "blue"), tagged("b", "web", more=9)]) == "b"
    assert place("web-1", web, [tagged("a", "web"), tagged("b", "web", more=1)]) == "a"
    assert place("web-1", SPEC, [tagged("a", "web", more=1), tagged("b", "web")]) == "b"


def test_a_look_that_has_changed_is_counted_again() -> None:
    place, web = Spread().place, Spec(DEBIAN, tags=("web",))
    assert place("web-1", web, [tagged("a", "web"), tagged("b")]) == "b"
    assert place("web-2", web, [tagged("a"), tagged("b", "web")]) == "a"


def test_counting_looks_at_no_tags() -> None:
    web = Spec(DEBIAN, tags=("web",))
    assert Count().place("web-1", web, [tagged("a", "web"), tagged("b", "db", "db")]) == "a"


def test_memory_that_is_promised_is_not_free() -> None:
    def having(name: str, free: int, *, asleep: int = 0, awake: int = 0, coming: int = 0) -> Candidate:
        there = {100: Guest(100, memory=asleep), 101: Guest(101, running=True, memory=awake)}
        specs = (Spec(DEBIAN, memory=coming),) if coming else ()
        return Candidate(name, Look(name, name, "b", there, {}, memory=free), len(specs), specs)

    place = Memory().place
    assert place("web-1", SPEC, [having("a", 4000), having("b", 4001)]) == "b"
    assert place("web-1", SPEC, [having("a", 4000), having("b", 5000, asleep=2000)]) == "a"
    assert place("web-1", SPEC, [having("a", 4000), having("b", 5000, awake=2000)]) == "b"
    assert place("web-1", SPEC, [having("a", 4000), having("b", 5000, coming=2000)]) == "a"


@pytest.mark.sim(nodes=3)
async def test_a_batch_with_one_tag_is_spread_whatever_else_is_there(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        others = [nexcage.Create(f"db-{n}", Spec(DEBIAN, storage="local-zfs", node="pve-01")) for n in range(6)]
        (await fleet.run(others)).raise_for_failures()
        web = Spec(DEBIAN, storage="local-zfs", tags=("web",))
        report = await fleet.run([nexcage.Create(f"web-{n}", web) for n in range(6)])
    assert Counter(done.node for done in report.done) == {"pve-01": 2, "pve-02": 2, "pve-03": 2}


@pytest.mark.sim(nodes=3)
async def test_a_batch_placed_by_memory_does_not_go_to_one_node(sim: SimCluster) -> None:
    settings = nexcage.Config(placement="memory")
    async with sim.fleet(config=settings) as fleet:
        report = await fleet.run([nexcage.Create(f"web-{n}", SPEC) for n in range(30)])
    assert set(Counter(done.node for done in report.done).values()) == {10}


@pytest.mark.sim(nodes=1)
async def test_a_placement_that_does_not_exist_names_those_that_do(sim: SimCluster) -> None:
    with pytest.raises(nexcage.InvalidSpec, match="one of spread, count, memory"):
        async with sim.fleet(config=nexcage.Config(placement="best")):
            pass


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


class Odd:
    """A placement that answers with this, or raises it."""

    def __init__(self, answer: object) -> None:
        self.answer = answer

    def place(self, id: str, spec: Spec, nodes: Sequence[Candidate]) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.sim(nodes=2)
@pytest.mark.parametrize("answer", [ValueError("no idea"), KeyError("x"), None, ["pve-01"], {}, "pve-09", 5])
async def test_a_placement_that_raises_or_chooses_nonsense_costs_only_that_create(
    sim: SimCluster, answer: object
) -> None:
    async with sim.fleet(placement=Odd(answer)) as fleet:
        report = await fleet.run(
            [nexcage.Create("web-1", SPEC), nexcage.Create("web-2", Spec(DEBIAN, storage="local-zfs", node="pve-02"))]
        )

    (failure,) = report.failures
    assert isinstance(failure.error, nexcage.NoRoute)
    assert failure.intent.id == "web-1"


@pytest.mark.sim(nodes=3)
async def test_a_placement_chooses_among_what_it_is_given(sim: SimCluster) -> None:
    async with sim.fleet(placement=Odd("pve-02")) as fleet:
        fleet.cordon("pve-02")
        with pytest.raises(nexcage.NoRoute, match="pve-02"):
            await fleet["web-1"].create(SPEC)
