"""What other people do on simulated nodes, and what fails for everybody there."""

from __future__ import annotations

import anyio
import pytest

from nexcage import Command, InvalidInput, Result
from nexcage._core.command import nothing
from nexcage._core.seen import Look, Mark
from nexcage.testing import SimCluster, SimNode
from nexcage.tools import lxc

DEBIAN = "local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst"
MARK = Mark("f1", "web", 100, "op-1")


class Bench:
    def __init__(self, sim: SimCluster) -> None:
        sim.pace = 1.0
        self.sim = sim
        self.node: SimNode = sim["pve-01"]

    async def pct(self, *words: str) -> Result:
        return await self.node.run(("pct", *words))

    async def create(self, vmid: int = 100) -> Result:
        return await self.pct(
            "create", str(vmid), DEBIAN, "--storage", "local-zfs", "--description", str(MARK), "--hostname", "ours"
        )

    async def look(self, name: str = "pve-01") -> Look:
        command = lxc.look(name)
        return command.parse(await self.sim[name].run(command.argv))

    def made(self) -> int:
        """How many calls changed something."""
        return len(self.sim.effects())


@pytest.fixture
def bench(sim: SimCluster) -> Bench:
    return Bench(sim)


async def test_a_rival_takes_the_vmid_before_us(bench: Bench) -> None:
    bench.node.fault("rival", on="pct create")
    result = await bench.create()
    assert result.exit != 0
    assert b"CT 100 already exists on node 'pve-01'" in result.stderr
    assert (await bench.look()).guests[100].mark is None
    assert bench.made() == 0


async def test_a_rival_elsewhere_takes_it_too(bench: Bench) -> None:
    bench.node.fault("rival", on="pct create", to="pve-02")
    assert b"already exists on node 'pve-02'" in (await bench.create()).stderr


async def test_a_rival_takes_the_vmid_after_our_create_has_failed(bench: Bench) -> None:
    bench.node.fault("rival", on="pct create", after=True)
    result = await bench.create()
    assert result.exit not in (0, None)
    assert b"received interrupt" in result.stderr
    guest = (await bench.look()).guests[100]
    assert (guest.name, guest.mark) == ("theirs", None)
    assert (await bench.pct("start", "100")).exit == 0


@pytest.mark.parametrize("running", [False, True])
async def test_another_container_has_taken_the_place_of_ours(bench: Bench, running: bool) -> None:
    await bench.create()
    bench.node.fault("swap", vmid=100, running=running)
    guest = (await bench.look()).guests[100]
    assert (guest.name, guest.mark, guest.running) == ("theirs", None, running)
    assert bench.made() == 1


async def test_it_may_have_our_mark_with_something_else_in_it(bench: Bench) -> None:
    await bench.create()
    bench.node.fault("swap", on="pct start", mark="edited")
    await bench.pct("start", "100")
    guest = (await bench.look()).guests[100]
    assert guest.mark is not None
    assert (guest.mark.id, guest.mark.op, guest.running) == ("web", "op-1-2", True)


async def test_between_look_and_command_the_guard_sees_the_swap(bench: Bench) -> None:
    await bench.create()
    bench.node.fault("swap", on="pct start")
    command = lxc.guarded(MARK, Command(("pct", "start", "100"), parse=nothing))
    assert (await bench.node.run(command.argv)).exit == 9
    assert not bench.node.model.is_running(100)


async def test_a_container_that_was_moved_is_on_the_other_node_with_its_volumes(bench: Bench) -> None:
    await bench.create()
    await bench.pct("start", "100")
    bench.node.fault("migrate", vmid=100, to="pve-02")

    assert 100 not in (await bench.look()).guests
    look = await bench.look("pve-02")
    assert (look.guests[100].mark, look.guests[100].running, look.vmids[100]) == (MARK, True, "pve-02")
    assert (await bench.sim["pve-02"].run(["pct", "stop", "100"])).exit == 0
    assert (await bench.sim["pve-02"].run(["pct", "start", "100"])).exit == 0
    assert (await bench.sim["pve-02"].run(["pct", "destroy", "100", "--force"])).exit == 0
    assert (await bench.create()).exit == 0


async def test_a_move_to_nowhere_is_refused(bench: Bench) -> None:
    await bench.create()
    with pytest.raises(InvalidInput, match="pve-02"):
        bench.node.fault("migrate", vmid=100, to="pve-99")


async def test_a_managed_container_changes_its_state_later(bench: Bench) -> None:
    await bench.create()
    bench.node.fault("ha-delay", vmid=100, seconds=20)
    result = await bench.pct("start", "100")
    assert (result.exit, result.stdout) == (0, b"Requesting HA start for CT 100\n")
    assert not bench.node.model.is_running(100)
    await anyio.sleep(21)
    assert (await bench.look()).guests[100].running

    result = await bench.pct("stop", "100")
    assert (result.exit, result.stdout) == (0, b"Requesting HA stop for CT 100\n")
    assert bench.node.model.is_running(100)
    await anyio.sleep(21)
    assert not (await bench.look()).guests[100].running
    assert b"purge parameter" in (await bench.pct("destroy", "100")).stderr
    assert (await bench.pct("destroy", "100", "--purge")).exit == 0


async def test_without_quorum_nothing_can_be_changed_for_a_while(bench: Bench) -> None:
    await bench.create()
    bench.node.fault("no-quorum", seconds=60)
    assert not (await bench.look()).quorate
    assert b"no quorum" in (await bench.pct("start", "100")).stderr
    assert (await bench.create(101)).exit != 0
    await anyio.sleep(61)
    assert (await bench.look()).quorate
    assert (await bench.pct("start", "100")).exit == 0


@pytest.mark.parametrize(("storage", "says"), [("local-zfs", b"out of space"), ("local", b"tar xpf")])
async def test_a_full_storage_fails_a_create_that_leaves_nothing(bench: Bench, storage: str, says: bytes) -> None:
    bench.node.fault("storage-full", on="pct create")
    words = ("create", "100", DEBIAN, "--storage", storage)
    result = await bench.pct(*words)
    assert result.exit != 0
    assert says in result.stderr
    assert bench.node.model.config(100) is None
    assert (await bench.pct(*words)).exit == 0


async def test_a_storage_is_full_until_it_is_not(bench: Bench) -> None:
    bench.node.fault("storage-full", storage="local-zfs")
    assert (await bench.create()).exit != 0
    bench.node.fault("storage-free", storage="local-zfs")
    assert (await bench.create()).exit == 0


@pytest.mark.parametrize("seconds", [3600.0, -3600.0])
async def test_a_clock_that_jumps_does_not_change_how_long_a_node_is_up(bench: Bench, seconds: float) -> None:
    await anyio.sleep(10)
    before = (await bench.look()).uptime, float((await bench.node.run(["date", "+%s"])).stdout)
    bench.node.fault("clock-jump", seconds=seconds)
    after = (await bench.look()).uptime, float((await bench.node.run(["date", "+%s"])).stdout)
    assert 0 <= after[0] - before[0] < 5
    assert abs(after[1] - before[1] - seconds) < 5


async def test_a_shutdown_lasts_as_long_as_ever_while_the_clock_jumps(bench: Bench) -> None:
    await bench.create()
    await bench.pct("start", "100")
    bench.node.react(100, "stubborn")
    began = anyio.current_time()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bench.pct, "shutdown", "100", "--timeout", "10", "--forceStop", "1")
        await anyio.sleep(5)
        bench.node.fault("clock-jump", seconds=-3600)
    assert 10 <= anyio.current_time() - began < 20


async def test_a_live_owner_of_the_flock_is_waited_for(bench: Bench) -> None:
    await bench.create()
    bench.node.fault("busy", on="pct start", seconds=5)
    result = await bench.pct("start", "100")
    assert result.exit == 0
    assert b"trying to acquire lock..." in result.stdout + result.stderr


async def test_a_live_owner_that_stays_is_not(bench: Bench) -> None:
    await bench.create()
    bench.node.fault("busy", on="pct start", seconds=60, lock="backup")
    result = await bench.pct("start", "100")
    assert b"got timeout" in result.stderr
    look = await bench.look()
    assert look.guests[100].lock == "backup"
    assert [(task.type, task.vmid) for task in look.tasks] == [("vzdump", 100)]
    await anyio.sleep(60)
    look = await bench.look()
    assert (look.guests[100].lock, look.tasks) == ("", ())
    assert (await bench.pct("start", "100")).exit == 0


async def test_a_dead_owner_leaves_its_config_lock_and_no_flock(bench: Bench) -> None:
    await bench.create()
    bench.node.fault("busy", vmid=100, seconds=1, lock="backup", dies=True)
    await anyio.sleep(2)
    look = await bench.look()
    assert (look.guests[100].lock, look.tasks) == ("backup", ())
    assert b"CT is locked (backup)" in (await bench.pct("start", "100")).stderr


@pytest.mark.parametrize("kind", ["busy", "rival", "swap", "migrate", "ha-delay"])
async def test_what_is_done_to_one_container_needs_one(bench: Bench, kind: str) -> None:
    with pytest.raises(InvalidInput, match="vmid"):
        bench.node.fault(kind)


async def test_one_way_loss_is_noticed_when_the_link_is_given_up(bench: Bench) -> None:
    transport = bench.sim.transport("pve-01")
    bench.node.fault("half-open", on="pct create")
    began = anyio.current_time()
    command = Command(("pct", "create", "100", DEBIAN), parse=nothing)
    result = await transport.run(command)
    assert (result.exit, result.lost) == (None, "link")
    assert 30 < anyio.current_time() - began < 60
    assert bench.node.model.config(100) is not None
    assert (await transport.run(Command(("pct", "list"), parse=nothing))).exit == 0
