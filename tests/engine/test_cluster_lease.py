"""Who may drive a fleet, over a whole cluster: one state directory at a time, kept by pmxcfs."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import pytest

import nexcage
from nexcage._core.command import Command, Result
from nexcage._core.config import Config, LeaseConfig
from nexcage._engine.cluster_lease import ClusterLease
from nexcage._engine.node import answer
from nexcage._lease import make_lease
from nexcage._sinks.disk import Disk
from nexcage._sinks.holder import Holder
from nexcage.errors import Busy, Fenced, InvalidSpec, NodeUnreachable, NoQuorum
from nexcage.testing import SimCluster, every_crash
from nexcage.testing._model.node import SIM
from nexcage.tools import lease as words

TTL = 60.0


class Keeper:
    """A node of the simulated cluster, over a link."""

    def __init__(self, sim: SimCluster, name: str) -> None:
        self.key = name
        self.asked = 0
        self._transport = sim.transport(name)

    async def run(self, command: Command[Any]) -> Any:
        self.asked += 1
        return answer(command, await self._transport.run(command), self.key)


class Hosts:
    """Drivers with state directories of their own, on hosts of their own."""

    def __init__(self, sim: SimCluster, path: Path) -> None:
        self.sim = sim
        self.path = path
        self.skew = 0.0
        self._open: list[Holder] = []

    def clock(self) -> float:
        return self.sim.clock() + self.skew

    def lease(self, state: str, *nodes: str) -> ClusterLease:
        holder = Holder(Disk(), str(self.path / state))
        self._open.append(holder)
        self.keepers = [Keeper(self.sim, name) for name in nodes or self.sim.hosts]
        return ClusterLease(self.keepers, holder, "f1", ttl=TTL, clock=self.clock)

    def close(self) -> None:
        for holder in self._open:
            holder.leave()


@pytest.fixture
def hosts(sim: SimCluster, tmp_path: Path) -> Iterator[Hosts]:
    made = Hosts(sim, tmp_path)
    yield made
    made.close()


async def test_the_second_driver_is_told_who_has_it(hosts: Hosts):
    a, b = hosts.lease("a"), hosts.lease("b", "pve-02")
    epoch = await a.hold()

    with pytest.raises(Busy, match=rf"its lease is held by {a.holder.id} on [0-9A-Za-z-]+ until that has not renewed"):
        await b.hold()

    assert await a.hold() == epoch


async def test_holding_on_costs_no_command_within_a_third_of_the_ttl(hosts: Hosts):
    a = hosts.lease("a", "pve-01")
    await a.hold()

    await anyio.sleep(TTL / 3 - 1)
    await a.hold()
    before = hosts.keepers[0].asked
    await anyio.sleep(2)
    await a.hold()

    assert (before, hosts.keepers[0].asked) == (1, 2)


async def test_renewed_it_lasts_longer_than_pmxcfs_keeps_a_lock(hosts: Hosts):
    a, b = hosts.lease("a"), hosts.lease("b")
    epoch = await a.hold()

    for _ in range(10):
        await anyio.sleep(TTL / 2)
        assert await a.hold() == epoch
        with pytest.raises(Busy):
            await b.hold()


async def test_a_driver_paused_past_the_ttl_is_replaced_and_fails_when_it_wakes(hosts: Hosts):
    a, b = hosts.lease("a"), hosts.lease("b")
    epoch = await a.hold()
    await anyio.sleep(119)
    with pytest.raises(Busy):
        await b.hold()
    await anyio.sleep(2)
    taken = await b.hold()

    with pytest.raises(Fenced) as lost:
        await a.hold()

    assert taken == epoch + 1 == lost.value.epoch
    with pytest.raises(Busy):
        await a.hold()
    await b.aclose()
    assert await a.hold() == epoch + 2


async def test_closing_gives_it_back_under_the_same_epoch_for_the_same_directory(hosts: Hosts):
    one = hosts.lease("a")
    epoch = await one.hold()
    await one.aclose()

    again = hosts.lease("a")

    assert await again.hold() == epoch
    await again.aclose()
    assert await hosts.lease("b").hold() == epoch + 1


async def test_a_process_that_ends_does_not_give_away_what_another_one_holds(hosts: Hosts):
    one, two, other = hosts.lease("a"), hosts.lease("a"), hosts.lease("b")
    epoch = await one.hold()
    assert await two.hold() == epoch

    await one.aclose()

    with pytest.raises(Busy):
        await other.hold()
    assert await two.hold() == epoch


async def test_twenty_processes_of_one_directory_share_one_epoch_while_others_want_it(hosts: Hosts):
    seen: set[int] = set()

    async def hold(lease: ClusterLease) -> None:
        seen.add(await lease.hold())

    first = hosts.lease("a")
    seen.add(await first.hold())
    async with anyio.create_task_group() as tasks:
        for n in range(20):
            tasks.start_soon(hold, hosts.lease("a", f"pve-0{n % 3 + 1}"))

    assert len(seen) == 1


async def test_of_many_directories_at_once_one_gets_it(hosts: Hosts):
    won: list[int] = []
    refused: list[Busy] = []

    async def hold(lease: ClusterLease) -> None:
        try:
            won.append(await lease.hold())
        except Busy as error:
            refused.append(error)

    async with anyio.create_task_group() as tasks:
        for n in range(10):
            tasks.start_soon(hold, hosts.lease(f"s{n}", f"pve-0{n % 3 + 1}"))

    assert (len(won), len(refused)) == (1, 9)


async def test_without_quorum_nothing_is_taken_or_renewed_and_afterwards_it_goes_on(hosts: Hosts):
    a = hosts.lease("a", "pve-01")
    epoch = await a.hold()
    files = hosts.sim["pve-01"].files
    files.write(f"{SIM}/no-quorum", "")
    await anyio.sleep(TTL / 2)

    with pytest.raises(NoQuorum, match="no quorum on node pve-01: the fleet's lease cannot be kept"):
        await a.hold()

    files.remove(f"{SIM}/no-quorum")
    assert await a.hold() == epoch


async def test_a_node_that_is_down_costs_only_the_renewal_through_it(hosts: Hosts):
    a, b = hosts.lease("a"), hosts.lease("b", "pve-02")
    epoch = await a.hold()
    hosts.sim["pve-01"].crash()

    for _ in range(
        5
    ):  # only its maker may touch a lock; once it has expired, the holder makes it anew through another node
        await anyio.sleep(TTL / 2)
        assert await a.hold() == epoch
        with pytest.raises(Busy):
            await b.hold()


async def test_with_every_node_away_nothing_is_begun(hosts: Hosts):
    a = hosts.lease("a")
    for node in hosts.sim:
        node.crash()

    with pytest.raises(NodeUnreachable):
        await a.hold()


async def test_clocks_that_jump_never_make_two_of_one_epoch(hosts: Hosts):
    a, b = hosts.lease("a"), hosts.lease("b")
    seen = [await a.hold()]
    for skew in (-86400.0, 86400.0, -3600.0):
        hosts.skew = skew
        assert await a.hold() == seen[0]
    await anyio.sleep(121)
    hosts.skew = 0.0
    seen.append(await b.hold())
    await anyio.sleep(121)
    hosts.skew = -1e6
    with pytest.raises(Fenced):
        await a.hold()
    seen.append(await a.hold())

    assert seen == [seen[0], seen[0] + 1, seen[0] + 2]


async def test_an_epoch_that_the_directory_has_had_does_not_come_back_when_the_cluster_forgets(hosts: Hosts):
    a = hosts.lease("a")
    first = await a.hold()
    await a.aclose()
    hosts.sim["pve-01"].files.remove("/etc/pve/priv")

    assert await hosts.lease("a").hold() > first


def test_it_is_chosen_by_the_settings(tmp_path: Path):
    settings = Config(lease=LeaseConfig(kind="cluster"))

    assert isinstance(make_lease(settings, tmp_path, "f1", lambda: 0.0, {}), ClusterLease)
    with pytest.raises(InvalidSpec, match=r"lease\.node"):
        make_lease(Config(lease=LeaseConfig(kind="cluster", node="x")), tmp_path, "f1", lambda: 0.0, {})


# The scripts themselves, where no pmxcfs is: everything but the expiry.


class Shell:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.priv = root / "etc" / "pve" / "priv"
        self.priv.mkdir(parents=True)
        (root / "etc" / "pve" / "local").mkdir()
        self.members(1)

    def members(self, quorate: int) -> None:
        (self.root / "etc/pve/.members").write_text(f'{{"cluster": {{ "name": "x", "quorate": {quorate} }}}}\n')

    def run(self, command: Command[Any]) -> Any:
        done = subprocess.run(
            command.argv, capture_output=True, env={"NEXCAGE_NODE_ROOT": str(self.root), "PATH": "/usr/bin:/bin"}
        )
        return answer(command, Result(done.returncode, done.stdout, done.stderr), "pve")

    def hold(self, holder: str, *, highest: int = 0, now: float = 1000.0) -> tuple[bool, bool, int, str]:
        said = self.run(words.hold("f1", holder, "my.host", highest=highest, now=now))
        return said.mine, said.renewed, said.epoch, said.holder


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def test_the_script_takes_renews_refuses_and_hands_over(shell: Shell):
    steps = [shell.hold("a"), shell.hold("a"), shell.hold("b")]
    shell.run(words.release("f1", "b"))
    steps.append(shell.hold("b"))
    shell.run(words.release("f1", "a"))
    steps += [shell.hold("b"), shell.hold("a", highest=1000)]

    assert steps == [
        (True, True, 1000, "a"),
        (True, True, 1000, "a"),
        (False, False, 1000, "a"),
        (False, False, 1000, "a"),
        (True, True, 1001, "b"),
        (False, False, 1001, "b"),
    ]
    assert sorted(path.name for path in shell.priv.iterdir()) == ["lock", "nexcage-f1.lease.1001.b.my-host"]


def test_the_script_counts_on_from_what_the_directory_has_had(shell: Shell):
    assert shell.hold("a", highest=5000) == (True, True, 5001, "a")
    assert shell.hold("a", highest=6000) == (True, True, 6001, "a")  # its lock still stands, and nobody else has it
    assert shell.hold("b", highest=9000) == (False, False, 6001, "a")
    shell.run(words.release("f1", "a"))
    assert shell.hold("a", highest=7000) == (True, True, 7001, "a")


def test_the_script_leaves_other_fleets_alone(shell: Shell):
    shell.hold("a")
    others = ["nexcage-f1.lease.notes", "nexcage-f1.lease.12", "nexcage-f2.lease.9.b.h", "nexcage-f1.lease.1x.a.b"]
    for name in others:
        (shell.priv / name).touch()

    assert shell.hold("a") == (True, True, 1000, "a")
    assert all((shell.priv / name).exists() for name in others)


def test_two_files_of_one_epoch_are_nobodys_lease(shell: Shell):
    shell.hold("a")
    (shell.priv / "nexcage-f1.lease.1000.b.h").touch()
    shell.run(words.release("f1", "a"))

    assert shell.hold("b") == (True, True, 1001, "b")


def test_the_script_says_that_there_is_no_quorum(shell: Shell):
    shell.members(0)

    with pytest.raises(NoQuorum):
        shell.hold("a")
    assert not list(shell.priv.iterdir())


# Whole drivers

SPEC = nexcage.Spec(image="local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst")


@pytest.mark.parametrize("kind", ["cluster", "file"])
async def test_of_two_drivers_the_one_that_slept_can_do_nothing_more(kind: str, sim: SimCluster, tmp_path: Path):
    lease = LeaseConfig(kind="cluster") if kind == "cluster" else LeaseConfig(path=str(tmp_path / "lease"))
    config = Config(fleet="f1", lease=lease)
    one = {"config": config, "state_dir": tmp_path / "a", "run_dir": tmp_path / "run-a"}
    two = {"config": config, "state_dir": tmp_path / "b", "run_dir": tmp_path / "run-b"}
    async with sim.fleet(**one) as slept, sim.fleet(**two) as other:
        await slept["web-1"].create(SPEC)
        with pytest.raises(Busy, match="fleet f1 is busy: its lease is held by"):
            await other["web-2"].create(SPEC)

        await anyio.sleep(130)
        await other["web-2"].create(SPEC)

        with pytest.raises(Fenced):
            await slept["web-1"].start()
        with pytest.raises(Busy):
            await slept["web-1"].start()

    assert [effect["argv"][:2] for effect in sim.effects()] == [["pct", "create"], ["pct", "create"]]


def test_a_driver_that_holds_a_cluster_lease_may_die_at_any_point():
    async def create(fleet: nexcage.Fleet) -> None:
        with suppress(nexcage.AlreadyExists):
            await fleet["web-1"].create(SPEC)

    config = Config(fleet="f1", lease=LeaseConfig(kind="cluster"))

    assert every_crash(create, config=config, most=60).cases == 60
