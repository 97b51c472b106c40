"""Following a journal from outside: every event once, in order, through rotations."""

from __future__ import annotations

from contextlib import aclosing

import anyio
import anyio.lowlevel
import pytest

from nexcage import JournalError, follow
from nexcage._sinks.follow import Tail, Wake
from nexcage._sinks.journal import Sizes, open_journal


async def collect(path, count, *, since=0, wake=None, into=None):
    found = [] if into is None else into
    async with aclosing(follow(path, since=since, wake=wake)) as events:
        async for event in events:
            found.append(event.seq)
            if len(found) == count:
                return found
    return found


@pytest.mark.both_loops
@pytest.mark.parametrize("inotify", [True, False])
async def test_events_arrive_as_they_become_durable(tmp_path, life, inotify):
    found: list[int] = []
    with anyio.fail_after(60):
        async with open_journal(tmp_path, owner="one") as journal, anyio.create_task_group() as tasks:
            await journal.append(life.create("web-0"))

            async def read() -> None:
                await collect(tmp_path, 3, wake=Wake(seconds=0.01, inotify=inotify), into=found)
                tasks.cancel_scope.cancel()

            tasks.start_soon(read)
            while not found:
                await anyio.lowlevel.checkpoint()
            await journal.append(life.created("web-0"))
            while len(found) < 2:
                await anyio.lowlevel.checkpoint()
            await journal.append(life.start("web-0"))
            await anyio.sleep_forever()
    assert found == [1, 2, 3]


async def test_a_rotation_loses_and_repeats_nothing(tmp_path, life):
    found: list[int] = []
    sizes = Sizes(segment_bytes=3000)
    with anyio.fail_after(60):
        async with open_journal(tmp_path, owner="one", sizes=sizes) as journal, anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: collect(tmp_path, 10_000, wake=Wake(seconds=0.01), into=found))
            for n in range(40):
                await journal.append(life.create(f"web-{n}"))
            while len(found) < journal.seq:
                await anyio.sleep(0.001)
            assert len(list((tmp_path / "journal").glob("*.jsonl"))) > 1
            tasks.cancel_scope.cancel()
    assert found == list(range(1, journal.seq + 1))


async def test_following_begins_behind_the_number_given(tmp_path, life):
    async with open_journal(tmp_path, owner="one", sizes=Sizes(segment_bytes=2000)) as journal:
        for n in range(30):
            await journal.append(life.create(f"web-{n}"))
    with anyio.fail_after(30):
        assert await collect(tmp_path, 2, since=journal.seq - 2) == [journal.seq - 1, journal.seq]


async def test_a_journal_that_is_not_there_yet_is_waited_for(tmp_path, life):
    found: list[int] = []
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: collect(tmp_path / "later", 1, wake=Wake(seconds=0.01), into=found))
            await anyio.lowlevel.checkpoint()
            async with open_journal(tmp_path / "later", owner="one") as journal:
                await journal.append(life.create("web-1"))
    assert found == [1]


def test_a_torn_end_is_not_taken_for_a_record_and_not_skipped_either(desk, life):
    store = desk.open()
    desk.append(store, life.create("web-1"))
    path = desk.files()[0]
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    tail = Tail(desk.path)
    assert tail.read() == ([], False)
    path.write_bytes(whole)
    assert [event.seq for event in tail.read()[0]] == [1]
    assert tail.read() == ([], False)


def test_a_long_past_comes_in_portions(desk, life):
    store = desk.open()
    for n in range(10):
        desk.append(store, *(life.create(f"web-{n}-{m}") for m in range(500)))
    tail = Tail(desk.path)
    first, more = tail.read()
    rest, _ = tail.read()
    assert more
    assert [event.seq for event in first + rest] == list(range(1, 5001))


def test_a_journal_that_shrank_is_said_so(desk, life):
    store = desk.open()
    desk.append(store, life.create("web-1"))
    tail = Tail(desk.path)
    tail.read()
    desk.files()[0].write_bytes(b"")
    with pytest.raises(JournalError, match="are gone"):
        tail.read()
