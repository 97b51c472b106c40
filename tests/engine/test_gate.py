"""How many at once: never over a bound, never a slot lost, and a slow node costs nobody else."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import anyio
from hypothesis import given, settings
from hypothesis import strategies as st

from nexcage import Limits
from nexcage._engine.gate import Gate
from nexcage.testing import virtual_run


class Job(NamedTuple):
    node: str
    create: bool
    begins: int
    lasts: int
    patience: int
    """Seconds until it is cancelled, waiting or not."""


jobs = st.builds(
    Job,
    st.sampled_from("abc"),
    st.booleans(),
    st.integers(0, 4),
    st.integers(0, 5),
    st.sampled_from([0, 1, 2, 3, 1000, 1000]),
)
limits = st.builds(Limits, total=st.integers(1, 6), per_node=st.integers(1, 4), creates_per_node=st.integers(1, 3))


@settings(max_examples=150)
@given(st.lists(jobs, max_size=25), limits)
def test_no_bound_is_ever_passed_and_no_slot_is_ever_lost(work: list[Job], bounds: Limits) -> None:
    running: Counter[str] = Counter()
    creating: Counter[str] = Counter()
    ran = 0

    async def one(gate: Gate, job: Job) -> None:
        nonlocal ran
        await anyio.sleep(job.begins)
        with anyio.move_on_after(job.patience):
            async with gate.slot(job.node, create=job.create):
                running[job.node] += 1
                creating[job.node] += job.create
                assert running.total() <= bounds.total
                assert running[job.node] <= bounds.per_node
                assert creating[job.node] <= bounds.creates_per_node
                try:
                    await anyio.sleep(job.lasts)
                    ran += 1
                finally:
                    running[job.node] -= 1
                    creating[job.node] -= job.create

    async def main() -> None:
        gate = Gate(bounds, 3)
        with anyio.fail_after(500):
            async with anyio.create_task_group() as tasks:
                for job in work:
                    tasks.start_soon(one, gate, job)
            assert running.total() == 0
            for node in "abc":  # every place is free again: as many as may can be held at once
                async with anyio.create_task_group() as tasks:
                    for _ in range(gate._share):
                        tasks.start_soon(one, gate, Job(node, False, 0, 1, 2))

    virtual_run(main)
    assert ran >= sum(job.patience == 1000 for job in work)


async def held(gate: Gate, node: str, seconds: float, ends: dict[str, float], *, create: bool = False) -> None:
    async with gate.slot(node, create=create):
        await anyio.sleep(seconds)
    ends[node] = anyio.current_time()


async def test_a_slow_node_never_starves_the_others(virtual_time: object) -> None:
    gate = Gate(Limits(total=20, per_node=8), 4)
    ends: dict[str, float] = {}
    async with anyio.create_task_group() as tasks:
        for _ in range(100):
            tasks.start_soon(held, gate, "slow", 1000.0, ends)
        await anyio.sleep(1)
        start = anyio.current_time()
        async with anyio.create_task_group() as quick:
            for node in ("a", "b", "c"):
                for _ in range(50):
                    quick.start_soon(held, gate, node, 1.0, ends)
        assert anyio.current_time() - start <= 11
        tasks.cancel_scope.cancel()


async def test_nodes_that_wait_are_served_in_turn(virtual_time: object) -> None:
    gate = Gate(Limits(total=1, per_node=1), 3)
    order: list[str] = []

    async def one(node: str) -> None:
        async with gate.slot(node, create=False):
            order.append(node)
            await anyio.sleep(1)

    for node in ("a", "b", "c"):  # all have been there
        await one(node)
    async with anyio.create_task_group() as tasks:
        for node in ("a", "a", "a", "b", "b", "c"):
            tasks.start_soon(one, node)
            await anyio.sleep(0.01)
    assert order[3:] == ["a", "b", "c", "a", "b", "a"]


async def test_one_node_alone_gets_all_that_it_may_take(virtual_time: object) -> None:
    ends: dict[str, float] = {}
    gate = Gate(Limits(total=200, per_node=8), 3)
    async with anyio.create_task_group() as tasks:
        for _ in range(16):
            tasks.start_soon(held, gate, "a", 10.0, ends)
    assert ends == {"a": 20.0}


async def test_what_is_light_passes_creates_that_wait(virtual_time: object) -> None:
    ends: dict[str, float] = {}
    gate = Gate(Limits(per_node=4, creates_per_node=1), 1)
    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(lambda: held(gate, "a", 100.0, {}, create=True))
        await anyio.sleep(1)
        await held(gate, "a", 1.0, ends)
        assert ends == {"a": 2.0}
        tasks.cancel_scope.cancel()
