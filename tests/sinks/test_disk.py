"""Disks that die and disks that fail: what they leave is what a machine may find, and the journal and the lease live with it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from nexcage import NexcageError
from nexcage._sinks.disk import Disk, directory, made_directory, write_whole
from nexcage._sinks.holder import Holder
from nexcage._sinks.journal import open_journal
from nexcage._sinks.lease import FileLease
from nexcage._sinks.segments import read_journal
from nexcage.errors import JournalError
from nexcage.testing import Crash, CrashDisk, Fate, FaultyDisk, virtual_run
from nexcage.testing.disk import AFTER, DISK_FAULTS, After


def written(disk: Disk, path: Path, data: bytes, *, sync: bool) -> None:
    fd = disk.open(str(path), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    disk.write(fd, data)
    if sync:
        disk.sync(fd)
    os.close(fd)


def synced(disk: Disk, path: Path) -> None:
    fd = directory(str(path))
    disk.sync(fd)
    os.close(fd)


def died(disk: CrashDisk, after: After, random: Random | None = None) -> None:
    disk.fate.die()
    disk.present(after, random)


def test_what_was_synced_with_its_directory_is_there_after_the_power_failed(tmp_path: Path):
    disk = CrashDisk(tmp_path)
    written(disk, tmp_path / "a", b"one", sync=True)
    synced(disk, tmp_path)
    written(disk, tmp_path / "a", b"two", sync=False)

    died(disk, "lost")

    assert (tmp_path / "a").read_bytes() == b"one"


def test_a_file_whose_directory_was_not_synced_is_gone(tmp_path: Path):
    disk = CrashDisk(tmp_path)
    written(disk, tmp_path / "a", b"one", sync=True)

    died(disk, "lost")

    assert list(tmp_path.iterdir()) == []


def test_renames_and_removals_that_were_not_synced_are_undone(tmp_path: Path):
    (tmp_path / "old").write_bytes(b"old")
    (tmp_path / "other").write_bytes(b"other")
    (tmp_path / "folder").mkdir()
    disk = CrashDisk(tmp_path)
    written(disk, tmp_path / ".new", b"new", sync=True)
    disk.rename(str(tmp_path / ".new"), str(tmp_path / "old"))
    disk.unlink(str(tmp_path / "other"))
    disk.rmdir(str(tmp_path / "folder"))
    disk.mkdir(str(tmp_path / "made"))

    died(disk, "lost")

    assert {path.name: path.is_dir() or path.read_bytes() for path in tmp_path.iterdir()} == {
        "old": b"old",
        "other": b"other",
        "folder": True,
    }


def test_a_file_written_whole_is_the_old_or_the_new_one_whenever_it_dies(tmp_path: Path):
    seen: set[bytes] = set()
    for after in AFTER:
        for at in range(20):
            home = tmp_path / f"{after}-{at}"
            home.mkdir()
            (home / "file").write_bytes(b"old")
            disk = CrashDisk(home, Fate(at))
            folder = directory(str(home))
            try:
                write_whole(disk, "file", b"new and longer", dir_fd=folder, durable=True)
            except Crash:
                disk.present(after, Random(at))
            os.close(folder)
            seen.add((home / "file").read_bytes())

    assert seen == {b"old", b"new and longer"}


def test_a_directory_is_made_durably_with_its_parents(tmp_path: Path):
    disk = CrashDisk(tmp_path)
    made_directory(disk, str(tmp_path / "a" / "b" / "c"))

    died(disk, "lost")

    assert (tmp_path / "a" / "b" / "c").is_dir()


def test_torn_leaves_a_piece_or_nuls_of_the_right_length_and_never_touches_what_was_synced(tmp_path: Path):
    seen: set[bytes] = set()
    for seed in range(60):
        home = tmp_path / str(seed)
        home.mkdir()
        disk = CrashDisk(home)
        written(disk, home / "a", b"one", sync=True)
        written(disk, home / "a", b"XY", sync=False)
        died(disk, "torn", Random(seed))
        seen.add((home / "a").read_bytes())

    assert seen == {b"one", b"oneX", b"oneXY", b"one\0\0", b"oneX\0"}


def test_nothing_can_be_done_after_death_and_its_locks_are_free(tmp_path: Path):
    disk = CrashDisk(tmp_path)
    holder = Holder(disk, str(tmp_path))
    assert holder.join()

    disk.fate.die()

    with pytest.raises(Crash):
        disk.mkdir(str(tmp_path / "x"))
    other = Holder(Disk(), str(tmp_path))
    assert other.join()
    assert other.last()  # nobody else has it locked
    other.leave()
    holder.leave()


def test_an_exception_handler_does_not_catch_a_death(tmp_path: Path):
    disk = CrashDisk(tmp_path, Fate(0))

    with pytest.raises(Crash):
        try:
            disk.mkdir(str(tmp_path / "x"))
        except Exception:
            pytest.fail("caught")


# The lease


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def _lease(home: Path, state: str, disk: Disk, clock: Clock) -> FileLease:
    holder = Holder(disk, str(home / state))
    return FileLease(str(home / "lease"), holder, "f1", ttl=60.0, clock=clock, disk=disk, inline=True)


def _deaths(tmp_path: Path) -> Iterator[tuple[Path, int, After]]:
    for after in AFTER:
        for at in range(60):
            home = tmp_path / f"{after}-{at}"
            home.mkdir()
            yield home, at, after


async def test_dying_anywhere_in_taking_and_renewing_a_lease_never_makes_an_epoch_twice(tmp_path: Path):
    deaths = 0
    for home, at, after in _deaths(tmp_path):
        clock, had = Clock(), list[tuple[int, str]]()
        first = _lease(home, "a", Disk(), clock)
        had.append((await first.hold(), "a"))
        first.holder.leave()
        disk = CrashDisk(home, Fate(at))
        second = _lease(home, "b", disk, clock)
        try:
            had.append((await second.hold(), "b"))
            clock.now += 30
            had.append((await second.hold(), "b"))
        except Crash:
            deaths += 1
            disk.present(after, Random(at))
        second.holder.leave()
        for state in "aba":
            third = _lease(home, state, Disk(), clock)
            had.append((await third.hold(), state))
            third.holder.leave()

        by_epoch: dict[int, set[str]] = {}
        for epoch, state in had:
            by_epoch.setdefault(epoch, set()).add(state)
        assert all(len(holders) == 1 for holders in by_epoch.values()), (at, after, had)
        assert [epoch for epoch, _ in had] == sorted(epoch for epoch, _ in had), (at, after, had)

    assert deaths >= 20 * len(AFTER)


# The journal, with a seed


@pytest.mark.parametrize("seed", range(20))
def test_a_journal_on_a_faulty_disk_loses_nothing_that_it_said_was_durable(seed: int, tmp_path: Path, life):
    random = Random(seed)
    told: list[int] = []
    refused = 0

    async def one_program(n: int) -> FaultyDisk:
        nonlocal refused
        disk = FaultyDisk(random)
        async with open_journal(tmp_path, owner=f"p{n}", disk=disk, inline=True) as journal:
            disk.rate = 0.15
            for step in range(8):
                id = f"c{n}-{step}"
                try:
                    told.extend(event.seq for event in await journal.append(life.create(id)))
                    told.extend(event.seq for event in await journal.append(life.created(id)))
                except JournalError:
                    refused += 1
            disk.rate = 0.0
        return disk

    for n in range(4):
        disk = virtual_run(one_program, n)
        disk.tear(random.choice(("torn", "nul")))

    seqs = [event.seq for event in read_journal(tmp_path)]
    assert set(told) <= set(seqs)
    assert seqs == sorted(set(seqs))
    assert refused
    assert len(told) > 10


@pytest.mark.parametrize("kind", DISK_FAULTS)
def test_each_fault_can_be_asked_for_and_costs_what_was_asked_then(kind: str, tmp_path: Path, life):
    async def main() -> None:
        disk = FaultyDisk(Random(1))
        async with open_journal(tmp_path, owner="me", disk=disk, inline=True) as journal:
            await journal.append(life.create("a"), life.created("a"))
            disk.fault(kind)
            if kind != "read-only":  # only a new file is refused then
                with pytest.raises(NexcageError):
                    await journal.append(life.create("b"))
                assert disk.hits == [kind]
            await journal.append(life.create("b"))
            assert set(journal.machines) == {"a", "b"}

    virtual_run(main)


def test_a_fault_that_there_is_not_is_named():
    with pytest.raises(ValueError, match="no such disk fault: 'fire'"):
        FaultyDisk(Random(1)).fault("fire")
