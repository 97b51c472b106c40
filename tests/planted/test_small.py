"""Small runs of the machines that try to break everything: enough of them to notice a known mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

import nexcage
from nexcage import Create, Delete, Spec, Start, Stop
from nexcage._sinks.disk import Disk
from nexcage._sinks.journal import open_journal
from nexcage.testing import SimCluster
from nexcage.testing.crashes import every_crash
from nexcage.testing.explore import explore

SPEC = Spec("local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst", storage="local-zfs")


async def begins(fleet: nexcage.Fleet) -> None:
    await fleet.run([Create("web-1", SPEC), Start("web-1")])


async def ends(fleet: nexcage.Fleet) -> None:
    await fleet.run([Stop("web-1", timeout=5.0), Delete("web-1", force=True)])


@pytest.mark.timeout(600)
def test_the_beginning_of_a_life_survives_death_at_some_points() -> None:
    every_crash(begins, most=40)


@pytest.mark.timeout(600)
def test_the_end_of_a_life_survives_death_at_some_points() -> None:
    every_crash(ends, before=begins, most=40)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(12))
def test_seeds(seed: int) -> None:
    history = explore(seed)
    assert history.wrong == (), history.seed


@pytest.mark.sim(nodes=1)
async def test_of_two_state_directories_the_second_one_has_a_higher_epoch(sim: SimCluster, tmp_path: Path) -> None:
    lease = nexcage.LeaseConfig(path=str(tmp_path / "lease"), ttl=10)
    epochs = []
    for name in ("one", "two", "one"):
        config = nexcage.Config(fleet="f1", lease=lease)
        async with sim.fleet(config=config, state_dir=tmp_path / name, run_dir=tmp_path / f"run-{name}") as fleet:
            await fleet[f"web-{len(epochs)}"].create(SPEC)
        epochs.append(max(e.epoch for e in nexcage.read_journal(tmp_path / name) if isinstance(e, nexcage.Began)))
    assert epochs == sorted(set(epochs))


class _Full(Disk):
    """A disk that is full now and then."""

    full = False

    def sync(self, fd: int) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
        super().sync(fd)


async def test_nobody_hears_of_a_record_that_is_not_durable(tmp_path: Path) -> None:
    heard: list[int] = []
    disk = _Full()
    async with open_journal(
        tmp_path, owner="me", disk=disk, on_events=lambda events, _: heard.extend(event.seq for event in events)
    ) as journal:
        await journal.append(nexcage.NodeFound(node="pve-01"))
        disk.full = True
        with pytest.raises(nexcage.JournalError):
            await journal.append(nexcage.NodeFound(node="pve-02"))
        assert heard == [1]
        disk.full = False
        await journal.append(nexcage.NodeFound(node="pve-03"))
    assert heard == [1, 2]
    assert [event.seq for event in nexcage.read_journal(tmp_path, strict=True)] == [1, 2]
