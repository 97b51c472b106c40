"""What a dead driver left is found out when a fleet is opened: by what the node kept, by what is to be seen, never by guessing."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import msgspec
import pytest

import nexcage
from nexcage import Create, Delete, Intent, Kill, Pause, Spec, Start, State, Stop
from nexcage._backends.lxc import Lxc
from nexcage._core.command import Claim, Command
from nexcage._core.events import Attempted, Began, TakenOver
from nexcage._sinks.journal import FileJournal, open_journal
from nexcage.testing import SimCluster
from nexcage.tools import claims, lxc, mending, pct

SPEC = Spec("local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst", storage="local-zfs")


class Ghost:
    """A driver that dies: it writes to the journal and to the node as one does, up to where it is told to stop."""

    def __init__(self, sim: SimCluster, fleet: nexcage.Fleet, journal: FileJournal) -> None:
        self.sim, self.fleet, self.journal = sim, fleet, journal

    async def begin(self, intent: Intent, node: str = "pve-01", op_id: str = "ghost-op") -> Began:
        machine = self.journal.machines.get(intent.id) or nexcage.Machine(intent.id)
        boot = (self.sim[node].files.read("/proc/sys/kernel/random/boot_id") or "").strip()
        epoch = max((e.epoch for e in nexcage.read_journal(self.fleet.state_dir) if isinstance(e, Began)), default=1)
        began = machine.begin(intent, op_id=op_id, node=node, backend="lxc", boot_id=boot, owner="ghost", epoch=epoch)
        (written,) = await self.journal.append(began)
        assert isinstance(written, Began)
        return written

    async def step(self, began: Began, command: Command, *, run: bool = True, tool: str = "pct") -> None:
        node = self.sim[began.node]
        uptime = float((node.files.read("/proc/uptime") or "0").split()[0])
        step = self.journal.machines[began.id].steps + 1
        await self.journal.append(
            Attempted(
                id=began.id,
                op=began.op,
                op_id=began.op_id,
                step=step,
                tool=tool,
                tries=dict(command.tries),
                boot_id=began.boot_id,
                uptime=uptime,
            )
        )
        if not run:
            return
        claim = Claim(
            fleet=self.fleet.id,
            op=began.op_id,
            step=step,
            id=began.id,
            boot_id=began.boot_id,
            epoch=began.epoch,
            seq=began.seq,
        )
        env = {"NEXCAGE_OP_ID": began.op_id, "NEXCAGE_STEP": str(step)}
        transport = self.sim.transport(began.node)
        async with anyio.create_task_group() as tasks:
            command = msgspec.structs.replace(command, claim=claim, env=env)
            native = getattr(transport, "claims", False)
            tasks.start_soon(transport.run, command if native else claims.claimed(command))
            await anyio.sleep(0.2)
            await transport.aclose()  # it goes on without us
            tasks.cancel_scope.cancel()


def mark(ghost: Ghost, vmid: int) -> nexcage.Mark:
    return nexcage.Mark(ghost.fleet.id, "web", vmid, "ghost-op")


@asynccontextmanager
async def ghostly(sim: SimCluster, *before: str) -> AsyncIterator[tuple[Ghost, nexcage.Container]]:
    """A container that has lived through ``before``, and a driver beside that is about to die."""
    async with sim.fleet() as fleet:
        web = fleet["web"]
        if before:
            await web.create(SPEC)
        for verb in before[1:]:
            await getattr(web, verb)()
        async with open_journal(fleet.state_dir, owner="ghost", fleet=fleet.id) as journal:
            yield Ghost(sim, fleet, journal), web


async def outcomes(fleet: nexcage.Fleet) -> list[tuple[str, str]]:
    """How the ghost's operation ended: event and what told."""
    return [
        (type(e).__name__, getattr(e, "resolved_by", ""))
        for e in nexcage.read_journal(fleet.state_dir)
        if getattr(e, "op_id", "") == "ghost-op" and not isinstance(e, (Began, Attempted))
    ]


@pytest.mark.sim(nodes=1)
async def test_a_driver_that_died_before_its_first_step_did_nothing(sim: SimCluster) -> None:
    async with ghostly(sim, "create") as (ghost, _):
        await ghost.begin(Start("web"))
    async with sim.fleet() as fleet:
        assert fleet["web"].machine.state is State.CREATED
        assert await outcomes(fleet) == [("Failed", "journal")]


@pytest.mark.sim(nodes=1)
@pytest.mark.parametrize("late", [0.0, 30.0])
async def test_a_start_that_outlived_its_driver_is_a_success(sim: SimCluster, late: float) -> None:
    async with ghostly(sim, "create") as (ghost, web):
        began = await ghost.begin(Start("web"))
        await ghost.step(
            began,
            lxc.guarded(
                nexcage.Mark(ghost.fleet.id, "web", web.machine.vmid, web.machine.mark), pct.start(web.machine.vmid)
            ),
        )
    await anyio.sleep(late)
    async with sim.fleet() as fleet:
        await fleet["web"].wait(State.RUNNING, timeout=60)
        assert await outcomes(fleet) == [("Succeeded", "claim")]


@pytest.mark.sim(nodes=1)
async def test_a_command_that_never_arrived_never_will(sim: SimCluster) -> None:
    async with ghostly(sim, "create") as (ghost, web):
        began = await ghost.begin(Start("web"))
        command = pct.start(web.machine.vmid)
        await ghost.step(began, command, run=False)
    async with sim.fleet() as fleet:
        assert await outcomes(fleet) == [("Failed", "claim")]
        assert fleet["web"].machine.state is State.CREATED
        claim = Claim(fleet=fleet.id, op="ghost-op", step=1, id="web")
        with pytest.raises(nexcage.NodeError):
            await sim.transport("pve-01").run(msgspec.structs.replace(command, claim=claim))
        assert not sim["pve-01"].model.is_running(fleet["web"].machine.vmid)


@pytest.mark.sim(nodes=1)
@pytest.mark.parametrize("runner", [True, False])
async def test_a_signal_of_a_dead_driver_is_known_by_what_the_node_kept(sim: SimCluster, runner: bool) -> None:
    sim.runner = runner
    async with ghostly(sim, "create", "start") as (ghost, web):
        began = await ghost.begin(Kill("web", "USR1"))
        await ghost.step(began, lxc.signal(nexcage.Mark(ghost.fleet.id, "web", web.machine.vmid, web.machine.mark), 10))
    await anyio.sleep(5)
    async with sim.fleet() as fleet:
        assert fleet["web"].machine.state is State.RUNNING
        assert await outcomes(fleet) == [("Succeeded", "claim")]


@pytest.mark.sim(nodes=1)
async def test_a_create_of_a_dead_driver_is_a_success_and_made_once(sim: SimCluster) -> None:
    async with ghostly(sim) as (ghost, _):
        began = await ghost.begin(Create("web", SPEC))
        await ghost.step(began, pct.create(mark(ghost, 15000), SPEC.image, SPEC, "web"))
    await anyio.sleep(60)
    async with sim.fleet() as fleet:
        assert fleet["web"].machine.state is State.CREATED
        assert fleet["web"].machine.vmid == 15000
        done = await fleet.do(Create("web", SPEC, op_id="ghost-op"))
        assert (done.vmid, done.resolved_by) == (15000, "claim")
        await fleet["web"].start()


@pytest.mark.sim(nodes=1)
async def test_what_a_killed_create_left_is_removed_with_its_volumes(sim: SimCluster) -> None:
    async with ghostly(sim) as (ghost, _):
        sim["pve-01"].fault("kill-worker", on="pct create")
        began = await ghost.begin(Create("web", SPEC))
        await ghost.step(began, pct.create(mark(ghost, 15000), SPEC.image, SPEC, "web"))
    await anyio.sleep(60)
    assert sim["pve-01"].model.config(15000) == "lock: create\n"
    async with sim.fleet() as fleet:
        assert sim["pve-01"].model.config(15000) is None
        assert fleet["web"].machine.state is State.ABSENT
        assert await outcomes(fleet) == [("TakenOver", ""), ("Failed", "repair")]
        await fleet["web"].create(SPEC)
    assert (await sim["pve-01"].run(["zfs", "list", "-H", "-o", "name"])).stdout.count(b"subvol-15000") == 0


@pytest.mark.sim(nodes=1)
async def test_what_a_rival_left_half_made_is_reported_and_stays(sim: SimCluster) -> None:
    """Ours was told that the VMID is taken; what is there is not ours."""
    async with ghostly(sim) as (ghost, _):
        sim["pve-01"].fault("kill-worker", on="pct create")
        await sim["pve-01"].run(["pct", "create", "15000", SPEC.image, "--storage", "local-zfs"])
        assert sim["pve-01"].model.config(15000) == "lock: create\n"
        began = await ghost.begin(Create("web", SPEC))
        await ghost.step(began, pct.create(mark(ghost, 15000), SPEC.image, SPEC, "web"))
    await anyio.sleep(60)
    async with sim.fleet() as fleet:
        assert sim["pve-01"].model.config(15000) == "lock: create\n"
        assert fleet["web"].machine.state is State.ABSENT


@pytest.mark.sim(nodes=1)
async def test_a_repair_that_died_lends_no_proof_to_the_next_one(sim: SimCluster) -> None:
    """What the node would not remove, because somebody else's create came after ours, it does not remove later either."""
    node = sim["pve-01"]
    async with ghostly(sim) as (ghost, _):
        node.fault("kill-worker", on="pct create")
        began = await ghost.begin(Create("web", SPEC))
        await ghost.step(began, pct.create(mark(ghost, 15000), SPEC.image, SPEC, "web"))
        await anyio.sleep(60)
        await node.run(["pct", "unlock", "15000"])
        await node.run(["pct", "destroy", "15000"])
        node.fault("kill-worker", on="pct create")
        await node.run(["pct", "create", "15000", SPEC.image, "--storage", "local-zfs"])
        await anyio.sleep(60)
        (known,) = await ghost.fleet.nodes["pve-01"].settle(
            Claim(fleet=ghost.fleet.id, op="ghost-op", step=1, id="web")
        )
        await ghost.journal.append(
            TakenOver(id="web", op=began.op, op_id="ghost-op", owner="another-ghost", epoch=began.epoch)
        )
        await ghost.step(began, mending.mend("web", 15000, "create", known), tool="mend")
        await anyio.sleep(10)
    assert node.model.config(15000) == "lock: create\n"
    async with sim.fleet() as fleet:
        assert fleet["web"].machine.state is State.ABSENT
        assert node.model.config(15000) == "lock: create\n"


@pytest.mark.sim(nodes=1)
async def test_after_a_reboot_half_made_debris_is_never_removed(sim: SimCluster) -> None:
    async with ghostly(sim) as (ghost, _):
        sim["pve-01"].fault("kill-worker", on="pct create")
        began = await ghost.begin(Create("web", SPEC))
        await ghost.step(began, pct.create(mark(ghost, 15000), SPEC.image, SPEC, "web"))
    await anyio.sleep(60)
    sim["pve-01"].restart()
    async with sim.fleet() as fleet:
        assert sim["pve-01"].model.config(15000) == "lock: create\n"
        assert fleet["web"].machine.state is State.ABSENT


@pytest.mark.sim(nodes=1)
async def test_a_delete_that_was_killed_half_way_is_finished(sim: SimCluster) -> None:
    async with ghostly(sim, "create") as (ghost, web):
        vmid = web.machine.vmid
        sim["pve-01"].fault("kill-worker", on="pct destroy")
        began = await ghost.begin(Delete("web"))
        await ghost.step(
            began, lxc.guarded(nexcage.Mark(ghost.fleet.id, "web", vmid, web.machine.mark), pct.destroy(vmid))
        )
    await anyio.sleep(60)
    assert (sim["pve-01"].model.config(vmid) or "").startswith("lock: destroyed")
    async with sim.fleet() as fleet:
        assert sim["pve-01"].model.config(vmid) is None
        assert fleet["web"].machine.state is State.ABSENT
        assert await outcomes(fleet) == [("TakenOver", ""), ("Succeeded", "repair")]


@pytest.mark.sim(nodes=1)
@pytest.mark.parametrize(
    ("verb", "fault"), [("create", "kill-worker"), ("delete", "kill-worker"), ("create", "kill-supervisor")]
)
async def test_a_living_driver_clears_up_what_was_killed_under_it(sim: SimCluster, verb: str, fault: str) -> None:
    async with sim.fleet() as fleet:
        web = fleet["web"]
        if verb == "delete":
            await web.create(SPEC)
        sim["pve-01"].fault(fault, on="pct destroy" if verb == "delete" else "pct create")

        try:
            await (web.create(SPEC) if verb == "create" else web.delete())
        except nexcage.NexcageError:
            assert web.machine.state is State.ABSENT

        configs = [sim["pve-01"].model.config(vmid) or "" for vmid in (await fleet.look())["pve-01"].guests]
        assert not any(text.startswith("lock:") for text in configs)


@pytest.mark.sim(nodes=2)
async def test_recovering_twice_equals_recovering_once(sim: SimCluster) -> None:
    async with ghostly(sim, "create", "start") as (ghost, web):
        began = await ghost.begin(Stop("web", force=True))
        await ghost.step(
            began,
            lxc.guarded(
                nexcage.Mark(ghost.fleet.id, "web", web.machine.vmid, web.machine.mark), pct.stop(web.machine.vmid)
            ),
        )
    await anyio.sleep(20)
    async with sim.fleet() as first, sim.fleet() as second:
        await anyio.sleep(1)
        await first.refresh()
        assert first["web"].machine == second["web"].machine
        assert await outcomes(first) == [("Succeeded", "claim")]
        seq = first.seq
        await first.recover(wait=True)
        await first.reconcile()
        assert first.seq == seq


@pytest.mark.sim(nodes=1)
async def test_a_node_that_is_away_leaves_it_open_and_opening_does_not_fail(sim: SimCluster) -> None:
    async with ghostly(sim, "create") as (ghost, _):
        await ghost.step(await ghost.begin(Start("web")), pct.start(1), run=False)
    sim["pve-01"].crash()
    async with sim.fleet() as fleet:
        assert fleet["web"].machine.state is State.STARTING
        sim["pve-01"].restart()
        await anyio.sleep(30)
        await fleet.reconcile()
        assert fleet["web"].machine.state is State.CREATED


@pytest.mark.sim(nodes=1)
async def test_a_node_that_is_away_is_told_once_for_all_that_was_left_on_it(
    sim: SimCluster, caplog: pytest.LogCaptureFixture
) -> None:
    ids = [f"web-{n}" for n in range(7)]
    async with sim.fleet() as fleet:
        (await fleet.run(Create(id, SPEC) for id in ids)).raise_for_failures()
        async with open_journal(fleet.state_dir, owner="ghost", fleet=fleet.id) as journal:
            ghost = Ghost(sim, fleet, journal)
            for id in ids:
                await ghost.step(await ghost.begin(Start(id), op_id=f"op-{id}"), pct.start(1), run=False)
    sim["pve-01"].crash()
    async with sim.fleet():
        await anyio.sleep(100)
    told = [record.getMessage() for record in caplog.records if "is not known yet" in record.getMessage()]
    assert len(told) == 1
    assert "'web-0', 'web-1'" in told[0]
    assert "and 2 more" in told[0]


@pytest.mark.sim(nodes=1)
@pytest.mark.parametrize("died", ["before its steps", "before a reboot", "at its steps"])
async def test_what_became_of_many_is_found_out_with_few_commands(sim: SimCluster, died: str) -> None:
    ids = [f"web-{n}" for n in range(60)]
    async with sim.fleet() as fleet:
        (await fleet.run(Create(id, SPEC) for id in ids)).raise_for_failures()
        async with open_journal(fleet.state_dir, owner="ghost", fleet=fleet.id) as journal:
            ghost = Ghost(sim, fleet, journal)
            for id in ids:
                began = await ghost.begin(Start(id), op_id=f"op-{id}")
                if died != "before its steps":
                    await ghost.step(began, pct.start(1), run=False)
    if died == "before a reboot":
        sim["pve-01"].restart()
    calls: list[tuple[str, ...]] = []
    connect = sim.connect

    class Counting:
        claims = fencing = True

        def __init__(self, inner: object) -> None:
            self.inner = inner

        def __getattr__(self, name: str) -> object:
            return getattr(self.inner, name)

        async def run(self, command: Command) -> nexcage.Result:
            calls.append(command.argv)
            return await self.inner.run(command)  # type: ignore[attr-defined]

    async with sim.fleet(connect=lambda host: Counting(connect(host))) as fleet:
        assert all(fleet[id].machine.state is State.CREATED for id in ids)
    assert len(calls) < 10


@pytest.mark.sim(nodes=1)
@pytest.mark.parametrize("policy", ["report", "adopt", "revert"])
async def test_a_reconcile_does_what_the_policy_says_about_what_somebody_else_did(sim: SimCluster, policy: str) -> None:
    config = nexcage.Config(on_drift=policy)  # type: ignore[arg-type]
    async with sim.fleet(config=config) as fleet:
        web = fleet["web"]
        await web.create(SPEC)
        await web.start()
        await sim["pve-01"].run(["pct", "stop", str(web.machine.vmid)])

        (foreseen,) = await fleet.reconcile(dry_run=True)
        assert (foreseen.state, foreseen.done) == (State.STOPPED, False)
        assert web.machine.state is State.RUNNING
        (difference,) = await fleet.reconcile()

        assert difference.was is State.RUNNING
        expected = {"report": "", "adopt": "adopt", "revert": "start"}[policy]
        assert difference.action == expected == foreseen.action or policy == "report"
        assert web.machine.state is (State.RUNNING if policy == "revert" else State.STOPPED)
        again = await fleet.reconcile()
        assert bool(again) is (policy == "report")


@pytest.mark.sim(nodes=1)
async def test_what_an_operation_wanted_is_no_drift(sim: SimCluster) -> None:
    async with sim.fleet(config=nexcage.Config(on_drift="revert")) as fleet:
        web = fleet["web"]
        await web.create(SPEC)
        await web.start()
        sim["pve-01"].react(web.machine.vmid, "exits")
        await web.kill("TERM")
        await anyio.sleep(10)

        await fleet.reconcile()
        assert web.machine.state is State.STOPPED
        for intent in (Start("web"), Pause("web")):
            await fleet.do(intent)
            assert await fleet.reconcile() == []


@pytest.mark.sim(nodes=1)
async def test_an_op_id_of_a_dead_driver_gives_its_outcome(sim: SimCluster) -> None:
    async with ghostly(sim, "create") as (ghost, web):
        began = await ghost.begin(Start("web"))
        await ghost.step(
            began,
            lxc.guarded(
                nexcage.Mark(ghost.fleet.id, "web", web.machine.vmid, web.machine.mark), pct.start(web.machine.vmid)
            ),
        )
    async with sim.fleet() as fleet:
        done = await fleet.do(Start("web", op_id="ghost-op"))
        assert done.resolved_by == "claim"
        starts = [e for e in sim.effects() if "start" in e["argv"]]
        assert len(starts) == 1


@pytest.mark.sim(nodes=2)
@pytest.mark.parametrize("steps", [0, 1])
async def test_a_container_that_is_moved_after_its_driver_died_is_found(sim: SimCluster, steps: int) -> None:
    async with ghostly(sim, "create") as (ghost, web):
        before = web.machine
        began = await ghost.begin(Start("web"), node=before.node)
        if steps:
            await ghost.step(began, pct.start(before.vmid), run=False)
    await anyio.sleep(10)
    sim[before.node].fault("migrate", vmid=before.vmid)
    async with sim.fleet() as fleet:
        after = fleet["web"].machine

    assert (after.state, after.vmid, after.mark) == (State.CREATED, before.vmid, before.mark)
    assert after.node not in ("", before.node)


class Plain:
    """A backend with nothing but its verbs."""

    name = "lxc"
    holds_created = False

    def __init__(self) -> None:
        self._inner = Lxc()

    def __getattr__(self, name: str) -> object:
        if name == "mend":
            raise AttributeError(name)
        return getattr(self._inner, name)


@pytest.mark.sim(nodes=1)
@pytest.mark.parametrize("why", ["somebody else destroyed it too", "the backend cannot mend"])
async def test_what_cannot_be_mended_is_found_out_once_and_said_each_time(sim: SimCluster, why: str) -> None:
    node = sim["pve-01"]
    async with ghostly(sim, "create") as (ghost, web):
        vmid = web.machine.vmid
        ours = nexcage.Mark(ghost.fleet.id, "web", vmid, web.machine.mark)
        node.fault("kill-worker", on="pct destroy")
        await ghost.step(await ghost.begin(Delete("web")), lxc.guarded(ours, pct.destroy(vmid)))
        await anyio.sleep(60)
        if why == "somebody else destroyed it too":
            await node.run(["pct", "unlock", str(vmid)])
            node.fault("kill-worker", on="pct destroy")
            await node.run(["pct", "destroy", str(vmid)])
            await anyio.sleep(60)
    backends: list[Any] = [] if why == "somebody else destroyed it too" else [Plain()]
    numbers = []
    for _ in range(3):
        async with sim.fleet(backend=backends) as fleet:
            with pytest.raises(nexcage.Blocked):
                await fleet.observe("web")
            assert fleet["web"].machine.state is State.UNKNOWN
            numbers.append(fleet.seq)

    assert numbers[0] == numbers[1] == numbers[2]
    assert node.model.config(vmid) == "lock: destroyed\n"


@pytest.mark.sim(nodes=1)
async def test_a_journal_that_was_lost_does_not_fence_its_own_fleet(sim: SimCluster) -> None:
    """Its numbers begin again below those that the node has seen, so the epoch rises."""
    async with sim.fleet() as fleet:
        web = fleet["web"]
        await web.create(SPEC)
        await web.start()
        await web.stop()
        before = [e.epoch for e in nexcage.read_journal(fleet.state_dir) if isinstance(e, Began)]
    shutil.rmtree(fleet.state_dir / "journal")

    async with sim.fleet() as fleet:
        await fleet.rebuild()
        await fleet["web"].start()
        after = [e.epoch for e in nexcage.read_journal(fleet.state_dir) if isinstance(e, Began)]
    async with sim.fleet() as fleet:
        await fleet["web"].stop()
        later = [e.epoch for e in nexcage.read_journal(fleet.state_dir) if isinstance(e, Began)]

    assert max(before) < min(after)
    assert set(later) == set(after)


class Stuck:
    """A link that keeps the first start in a buffer; the node cannot be reached then for a minute and a half."""

    def __init__(self, inner: Any) -> None:  # Any: a way to the node, whichever it is
        self.inner = inner
        self.held: tuple[Command[Any], float] | None = None

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)

    async def run(self, command: Command[Any]) -> nexcage.Result:
        if self.held is None and "NEXCAGE_OP_ID" in command.env and "start" in command.argv:
            self.held = command, anyio.current_time()
            return nexcage.Result(None, lost="link")
        if self.held is not None and anyio.current_time() < self.held[1] + 90:
            raise nexcage.NodeUnreachable("pve-01", "nobody answers")
        result: nexcage.Result = await self.inner.run(command)
        return result


@pytest.mark.sim(nodes=1)
@pytest.mark.parametrize("runner", [True, False])
async def test_what_is_said_not_to_have_happened_cannot_happen_later(sim: SimCluster, runner: bool) -> None:
    sim.runner = runner
    links: list[Stuck] = []

    def connect(host: nexcage.Host) -> Any:
        links.append(Stuck(sim.connect(host)))
        return links[-1]

    async with sim.fleet(connect=connect, limits=nexcage.Limits(retries=0)) as fleet:
        web = fleet["web"]
        await web.create(SPEC)
        with pytest.raises(nexcage.NodeError):
            await web.start()
        state = web.machine.state
        (link,) = links
        assert link.held is not None
        with suppress(nexcage.NodeError):
            await link.inner.run(link.held[0])

        assert state is State.CREATED
        assert not sim["pve-01"].model.is_running(web.machine.vmid)
