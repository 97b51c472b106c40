"""Appending: durable before published, many to a sync, all or none."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import threading

import anyio
import msgspec
import pytest

import nexcage
from nexcage import Busy, JournalError, Machine, NotFound, Op, State, fold, read_journal
from nexcage._core.events import Failed, NodeLost, Problem
from nexcage._sinks.disk import Disk
from nexcage._sinks.journal import open_journal
from nexcage._sinks.owners import owner_alive


@pytest.mark.both_loops
async def test_the_next_opening_finds_what_was_appended(tmp_path, life):
    async with open_journal(tmp_path, owner="one") as journal:
        await journal.append(life.create("web-1"))
        await journal.append(life.created("web-1"), life.start("web-1"))
        before = dict(journal.machines)
        assert journal.seq == 3

    async with open_journal(tmp_path, owner="two") as journal:
        assert dict(journal.machines) == before
        assert journal.seq == 3
        assert journal.damage == ()
    assert fold(read_journal(tmp_path, strict=True)) == before


@pytest.mark.both_loops
async def test_a_thousand_writers_share_a_few_syncs(tmp_path, life):
    async with open_journal(tmp_path, owner="one") as journal, anyio.create_task_group() as tasks:

        async def make(id: str) -> None:
            await journal.append(life.create(id))
            await journal.append(life.created(id))

        for n in range(1000):
            tasks.start_soon(make, f"web-{n}")

    assert journal.seq == 2000
    assert journal.syncs < 60
    assert [event.seq for event in read_journal(tmp_path, strict=True)] == list(range(1, 2001))


@pytest.mark.both_loops
async def test_events_are_published_in_order_and_only_once_durable(tmp_path, life):
    synced: list[int] = []
    seen: list[int] = []

    class Watching(Disk):
        def sync(self, fd: int) -> None:
            super().sync(fd)
            synced.append(os.fstat(fd).st_size)

    def published(events, machines):
        text = b"".join(path.read_bytes() for path in sorted((tmp_path / "journal").glob("*.jsonl")))
        for event in events:
            assert b'"seq":%d,' % event.seq in text[: synced[-1]]
            assert machines[event.id].seq >= event.seq
            seen.append(event.seq)

    async with open_journal(tmp_path, owner="one", disk=Watching(), on_events=published) as journal:
        async with anyio.create_task_group() as tasks:
            for n in range(50):
                tasks.start_soon(journal.append, life.create(f"web-{n}"))
        await journal.append(life.created("web-7"))
        assert seen == list(range(1, 52))


async def test_a_draft_that_raises_refuses_its_call_whole_and_no_other(tmp_path, life):
    outcomes: dict[str, object] = {}

    async with open_journal(tmp_path, owner="one") as journal:

        async def attempt(name: str, *drafts) -> None:
            try:
                outcomes[name] = await journal.append(*drafts)
            except nexcage.NexcageError as error:
                outcomes[name] = error

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(attempt, "good", life.create("web-1"))
            tasks.start_soon(attempt, "half", life.create("web-2"), life.created("web-3"))
            tasks.start_soon(attempt, "last", life.create("web-4"))

    assert isinstance(outcomes["half"], JournalError)
    assert [event.seq for event in read_journal(tmp_path, strict=True)] == [1, 2]
    assert set(journal.machines) == {"web-1", "web-4"}


async def test_of_two_operations_that_begin_at_once_one_gets_busy(tmp_path, life):
    async with open_journal(tmp_path, owner="one") as journal:
        await journal.append(life.create("web-1"), life.created("web-1"))
        ends: list[object] = []

        async def begin(key: str) -> None:
            try:
                ends.append(await journal.append(life.start("web-1", key)))
            except Busy as error:
                ends.append(error)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(begin, "a")
            tasks.start_soon(begin, "b")

        assert [type(end) for end in ends].count(Busy) == 1
        assert journal.machines["web-1"].state is State.STARTING


async def test_what_a_draft_raises_reaches_its_caller_as_it_is(tmp_path):
    def refuse(machines):
        raise NotFound("container", "web-1")

    async with open_journal(tmp_path, owner="one") as journal:
        with pytest.raises(NotFound):
            await journal.append(refuse)
        assert journal.seq == 0
        assert not list(read_journal(tmp_path))


@pytest.mark.both_loops
async def test_cancelled_before_it_begins_nothing_is_written(tmp_path, life):
    async with open_journal(tmp_path, owner="one") as journal:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await journal.append(life.create("web-1"))
        assert journal.seq == 0


@pytest.mark.both_loops
async def test_cancelled_while_it_is_written_it_ends_durable_and_is_told_so(tmp_path, life, faulty):
    written: list[object] = []
    async with open_journal(tmp_path, owner="one", disk=faulty) as journal:
        faulty.entered.clear()
        faulty.let.clear()
        async with anyio.create_task_group() as tasks:

            async def append() -> None:
                written.append(await journal.append(life.create("web-1")))

            tasks.start_soon(append)
            await anyio.to_thread.run_sync(faulty.entered.wait)
            tasks.cancel_scope.cancel()
            faulty.let.set()
        assert len(written) == 1
        assert journal.seq == 1
        assert journal.machines["web-1"].state is State.CREATING


async def test_a_native_cancel_of_whoever_writes_costs_no_other_writer_anything(tmp_path, life, faulty):
    seen: list[int] = []
    async with open_journal(
        tmp_path, owner="one", disk=faulty, on_events=lambda events, machines: seen.extend(e.seq for e in events)
    ) as journal:
        faulty.entered.clear()
        faulty.let.clear()
        leader = asyncio.create_task(journal.append(life.create("web-0")))
        await anyio.to_thread.run_sync(faulty.entered.wait)
        followers = [asyncio.create_task(journal.append(life.create(f"web-{n}"))) for n in range(1, 6)]
        await asyncio.sleep(0)
        leader.cancel()
        followers[0].cancel()
        await asyncio.sleep(0)
        faulty.let.set()
        ends = await asyncio.gather(leader, *followers, return_exceptions=True)
        assert [type(end).__name__ for end in ends] == ["CancelledError", "CancelledError", *["tuple"] * 4]
        assert journal.machines["web-0"].state is State.CREATING
        assert "web-1" not in journal.machines
        assert seen == [1, 2, 3, 4, 5]
        await journal.append(life.created("web-0"))


async def test_a_native_cancel_before_the_thread_began_hands_the_batch_on(tmp_path, life):
    async with open_journal(tmp_path, owner="one") as journal:
        for turns in range(6):
            one = asyncio.create_task(journal.append(life.create(f"a-{turns}")))
            two = asyncio.create_task(journal.append(life.create(f"b-{turns}")))
            for _ in range(turns):
                await asyncio.sleep(0)
            one.cancel()
            with anyio.fail_after(30):
                await asyncio.gather(one, two, return_exceptions=True)
            assert journal.machines[f"b-{turns}"].state is State.CREATING
    assert [event.seq for event in read_journal(tmp_path, strict=True)] == list(range(1, journal.seq + 1))


@pytest.mark.parametrize("what", ["write", "sync"])
async def test_a_full_or_broken_disk_refuses_and_leaves_nothing_half_written(tmp_path, life, faulty, what):
    async with open_journal(tmp_path, owner="one", disk=faulty) as journal:
        await journal.append(life.create("web-1"))
        path = tmp_path / "journal" / "00000000000000000001.jsonl"
        before = path.read_bytes()
        faulty.fail[what], faulty.partly = 1, 100

        with pytest.raises(JournalError, match="nothing new is begun"):
            await journal.append(life.create("web-2"))

        assert path.read_bytes() == before
        assert set(journal.machines) == {"web-1"}
        await journal.append(life.create("web-3"))
        assert [event.id for event in read_journal(tmp_path, strict=True)] == ["web-1", "web-3"]


async def test_lines_of_a_failed_write_never_become_facts_though_they_could_not_be_cut_at_once(tmp_path, life, faulty):
    async with open_journal(tmp_path, owner="one", disk=faulty) as journal:
        await journal.append(life.create("web-1"))
        faulty.fail |= {"sync": 1, "truncate": 2}

        with pytest.raises(JournalError):
            await journal.append(life.create("web-2"))
        with pytest.raises(JournalError):
            await journal.refresh()

        await journal.append(life.create("web-3"))
        assert [event.id for event in read_journal(tmp_path, strict=True)] == ["web-1", "web-3"]


async def test_a_really_full_file_system_refuses_and_recovers(tmp_path, life):
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("needs root, to mount a tiny tmpfs")
    tiny = tmp_path / "tiny"
    tiny.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tiny)], capture_output=True, check=False
    ).returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        async with open_journal(tiny, owner="one", run_dir=tmp_path / "run") as journal:
            await journal.append(life.create("web-1"))
            filler = tiny / "filler"
            with pytest.raises(OSError, match="No space"):
                filler.write_bytes(b"x" * (1 << 20))
            with pytest.raises(JournalError):
                for n in range(100):
                    await journal.append(life.create(f"full-{n}"))
            known = set(journal.machines)
            filler.unlink()
            await journal.append(life.create("web-2"))
            assert set(fold(read_journal(tiny, strict=True))) == known | {"web-2"}
    finally:
        subprocess.run(["umount", str(tiny)], check=True)


async def test_a_read_only_state_directory_can_be_read_and_refuses_changes(tmp_path, life, faulty):
    async with open_journal(tmp_path, owner="one") as journal:
        await journal.append(life.create("web-1"))
        fleet = journal.fleet

    faulty.read_only = True
    async with open_journal(tmp_path, owner="two", disk=faulty) as journal:
        assert journal.machines["web-1"].state is State.CREATING
        assert journal.fleet == fleet
        await journal.refresh()
        with pytest.raises(JournalError, match="Read-only"):
            await journal.append(life.created("web-1"))
        faulty.read_only = False
        await journal.append(life.created("web-1"))


async def test_a_driver_that_others_cannot_see_to_be_alive_begins_nothing(tmp_path, life):
    class Full(Disk):
        full = True

        def open(self, name: str, flags: int, *, dir_fd: int | None = None) -> int:
            if self.full and name == ".one":
                raise OSError(28, "No space left on device")
            return super().open(name, flags, dir_fd=dir_fd)

    disk = Full()
    async with open_journal(tmp_path, owner="one", disk=disk) as journal:
        with pytest.raises(JournalError, match="nothing new is begun"):
            await journal.append(life.create("web-1"))
        assert not owner_alive(tmp_path, "one")
        disk.full = False
        await journal.append(life.create("web-1"))
        assert owner_alive(tmp_path, "one")


async def test_a_driver_that_has_no_fleet_id_begins_nothing(tmp_path, life):
    (tmp_path / "fleet").mkdir()
    async with open_journal(tmp_path, owner="one") as journal:
        (tmp_path / "fleet").rmdir()
        with pytest.raises(JournalError, match="open the fleet again"):
            await journal.append(life.create("web-1"))


async def test_where_no_directory_can_be_made_there_is_nothing_to_read_and_changes_are_refused(tmp_path, life):
    (tmp_path / "file").write_text("in the way")
    async with open_journal(tmp_path / "file" / "state", owner="one", fleet="f1") as journal:
        assert dict(journal.machines) == {}
        await journal.refresh()
        with pytest.raises(JournalError, match="cannot be written"):
            await journal.append(life.create("web-1"))


async def test_a_journal_that_was_removed_under_us_is_not_begun_anew(tmp_path, life):
    async with open_journal(tmp_path, owner="one") as journal:
        await journal.append(life.create("web-1"))
        shutil.rmtree(tmp_path / "journal")
        with pytest.raises(JournalError, match="removed or replaced"):
            await journal.append(life.created("web-1"))


async def test_a_closed_journal_refuses_politely(tmp_path, life):
    async with open_journal(tmp_path, owner="one") as journal:
        pass
    with pytest.raises(JournalError, match="closed"):
        await journal.append(life.create("web-1"))
    await journal.aclose()


async def test_inline_nothing_leaves_the_thread(tmp_path, life):
    threads: set[int] = set()

    class Noting(Disk):
        def sync(self, fd: int) -> None:
            threads.add(threading.get_ident())

    async with open_journal(tmp_path, owner="one", inline=True, disk=Noting(), clock=lambda: 12.5) as journal:
        async with anyio.create_task_group() as tasks:
            for n in range(100):
                tasks.start_soon(journal.append, life.create(f"web-{n}"))
        assert journal.syncs < 10
    assert threads == {threading.get_ident()}
    assert {event.at for event in read_journal(tmp_path)} == {12.5}


async def test_refresh_brings_and_publishes_what_another_driver_appended(tmp_path, life):
    seen: list[str] = []
    async with (
        open_journal(tmp_path, owner="one") as mine,
        open_journal(tmp_path, owner="two", on_events=lambda events, m: seen.extend(e.id for e in events)) as other,
    ):
        await mine.append(life.create("web-1"))
        await other.refresh()
        assert other.machines == mine.machines
        assert seen == ["web-1"]
        await other.append(life.created("web-1"))
        await mine.append(life.start("web-1"))
        assert mine.machines["web-1"].state is State.STARTING
    assert [event.seq for event in read_journal(tmp_path, strict=True)] == [1, 2, 3]


async def test_a_subscriber_that_raises_breaks_no_append(tmp_path, life, caplog):
    def bad(events, machines):
        raise RuntimeError("broken")

    async with open_journal(tmp_path, owner="one", on_events=bad) as journal:
        await journal.append(life.create("web-1"))
        assert journal.seq == 1
    assert "subscriber" in caplog.text


async def test_words_of_a_node_that_are_no_unicode_can_be_recorded(tmp_path, life):
    async with open_journal(tmp_path, owner="one") as journal:
        await journal.append(life.create("web-1"))
        error = Problem.of(nexcage.CommandFailed("pve-01", ("pct", "create"), 1, "cannot open '\udcff\x1b[2J'"))
        (event,) = await journal.append(
            Failed(id="web-1", op=Op.CREATE, op_id="c-web-1", state=State.ABSENT, error=error)
        )
        machine = journal.machines["web-1"]
    assert list(read_journal(tmp_path, strict=True))[-1] == event
    assert fold(read_journal(tmp_path))["web-1"] == machine
    assert "\\udcff" in str(event.error)


async def test_a_record_that_is_far_too_long_is_refused_alone(tmp_path, life):
    long = Problem("NodeError", "x" * (9 << 20))
    async with open_journal(tmp_path, owner="one") as journal:
        with pytest.raises(JournalError, match="longer than"):
            await journal.append(NodeLost(node="pve-01", error=long))
        await journal.append(life.create("web-1"))
    assert [event.seq for event in read_journal(tmp_path, strict=True)] == [1]


async def test_files_are_for_their_owner_only_whatever_the_umask(tmp_path, life):
    before = os.umask(0)
    try:
        async with open_journal(tmp_path / "deep" / "state", owner="one", run_dir=tmp_path / "run") as journal:
            await journal.append(life.create("web-1"))
            modes = {
                path: path.stat().st_mode & 0o777
                for top in ("deep", "run")
                for path in [tmp_path / top, *(tmp_path / top).rglob("*")]
            }
    finally:
        os.umask(before)
    assert {mode for path, mode in modes.items() if path.is_dir()} == {0o700}
    assert {mode for path, mode in modes.items() if not path.is_dir()} == {0o600}


async def test_events_keep_their_own_time_and_get_the_clocks_otherwise(tmp_path, life):
    async with open_journal(tmp_path, owner="one", clock=lambda: 99.0) as journal:
        (first,) = await journal.append(life.create("web-1"))
        (second,) = await journal.append(msgspec.structs.replace(life.created("web-1"), at=55.0))
    assert (first.at, second.at) == (99.0, 55.0)
    assert journal.machines["web-1"] == fold(read_journal(tmp_path))["web-1"]
    assert isinstance(journal.machines["web-1"], Machine)


async def test_an_unreadable_journal_is_an_error_that_names_it(tmp_path):
    (tmp_path / "journal").symlink_to(tmp_path)
    with pytest.raises(JournalError, match=str(tmp_path)):
        async with open_journal(tmp_path, owner="one"):
            pass


async def test_a_native_cancel_of_a_whole_batch_before_the_thread_began_stops_no_later_writer(tmp_path, life):
    held, let = threading.Event(), threading.Event()
    async with open_journal(tmp_path, owner="one") as journal:

        def occupy() -> None:
            held.set()
            let.wait(20)

        busy = asyncio.create_task(journal.run(occupy))
        await anyio.to_thread.run_sync(held.wait)
        batch = [asyncio.create_task(journal.append(life.create(f"web-{n}"))) for n in range(3)]
        for _ in range(5):  # the first one leads, and has asked the thread
            await asyncio.sleep(0)
        for one in reversed(batch):
            one.cancel()
        ends = await asyncio.gather(*batch, return_exceptions=True)
        let.set()
        await busy
        assert {type(end) for end in ends} == {asyncio.CancelledError}
        with anyio.fail_after(30):
            await journal.append(life.create("web-9"))
        assert set(journal.machines) == {"web-9"}
