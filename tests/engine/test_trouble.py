"""Lost answers, dead nodes, locks, rivals: what is so afterwards is what is reported."""

from __future__ import annotations

from collections import Counter
from typing import Any

import anyio
import pytest

import nexcage
from nexcage import State
from nexcage.testing import SimCluster
from nexcage.testing._model.claims import OPS

DEBIAN = "local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst"
SPEC = nexcage.Spec(DEBIAN, storage="local-zfs")


def created(sim: SimCluster) -> list[int]:
    """The VMIDs of every container on every node."""
    return [vmid for node in sim for vmid in node.model.containers()]


def effects_per_step(sim: SimCluster) -> Counter[tuple[str, int]]:
    return Counter((effect["op_id"], effect["step"]) for effect in sim.effects() if effect["op_id"])


async def life(fleet: nexcage.Fleet, verb: str) -> nexcage.Container:
    """A container in the state in which ``verb`` is legal."""
    web = fleet["web-1"]
    if verb != "create":
        await web.create(SPEC)
    if verb in ("stop", "pause", "resume"):
        await web.start()
    if verb == "resume":
        await web.pause()
    return web


def called(web: nexcage.Container, verb: str) -> Any:
    return web.create(SPEC) if verb == "create" else web.stop(timeout=20) if verb == "stop" else getattr(web, verb)()


WANTED = {
    "create": State.CREATED, "start": State.RUNNING, "stop": State.STOPPED, "pause": State.PAUSED, "resume": State.RUNNING,
    "delete": State.ABSENT,
}  # fmt: skip


class Swept:
    """A way to a node that loses the answer of the first claimed command, while somebody removes all claims there."""

    claims = fencing = True

    def __init__(self, sim: SimCluster, host: nexcage.Host) -> None:
        self.node = sim[host.key]
        self.inner: Any = sim.connect(host)
        self.lost = False

    async def run(self, command: nexcage.Command[Any]) -> nexcage.Result:
        result: nexcage.Result = await self.inner.run(command)
        if command.claim is None or self.lost:
            return result
        self.lost = True
        self.node.files.remove(OPS)
        return nexcage.Result(None, lost="link")

    def stream(self, command: nexcage.Command[Any]) -> Any:
        return self.inner.stream(command)

    async def aclose(self) -> None:
        await self.inner.aclose()


async def test_nothing_is_made_twice_when_the_claims_of_a_lost_answer_were_removed() -> None:
    with SimCluster(1, seed=3) as sim:
        async with sim.fleet(connect=lambda host: Swept(sim, host)) as fleet:
            await fleet["web-1"].create(SPEC)

        assert len(created(sim)) == 1
        assert max(effects_per_step(sim).values()) == 1


@pytest.mark.sim(nodes=1)
@pytest.mark.parametrize("verb", list(WANTED))
@pytest.mark.parametrize("fault", ["drop-before", "drop-during", "drop-after", "slow", "wrong-exit"])
async def test_losing_the_answer_never_makes_two(sim: SimCluster, fault: str, verb: str) -> None:
    async with sim.fleet() as fleet:
        web = await life(fleet, verb)
        sim["pve-01"].fault(fault, on={"pause": "lxc-freeze", "resume": "lxc-unfreeze"}.get(verb, "pct"))

        try:
            state = (await called(web, verb)).state
        except nexcage.Uncertain:  # a destroy whose reader is gone may end half-way, and that is no answer
            assert (fault, verb) == ("drop-during", "delete")
            vmid = str(web.machine.vmid)
            with pytest.raises(nexcage.Blocked, match=f"pct unlock {vmid}"):
                await web.reconcile()
            assert web.machine.state is State.UNKNOWN
            await sim["pve-01"].run(["pct", "unlock", vmid])
            await sim["pve-01"].run(["pct", "destroy", vmid])
            await web.reconcile()
            state = web.machine.state

        assert state is WANTED[verb]
        assert verb == "delete" or len(created(sim)) == 1
        assert max(effects_per_step(sim).values()) == 1


@pytest.mark.sim(nodes=1)
async def test_the_answer_of_a_lost_signal_is_what_the_node_kept(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        web = await life(fleet, "stop")
        sim["pve-01"].fault("drop-after", on="kill")

        done = await web.kill("USR1")

        assert done.resolved_by == "claim"
        assert web.machine.state is State.RUNNING
        assert signals(sim) == 1


@pytest.mark.sim(nodes=1)
async def test_a_lost_signal_is_uncertain_and_never_sent_again(sim: SimCluster) -> None:
    """What watched over it is gone too, so nobody knows."""
    async with sim.fleet() as fleet:
        web = await life(fleet, "stop")
        sim["pve-01"].fault("kill-supervisor", on="kill")

        with pytest.raises(nexcage.Uncertain) as unsure:
            await web.kill("USR1")

        assert web.machine.state is State.UNKNOWN
        assert unsure.value.uncertain
        assert signals(sim) <= 1
        observed = await web.reconcile()
        assert observed is not None
        assert observed.state is State.RUNNING


def signals(sim: SimCluster) -> int:
    return sum(change["kind"] == "signal" for effect in sim.effects() for change in effect["changed"])


@pytest.mark.sim(nodes=3)
async def test_a_dead_node_costs_only_its_own_containers(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        ids = [f"web-{n:02}" for n in range(12)]
        assert (await fleet.run(nexcage.Create(id, SPEC) for id in ids)).ok
        there = {id for id in ids if fleet[id].machine.node == "pve-02"}
        sim["pve-02"].crash()

        report = await fleet.run(nexcage.Start(id) for id in ids)

        assert {failure.id for failure in report.failures} == there
        assert report.lost_nodes == {"pve-02"}
        assert all(isinstance(failure.error, nexcage.NodeError) for failure in report.failures)
        assert fleet.nodes["pve-02"].lost


@pytest.mark.sim(nodes=3)
async def test_the_containers_of_a_node_that_came_back_are_taken_on_again(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        ids = [f"web-{n:02}" for n in range(12)]
        await fleet.run(nexcage.Create(id, SPEC) for id in ids)
        sim["pve-02"].crash()
        report = await fleet.run(nexcage.Start(id) for id in ids)
        sim["pve-02"].restart()
        await anyio.sleep(30)

        again = await fleet.run(failure.intent for failure in report.failures)

        assert again.ok
        assert all(fleet[id].machine.state is State.RUNNING for id in ids)


@pytest.mark.sim(nodes=1)
async def test_a_node_that_dies_during_a_create_leaves_unknown_and_later_a_container(sim: SimCluster) -> None:
    async with sim.fleet(limits=nexcage.Limits(probe_timeout=5)) as fleet:
        web = fleet["web-1"]
        sim["pve-01"].fault("crash", on="pct create")
        with pytest.raises(nexcage.NexcageError) as lost:
            await web.create(SPEC)
        assert lost.value.uncertain
        assert web.machine.state is State.UNKNOWN
        sim["pve-01"].restart()
        await anyio.sleep(60)

        await web.reconcile()
        assert web.machine.state is State.ABSENT
        assert (await web.create(SPEC)).state is State.CREATED


@pytest.mark.sim(nodes=1)
async def test_a_partition_is_waited_out_when_it_is_short(sim: SimCluster) -> None:
    async with sim.fleet() as fleet, anyio.create_task_group() as tasks:
        web = await life(fleet, "start")
        sim["pve-01"].fault("drop-during", on="pct start")
        tasks.start_soon(web.start)
        await anyio.sleep(0.5)
        sim["pve-01"].partition()
        await anyio.sleep(10)
        sim["pve-01"].heal()
        await web.wait("running", timeout=120)

    assert max(effects_per_step(sim).values()) == 1


@pytest.mark.sim(nodes=1)
async def test_cancelling_is_recorded_and_looking_leads_out(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        web = await life(fleet, "start")
        with anyio.move_on_after(0.5):
            await web.start()
        assert web.machine.state is State.UNKNOWN
        assert type(web.machine.done[-1]) is nexcage.Interrupted

        await web.reconcile()

        assert web.machine.state in (State.CREATED, State.RUNNING, State.STOPPED)
        assert (await web.start()).state is State.RUNNING


@pytest.mark.sim(nodes=1)
async def test_a_held_flock_is_waited_for(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        web = await life(fleet, "start")
        sim["pve-01"].fault("lock-held", on="pct start")

        done = await web.start()

        assert done.state is State.RUNNING


@pytest.mark.sim(nodes=1)
async def test_a_config_lock_that_stays_is_busy_with_its_kind(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        web = await life(fleet, "start")
        await sim["pve-01"].run(["pct", "set", str(web.machine.vmid), "--lock", "backup"])

        with pytest.raises(nexcage.Busy, match="backup") as busy:
            await web.start()

        assert busy.value.retryable
        assert web.machine.state is State.CREATED


@pytest.mark.sim(nodes=1)
async def test_a_changed_host_key_is_never_retried(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        web = await life(fleet, "start")
        sim["pve-01"].fault("host-key")
        with pytest.raises(nexcage.HostKeyRejected):
            await web.start()
        start = anyio.current_time()
        with pytest.raises(nexcage.HostKeyRejected):
            await web.start()
        assert anyio.current_time() - start < 0.1


@pytest.mark.sim(nodes=1)
@pytest.mark.parametrize("fault", ["garbage", "endless", "non-utf8"])
async def test_rubbish_from_a_node_is_never_taken_for_an_answer(sim: SimCluster, fault: str) -> None:
    async with sim.fleet(limits=nexcage.Limits(probe_timeout=20)) as fleet:
        web = await life(fleet, "start")
        sim["pve-01"].fault(fault, on="sh", times=2)
        try:
            done = await web.start()
        except nexcage.NexcageError:
            sim["pve-01"].fault("heal")
            await anyio.sleep(200)
            await web.reconcile()
            done = await web.start()

        assert done.state is State.RUNNING
        assert sim["pve-01"].model.is_running(done.vmid)


@pytest.mark.sim(nodes=2)
async def test_what_somebody_else_did_is_observed(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        web = await life(fleet, "start")
        node = sim[web.machine.node]
        await node.run(["pct", "start", str(web.machine.vmid)])

        (seen,) = await fleet.reconcile()

        assert (seen.id, seen.state) == ("web-1", State.RUNNING)
        assert web.machine.pid == node.model.init_pid(seen.vmid)
        await node.run(["pct", "destroy", str(web.machine.vmid), "--force", "1"])
        (gone,) = await fleet.reconcile()
        assert gone.state is State.ABSENT


@pytest.mark.sim(nodes=1)
async def test_another_container_under_our_vmid_is_never_touched(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        web = await life(fleet, "start")
        vmid = str(web.machine.vmid)
        await sim["pve-01"].run(["pct", "destroy", vmid])
        await sim["pve-01"].run(["pct", "create", vmid, DEBIAN, "--storage", "local-zfs", "--hostname", "theirs"])
        before = len(sim.effects())

        with pytest.raises(nexcage.NexcageError):
            await web.delete()

        assert len(sim.effects()) == before
        assert web.machine.state is State.ABSENT


@pytest.mark.sim(nodes=1)
async def test_the_mark_is_checked_by_the_command_itself(sim: SimCluster) -> None:
    """Between our look and our command somebody replaces the container."""
    from nexcage.tools import lxc, pct

    async with sim.fleet() as fleet:
        web = await life(fleet, "start")
        foreign = nexcage.Mark(fleet.id, "web-1", web.machine.vmid, "another-op")
        result = await sim["pve-01"].run(lxc.guarded(foreign, pct.destroy(web.machine.vmid)).argv)

    assert result.exit == 9
    assert created(sim) == [web.machine.vmid]


@pytest.mark.sim(nodes=1)
async def test_a_vmid_taken_meanwhile_makes_create_try_the_next_one(sim: SimCluster) -> None:
    async with sim.fleet(config=nexcage.Config(vmids=(200, 203))) as fleet, anyio.create_task_group() as tasks:
        await fleet.look()
        for number in (
            200,
            201,
            202,
        ):  # a rival whose configs appear after our look and before our create looks for them
            tasks.start_soon(sim["pve-01"].run, ["pct", "create", str(number), DEBIAN, "--storage", "local-zfs"])
        await anyio.sleep(0.9)

        done = await fleet["web-1"].create(SPEC)

    assert done.vmid == 203
    assert sorted(created(sim)) == [200, 201, 202, 203]
    assert len(fleet.machines["web-1"].done) == 1


@pytest.mark.sim(nodes=2)
async def test_two_drivers_share_a_state_directory(sim: SimCluster) -> None:
    from random import Random

    async with sim.fleet(random=Random(1)) as one, sim.fleet(random=Random(2)) as two:
        mine = [nexcage.Create(f"one-{n}", SPEC) for n in range(6)]
        theirs = [nexcage.Create(f"two-{n}", SPEC) for n in range(6)]
        shared = [nexcage.Create(f"both-{n}", SPEC) for n in range(6)]
        reports: list[nexcage.Report] = []

        async def run(fleet: nexcage.Fleet, intents: list[nexcage.Intent]) -> None:
            reports.append(await fleet.run(intents))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run, one, [*mine, *shared])
            tasks.start_soon(run, two, [*theirs, *shared])
        await one.refresh()

        assert len(created(sim)) == 18
        failures = [failure for report in reports for failure in report.failures]
        assert sorted(failure.id for failure in failures) == [f"both-{n}" for n in range(6)]
        assert {type(failure.error) for failure in failures} <= {nexcage.Busy, nexcage.AlreadyExists}
        assert sum(machine.state is State.CREATED for machine in one.machines.values()) == 18


@pytest.mark.sim(nodes=1)
async def test_what_a_dead_driver_left_is_found_out_by_the_next(sim: SimCluster) -> None:
    async with sim.fleet() as first:
        await first["web-1"].create(SPEC)
        journal = first._journal
        began = first["web-1"].machine.begin(nexcage.Start("web-1"), op_id="lost", owner="1-dead")
        await journal.append(began)

    async with sim.fleet() as second:
        done = await second["web-1"].start()

    assert done.state is State.RUNNING
    assert len([effect for effect in sim.effects() if "start" in effect["argv"]]) == 1


@pytest.mark.sim(nodes=1)
async def test_no_journal_no_mutation(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        await fleet["web-1"].create(SPEC)
        before = len(sim.effects())
        await fleet._journal.aclose()

        with pytest.raises(nexcage.JournalError):
            await fleet["web-1"].start()

        assert len(sim.effects()) == before


@pytest.mark.sim(nodes=2)
async def test_no_quorum_pauses_changes_and_not_reads(sim: SimCluster) -> None:
    async with sim.fleet(limits=nexcage.Limits(retries=1)) as fleet:
        web = await life(fleet, "start")
        node = sim[web.machine.node]
        text = node.files.read("/etc/pve/.members") or ""
        node.files.write("/etc/pve/.members", text.replace('"quorate": 1', '"quorate": 0'))
        await anyio.sleep(5)

        with pytest.raises(nexcage.NoQuorum):
            await web.start()

        assert (await web.state()).status == "created"


@pytest.mark.sim(nodes=1)
async def test_exit_zero_alone_is_no_proof(sim: SimCluster) -> None:
    """The tool says yes and nothing happened."""

    def liar(argv: tuple[str, ...], stdin: bytes) -> nexcage.Result:
        return nexcage.Result(0)

    async with sim.fleet(limits=nexcage.Limits(settle_timeout=3)) as fleet:
        web = await life(fleet, "pause")
        sim.teach("lxc-freeze", liar)

        with pytest.raises(nexcage.CommandFailed, match="said it was done, but the container is running"):
            await web.pause()

        assert web.machine.state is State.RUNNING
