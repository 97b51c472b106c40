"""Who may drive a fleet, on one host: one state directory at a time, and never two under one epoch."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest

from nexcage._core.config import Config
from nexcage._lease import make_lease
from nexcage._sinks.disk import Disk
from nexcage._sinks.holder import Holder
from nexcage._sinks.lease import FileLease
from nexcage.errors import Busy, Fenced, JournalError
from nexcage.testing.clock import virtual_run

TTL = 60.0


class Watched(Disk):
    """Counts what is changed."""

    def __init__(self) -> None:
        self.renamed: list[str] = []

    def sync(self, fd: int) -> None:
        pass

    def rename(self, old: str, new: str, *, dir_fd: int | None = None) -> None:
        super().rename(old, new, dir_fd=dir_fd)
        self.renamed.append(new)


class Office:
    """State directories on one host that share a lease file, and the host's clock."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = path / "lease"
        self.now = 5000.0
        self._open: list[FileLease] = []

    def lease(self, state: str, *, ttl: float = TTL, disk: Disk | None = None, fleet: str = "f1") -> FileLease:
        port = disk or Watched()
        holder = Holder(port, str(self.path / state))
        made = FileLease(str(self.file), holder, fleet, ttl=ttl, clock=lambda: self.now, disk=port, inline=True)
        self._open.append(made)
        return made

    def read(self) -> dict[str, object]:
        return json.loads(self.file.read_bytes())

    def close(self) -> None:
        for one in self._open:
            one.holder.leave()


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    made = Office(tmp_path)
    yield made
    made.close()


async def test_the_first_who_asks_gets_it_and_another_directory_is_told_who_has_it(office: Office):
    a, b = office.lease("a"), office.lease("b")
    epoch = await a.hold()

    with pytest.raises(Busy) as refused:
        await b.hold()

    assert epoch == await a.hold() == office.read()["epoch"]
    assert f"fleet f1 is busy: its lease is held by {a.holder.id} on {os.uname().nodename} until 1970-" in str(
        refused.value
    )


async def test_holding_on_costs_nothing_within_a_third_of_the_ttl(office: Office):
    disk = Watched()
    a = office.lease("a", disk=disk)
    await a.hold()
    before = list(disk.renamed)
    office.file.unlink()  # any look at it would see that

    office.now += TTL / 3 - 0.1
    await a.hold()

    assert disk.renamed == before


async def test_it_is_renewed_after_a_third_of_the_ttl_under_the_same_epoch(office: Office):
    a = office.lease("a")
    epoch = await a.hold()

    office.now += TTL / 3 + 0.1

    assert await a.hold() == epoch
    assert office.read()["expires"] == office.now + TTL


async def test_a_dead_holder_is_replaced_at_once(office: Office):
    a, b = office.lease("a"), office.lease("b")
    epoch = await a.hold()
    a.holder.leave()  # what the kernel does when its process ends

    assert await b.hold() == epoch + 1


async def test_a_paused_holder_is_replaced_after_the_ttl_and_fails_when_it_wakes(office: Office):
    a, b = office.lease("a"), office.lease("b")
    epoch = await a.hold()
    office.now += TTL - 1
    with pytest.raises(Busy):
        await b.hold()
    office.now += 2
    taken = await b.hold()

    with pytest.raises(Fenced) as lost:
        await a.hold()

    assert taken == epoch + 1 == lost.value.epoch
    with pytest.raises(Busy):  # and it may not just go on
        await a.hold()


async def test_who_was_fenced_may_take_it_again_when_it_is_free_under_a_new_epoch(office: Office):
    a, b = office.lease("a"), office.lease("b")
    first = await a.hold()
    office.now += TTL + 1
    await b.hold()
    with pytest.raises(Fenced):
        await a.hold()

    await b.aclose()

    assert await a.hold() == first + 2


async def test_a_process_that_slept_fails_though_its_directory_has_the_lease_again(office: Office):
    slept, b, other = office.lease("a"), office.lease("b"), office.lease("a")
    first = await slept.hold()
    office.now += TTL + 1
    await b.hold()
    b.holder.leave()
    assert await other.hold() == first + 2

    with pytest.raises(Fenced):
        await slept.hold()

    assert await slept.hold() == first + 2


async def test_one_that_expired_and_that_nobody_took_goes_on(office: Office):
    a = office.lease("a")
    epoch = await a.hold()

    office.now += 100 * TTL

    assert await a.hold() == epoch


async def test_a_clock_that_jumps_forward_never_makes_two_of_one_epoch(office: Office):
    a, b = office.lease("a"), office.lease("b")
    before = await a.hold()

    office.now += 86400

    assert await b.hold() > before
    with pytest.raises(Fenced):
        await a.hold()


async def test_a_clock_that_jumps_back_does_not_make_a_lease_last_for_ever(office: Office):
    a, b = office.lease("a"), office.lease("b")
    office.now = 900_000.0
    before = await a.hold()

    office.now = 5000.0
    with pytest.raises(Busy):
        await b.hold()
    office.now += TTL + 1

    assert await b.hold() == before + 1
    with pytest.raises(Fenced):
        await a.hold()


async def test_a_holder_whose_clock_was_set_back_renews_at_once(office: Office):
    a = office.lease("a")
    before = await a.hold()

    office.now -= 3600

    assert await a.hold() == before
    assert office.read()["expires"] == office.now + TTL


async def test_a_lost_lease_file_never_makes_an_epoch_twice(office: Office):
    a, b = office.lease("a"), office.lease("b")
    seen = [await a.hold()]
    office.now += TTL + 1
    seen.append(await b.hold())
    office.file.unlink()

    office.now += TTL
    seen.append(await office.lease("a").hold())

    assert seen == sorted(set(seen))
    with pytest.raises(Fenced):
        await b.hold()


async def test_a_lease_file_that_is_put_back_from_a_backup_does_not_bring_its_epoch_back(office: Office):
    a, b = office.lease("a"), office.lease("b")
    await a.hold()
    old = office.file.read_bytes()
    office.now += TTL + 1
    await b.hold()
    b.holder.leave()
    with pytest.raises(Fenced):
        await a.hold()
    newest = await a.hold()
    a.holder.leave()
    office.file.write_bytes(old)

    assert await office.lease("a").hold() > newest


async def test_a_torn_lease_file_is_taken_anew(office: Office, caplog: pytest.LogCaptureFixture):
    a = office.lease("a")
    before = await a.hold()
    office.file.write_bytes(b'{"fleet": "f1", "ho\0\0\0')

    after = await office.lease("b").hold()

    assert after >= before
    with pytest.raises(Fenced):
        office.now += TTL
        await a.hold()
    assert "cannot be read and is taken anew" in caplog.text


async def test_a_lease_of_another_fleet_is_refused(office: Office):
    await office.lease("a").hold()

    with pytest.raises(JournalError, match="is the lease of fleet f1, not f2: every fleet needs its own"):
        await office.lease("b", fleet="f2").hold()


async def test_a_torn_holder_file_is_made_anew_and_was_nobodys(office: Office):
    (office.path / "a").mkdir(mode=0o700)
    (office.path / "a" / "holder").write_bytes(b"12345")

    a = office.lease("a")
    await a.hold()

    assert (office.path / "a" / "holder").read_text() == f"{a.holder.id}\n"
    assert len(a.holder.id) == 16


async def test_files_keep_their_modes_under_umask_0(office: Office):
    before = os.umask(0)
    try:
        await office.lease("a").hold()
    finally:
        os.umask(before)

    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in office.path.rglob("*") if path.is_file()}
    assert set(modes) == {"epoch", "holder", "lease", "lease.lock"}
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE((office.path / "a").stat().st_mode) == 0o700


def test_a_process_stopped_inside_the_lock_is_named_and_not_waited_for_without_end(office: Office):
    a = office.lease("a")
    office.path.joinpath("lease.lock").touch()
    with office.path.joinpath("lease.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        with pytest.raises(Busy, match="its lease file is locked by a process that does not go on"):
            virtual_run(a.hold)

    assert virtual_run(a.hold) > 0


async def test_a_disk_that_fails_is_a_journal_error(office: Office):
    class Full(Disk):
        def write(self, fd: int, data: bytes) -> None:
            raise OSError(28, "No space left on device")

    with pytest.raises(JournalError, match=r"cannot be kept, so nothing new is begun: .*No space left"):
        await office.lease("a", disk=Full()).hold()


async def test_without_a_path_a_state_directory_has_a_lease_of_its_own(tmp_path: Path):
    ones = [make_lease(Config(), tmp_path / name, "f1", lambda: 1000.0, {}) for name in "ab"]

    epochs = [await one.hold() for one in ones]

    assert epochs == [1000, 1000]  # two leases: nobody shares them
    for one in ones:
        await one.aclose()


# Processes

_PROCESS = """
import sys, time
import anyio
from nexcage._sinks.disk import Disk
from nexcage._sinks.holder import Holder
from nexcage._sinks.lease import FileLease

async def main(path, state, times):
    lease = FileLease(path, Holder(Disk(), state), "f1", ttl=30.0, clock=time.time)
    for n in range(int(times)):
        print(await lease.hold(), lease.holder.id, flush=True)
        lease._renewed = (0.0, 0.0)
        if n == 0 and times != "1":
            print("holding", flush=True)
    sys.stdin.read()
    await lease.aclose()

anyio.run(main, *sys.argv[1:])
"""


@contextmanager
def process(office: Office, state: str, times: int = 1) -> Iterator[subprocess.Popen[str]]:
    argv = [sys.executable, "-c", _PROCESS, str(office.file), str(office.path / state), str(times)]
    child = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def test_twenty_processes_of_one_state_directory_share_one_epoch(office: Office):
    seen: set[str] = set()
    children: list[subprocess.Popen[str]] = []
    argv = [sys.executable, "-c", _PROCESS, str(office.file), str(office.path / "a"), "1"]
    try:
        children += [
            subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(20)
        ]
        for child in children:
            assert child.stdout is not None
            seen.add(child.stdout.readline())
    finally:
        for child in children:
            child.communicate()

    assert len(seen) == 1
    assert office.read()["epoch"] == int(seen.pop().split()[0])


async def test_a_killed_process_leaves_a_lease_that_others_take_at_once(office: Office):
    with process(office, "a") as child:
        assert child.stdout is not None
        epoch = int(child.stdout.readline().split()[0])
        office.now = float(epoch)
        with pytest.raises(Busy):
            await office.lease("b").hold()
        child.send_signal(signal.SIGKILL)
        child.wait()

        assert await office.lease("b").hold() == epoch + 1


async def test_killed_at_any_moment_of_renewing_leaves_a_valid_file(office: Office):
    random, epochs = Random(7), [0]
    for turn in range(6):
        with process(office, "ab"[turn % 2], times=1_000_000) as child:
            assert child.stdout is not None
            while child.stdout.readline().strip() != "holding":
                pass
            for _ in range(random.randrange(200)):  # about one line per renewal
                child.stdout.readline()
            child.send_signal(signal.SIGKILL)
            child.wait()
        held = office.read()
        assert held["fleet"] == "f1"
        epochs.append(int(str(held["epoch"])))

    assert epochs == sorted(set(epochs))
