"""Events for subscribers: each once, in order, past and live; who falls behind is told and loses nothing by coming back."""

from __future__ import annotations

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nexcage import Event, Fleet, Lagged, Machine, Observed, Spec, Start, State
from nexcage._core.machine import Checkpointed
from nexcage._engine.bus import Events, Subscription
from nexcage.testing import SimCluster, virtual_run

SPEC = Spec("local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst", storage="local-zfs")


class Log:
    """A journal reduced to its events."""

    def __init__(self, most: int = 4) -> None:
        self.events: list[Event] = []
        self.bus: Events = Events(
            lambda since: iter([e for e in self.events if e.seq > since]), lambda: len(self.events), most
        )

    def write(self, count: int, id: str = "web-1") -> None:
        for _ in range(count):
            event = Observed(seq=len(self.events) + 1, id=id, state=State.RUNNING)
            self.events.append(event)
            self.bus.publish([event])


async def drained(subscription: Subscription) -> list[int]:
    """The numbers of everything that is there without waiting."""
    found: list[int] = []
    with anyio.move_on_after(0.01):
        await collected(subscription, found)
    return found


async def collected(subscription: Subscription, into: list[int]) -> None:
    async for event in subscription:
        into.append(event.seq)  # noqa: PERF401 (a cancel leaves what was collected)


async def test_past_and_live_come_once_and_in_order(virtual_time: object) -> None:
    log = Log(most=100)
    log.write(5)
    async with log.bus.subscribe(since=2) as events:
        log.write(3)  # before anything was read
        first = await anext(events)
        log.write(2)  # in the middle of the past
        found: list[int] = [first.seq]
        with anyio.move_on_after(1):
            await collected(events, found)
        log.write(1)
        with anyio.move_on_after(1):
            await collected(events, found)
    assert found == list(range(3, 12))


async def test_without_a_number_only_what_is_new_comes(virtual_time: object) -> None:
    log = Log()
    log.write(3)
    async with log.bus.subscribe() as events:
        log.write(2)
        assert await drained(events) == [4, 5]
        assert events.seq == 5


async def test_only_the_containers_that_were_asked_for(virtual_time: object) -> None:
    log = Log()
    log.write(2, "a")
    log.write(2, "b")
    async with log.bus.subscribe(since=0, ids=["b"]) as events:
        log.write(50, "a")  # they do not count against its queue either
        log.write(1, "b")
        found: list[int] = []
        with anyio.move_on_after(1):
            await collected(events, found)
    assert found == [3, 4, 55]


async def test_no_id_at_all_is_no_event_and_not_all_of_them(virtual_time: object) -> None:
    log = Log()
    async with log.bus.subscribe(ids=[]) as events:
        log.write(2)
        assert await drained(events) == []


async def test_checkpoints_are_not_events_for_people(virtual_time: object) -> None:
    log = Log()
    log.events = [Checkpointed(seq=1, id="a", machine=Machine("a")), Observed(seq=2, id="a", state=State.RUNNING)]
    async with log.bus.subscribe(since=0) as events:
        found: list[int] = []
        with anyio.move_on_after(1):
            await collected(events, found)
    assert found == [2]


async def test_who_falls_behind_is_told_where_to_go_on_and_loses_nothing(virtual_time: object) -> None:
    log = Log(most=3)
    found: list[int] = []
    async with log.bus.subscribe() as events:
        log.write(8)
        with pytest.raises(Lagged) as lagged:
            await collected(events, found)
        assert (found, lagged.value.since, lagged.value.missed) == ([1, 2, 3], 3, 5)
        log.write(1)
        with pytest.raises(Lagged):  # and it stays so
            await anext(events)
    async with log.bus.subscribe(since=lagged.value.since) as events:
        with anyio.move_on_after(1):
            await collected(events, found)
    assert found == list(range(1, 10))


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 4)), max_size=12), st.integers(1, 4), st.integers(0, 5))
def test_whoever_resumes_after_each_lag_sees_every_event_once(
    moves: list[tuple[int, int]], most: int, before: int
) -> None:
    found: list[int] = []
    log = Log(most=most)

    async def main() -> None:
        log.write(before)
        since = 0
        plan = iter(moves)
        over = False
        while not over:
            async with log.bus.subscribe(since=since) as events:
                try:
                    while True:
                        move = next(plan, None)
                        if move is None:
                            log.bus.close()
                        else:
                            log.write(move[0])
                        for _ in range(1000 if move is None else move[1]):
                            if move is not None and events.seq >= len(log.events):
                                break
                            found.append((await anext(events)).seq)
                except Lagged as lagged:
                    since = lagged.since
                except StopAsyncIteration:
                    over = True

    virtual_run(main)
    assert found == list(range(1, len(log.events) + 1))


async def test_leaving_takes_the_subscription_away(virtual_time: object) -> None:
    log = Log()
    async with log.bus.subscribe():
        pass
    with pytest.raises(ZeroDivisionError):
        async with log.bus.subscribe():
            raise ZeroDivisionError
    assert log.bus._subscribers == []


@pytest.mark.sim(nodes=1)
async def test_a_subscription_ends_when_the_fleet_is_closed(sim: SimCluster) -> None:
    kinds: list[str] = []

    async def watch(fleet: Fleet, ready: anyio.Event) -> None:
        async with fleet.events.subscribe() as events:
            ready.set()
            kinds.extend([type(event).__name__ async for event in events])

    async with anyio.create_task_group() as tasks, sim.fleet() as fleet:
        ready = anyio.Event()
        tasks.start_soon(watch, fleet, ready)
        await ready.wait()
        await fleet["web-1"].create(SPEC)
    assert kinds == ["Began", "Attempted", "Succeeded"]


@pytest.mark.sim(nodes=2)
async def test_the_stream_of_a_fleet_is_its_journal(sim: SimCluster) -> None:
    from nexcage import Create, read_journal

    async with sim.fleet() as fleet:
        await fleet["first"].create(SPEC)
        async with fleet.events.subscribe(since=0) as events:
            await fleet.run([Create(f"web-{n}", SPEC) for n in range(5)])
            await fleet.run([Start(f"web-{n}") for n in range(5)])
            found = [await anext(events) for _ in range(fleet.seq)]
        assert found == [event for event in read_journal(fleet.state_dir) if not isinstance(event, Checkpointed)]
        assert [event.seq for event in found] == list(range(1, fleet.seq + 1))


@pytest.mark.sim(nodes=1)
async def test_waiting_for_a_container_ends_with_the_fleet(sim: SimCluster) -> None:
    from nexcage import NexcageError

    async with anyio.create_task_group() as tasks, sim.fleet() as fleet:
        web = fleet["web-1"]
        await web.create(SPEC)
        errors: list[NexcageError] = []

        async def wait() -> None:
            try:
                await web.wait("running")
            except NexcageError as error:
                errors.append(error)

        tasks.start_soon(wait)
        await anyio.sleep(0.05)
    assert [str(error) for error in errors] == ["the fleet was closed while waiting for container 'web-1'"]
