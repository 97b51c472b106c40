"""Virtual machines in a simulated cluster, beside containers."""

from __future__ import annotations

import anyio
import pytest

from nexcage import (
    Blocked,
    CommandFailed,
    Config,
    Create,
    Delete,
    DelSnapshot,
    Failure,
    IllegalTransition,
    InvalidInput,
    Kill,
    NexcageError,
    NodeTimeout,
    Op,
    Pause,
    Resize,
    Resume,
    Rollback,
    Snapshot,
    Spec,
    Start,
    State,
    Stop,
    Succeeded,
    Uncertain,
    Unsupported,
    UnsupportedImage,
    Update,
)
from nexcage import Vm as VmSpec
from nexcage._backends.vm import Vm
from nexcage.testing import SimCluster, check_backend, virtual_run
from nexcage.testing._model import vms

UBUNTU = "local:import/ubuntu-20.04-server-cloudimg-amd64.qcow2"
ISO = "local:iso/debian-12.7.0-amd64-netinst.iso"
DEBIAN = "local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst"


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
@pytest.mark.parametrize("image", [UBUNTU, ISO])
def test_the_vm_backend_keeps_its_promises(loop, image):
    async def main():
        with SimCluster(nodes=1, seed=3) as sim:
            await check_backend(Vm(), sim, image=image)

    virtual_run(main, backend_name=loop)


def simulated(nodes: int = 2, **options):
    """Run an async test in virtual time with a cluster and a fleet of it."""

    def decorate(body):
        def test():
            async def main():
                with SimCluster(nodes=nodes, seed=7) as sim:
                    async with sim.fleet(**options) as fleet:
                        await body(sim, fleet)

            virtual_run(main)

        test.__name__ = body.__name__
        test.__doc__ = body.__doc__
        return test

    return decorate


@simulated()
async def test_containers_and_virtual_machines_live_beside_each_other(sim, fleet):
    kinds = {"ct": Spec(DEBIAN), "vm": Spec("ubuntu:20.04", backend="qemu", size=5)}
    ids = [f"{kind}-{n}" for kind in kinds for n in range(6)]

    (await fleet.run([Create(id, kinds[id[:2]]) for id in ids])).raise_for_failures()
    (await fleet.run(map(Start, ids))).raise_for_failures()
    (await fleet.run(map(Pause, ids))).raise_for_failures()
    states = await fleet.states()
    looks = await fleet.look()

    assert {state.status for state in states.values()} == {"paused"}
    assert {states[id].annotations["org.nexcage.backend"] for id in ids if id[:2] == "vm"} == {"vm"}
    seen = {guest.mark.id: guest for look in looks.values() for guest in look.guests.values()}
    assert {id: guest.kind for id, guest in seen.items()} == {id: "vm" if id[:2] == "vm" else "lxc" for id in ids}
    assert {states[id].pid for id in ids} == {guest.pid for guest in seen.values()} - {0}

    (await fleet.run(map(Resume, ids))).raise_for_failures()
    (await fleet.run(Stop(id, timeout=20) for id in ids)).raise_for_failures()
    (await fleet.run(map(Delete, ids))).raise_for_failures()
    assert all(not look.guests for look in (await fleet.look()).values())
    assert all(not sim[name].files.names("/var/lib/vz/images") for name in sim.hosts)


@simulated(nodes=1)
async def test_looking_at_virtual_machines_costs_no_more_commands(sim, fleet):
    (await fleet.run([Create(f"vm-{n}", Spec(UBUNTU, backend="vm")) for n in range(8)])).raise_for_failures()
    (await fleet.run([Start(f"vm-{n}") for n in range(8)])).raise_for_failures()
    await fleet.look()
    ran = []
    link = fleet.nodes["pve-01"]._link
    call, link.call = link.call, lambda command, env=None: ran.append(command.argv[3]) or call(command, env)

    assert len(await fleet.states()) == 8

    assert ran == ["nexcage"]


@simulated(nodes=1)
async def test_what_somebody_else_does_to_a_virtual_machine_is_seen(sim, fleet):
    db = fleet["db-1"]
    await db.create(Spec(UBUNTU, backend="vm"))
    await db.start()
    vmid = str(fleet.machines["db-1"].vmid)
    for words, state in (("suspend", "paused"), ("resume", "running"), ("stop", "stopped"), ("start", "running")):
        assert (await sim["pve-01"].run(["qm", words, vmid])).exit == 0

        assert (await db.state()).status == state

    await sim["pve-01"].run(["qm", "stop", vmid])
    await sim["pve-01"].run(["qm", "destroy", vmid])
    await fleet.reconcile()
    assert fleet.machines["db-1"].state is State.ABSENT


@simulated(nodes=2)
async def test_one_that_somebody_has_moved_is_found_where_it_is(sim, fleet):
    await fleet["db-1"].create(Spec(UBUNTU, backend="vm", node="pve-01", storage="local-zfs"))
    await fleet["db-1"].start()
    sim["pve-01"].fault("migrate", vmid=fleet.machines["db-1"].vmid, to="pve-02")

    await fleet.reconcile()

    machine = fleet.machines["db-1"]
    assert (machine.node, machine.state) == ("pve-02", State.RUNNING)
    assert machine.pid == vms.pid_of(sim["pve-02"].model, machine.vmid)
    await fleet["db-1"].delete(force=True)
    assert [vms.machines(node.model) for node in sim] == [[], []]


@simulated(nodes=1)
async def test_what_only_containers_can_is_refused_before_it_begins(sim, fleet):
    await fleet["db-1"].create(Spec(UBUNTU, backend="vm"))
    await fleet["db-1"].start()
    before = fleet.seq

    with pytest.raises(Unsupported, match="backend 'vm' has no such verb"):
        await fleet["db-1"].push(b"x", "/root/x")
    for size, why in ((None, "has no streams"), ((24, 80), "has no terminals")):
        with pytest.raises(Unsupported, match=why):
            async with fleet["db-1"].exec_stream(["true"], size=size):
                pass
    with pytest.raises(Unsupported):
        await fleet.do(Update("db-1", memory=1024))

    assert fleet.seq == before


@simulated(nodes=1)
async def test_the_power_button_is_answered_by_the_guest_and_the_plug_by_nobody(sim, fleet):
    db = fleet["db-1"]
    await db.create(Spec(UBUNTU, backend="vm"))
    await db.start()
    await fleet.do(Kill("db-1", "TERM"))
    with anyio.fail_after(60):
        while (await db.state()).status != "stopped":
            await anyio.sleep(0.5)
    await db.start()
    await fleet.do(Kill("db-1", 9))

    assert (await db.state()).status == "stopped"
    with pytest.raises(IllegalTransition):
        await db.kill("KILL")


@simulated(nodes=1)
async def test_a_signal_that_means_nothing_leaves_it_as_it_is(sim, fleet):
    db = fleet["db-1"]
    await db.create(Spec(UBUNTU, backend="vm"))
    await db.start()

    with pytest.raises(InvalidInput, match="'SIGHUP'"):
        await db.kill("HUP")

    assert fleet.machines["db-1"].state is State.RUNNING
    assert not [effect for effect in sim.effects() if "monitor" in effect["argv"] or effect["argv"][0] == "kill"]


@simulated(nodes=1)
async def test_a_guest_that_ignores_its_power_button_is_forced_in_the_end(sim, fleet):
    sim._set(vm={"default": "ignores"})
    db = fleet["db-1"]
    await db.create(Spec(UBUNTU, backend="vm"))
    await db.start()

    done = await db.stop(timeout=5)

    assert done.state is State.STOPPED
    assert done.seconds > 5


@simulated(nodes=1)
async def test_a_new_one_is_made_from_the_disk_of_a_template(sim, fleet):
    node = sim["pve-01"]
    await node.run(["qm", "create", "9000", "--scsi0", f"local-zfs:0,import-from={UBUNTU}", "--boot", "order=scsi0"])
    await node.run(["qm", "template", "9000"])

    await fleet["db-1"].create(Spec("vm:template/9000", backend="vm", storage="local-zfs"))

    config = vms.config(node.model, fleet.machines["db-1"].vmid)
    assert "size=2252M" in config
    await node.run(["qm", "create", "9001"])
    for vmid, why in ((9001, "qm template 9001"), (9002, "is not on node")):
        with pytest.raises(NexcageError, match=why):
            await fleet["db-2"].create(Spec(f"vm:template/{vmid}", backend="vm"))
    assert "db-2" not in fleet.machines or fleet.machines["db-2"].state is State.ABSENT


@pytest.mark.parametrize("fault", ["kill-worker", "kill-supervisor", "drop-after", "drop-during"])
@pytest.mark.parametrize("on", ["qm create", "qm disk resize", "qm unlock"])
def test_a_create_that_is_hit_anywhere_leaves_a_whole_machine_or_none(fault, on):
    async def main():
        with SimCluster(nodes=1, seed=7) as sim:
            sim["pve-01"].fault(fault, on)
            async with sim.fleet() as fleet:
                outcome = (await fleet.run([Create("db-1", Spec(UBUNTU, backend="vm", size=20))]))[0]
                await fleet.reconcile()
                machine, model = fleet.machines["db-1"], sim["pve-01"].model
                if machine.state is State.ABSENT:
                    assert isinstance(outcome, Failure)
                    assert vms.machines(model) == []
                    assert not sim["pve-01"].files.names("/var/lib/vz/images")
                else:
                    assert machine.state is State.CREATED
                    config = vms.config(model, machine.vmid)
                    assert ("size=20G" in config, "lock:" in config) == (True, False)

    virtual_run(main)


@simulated(nodes=1)
async def test_snapshots_go_back_and_forth(sim, fleet):
    await fleet["db-1"].create(Spec(UBUNTU, backend="vm", storage="local-zfs", size=5))
    await fleet["db-1"].start()
    machine, model = fleet.machines["db-1"], sim["pve-01"].model

    await fleet.do(Snapshot("db-1", "before", "of an upgrade"))
    await fleet.do(Resize("db-1", "scsi0", "+1G"))
    larger = vms.config(model, machine.vmid).split("\n[")[0]
    done = await fleet.do(Rollback("db-1", "before", start=True))

    assert "size=6G" in larger
    assert "size=5G" in vms.config(model, machine.vmid).split("\n[")[0]
    assert done.state is State.RUNNING
    listed = (await sim["pve-01"].run(["qm", "listsnapshot", str(machine.vmid)])).stdout.decode().splitlines()
    assert [line.split()[1] for line in listed] == ["before", "current"]
    await fleet.do(DelSnapshot("db-1", "before"))
    assert "[" not in vms.config(model, machine.vmid)


@pytest.mark.parametrize("fault", ["kill-worker", "kill-supervisor", "drop-after"])
@pytest.mark.parametrize("on", ["snapshot", "delsnapshot"])
def test_a_snapshot_that_is_hit_anywhere_is_whole_or_gone_and_leaves_no_lock(fault, on):
    async def main():
        with SimCluster(nodes=1, seed=7) as sim:
            async with sim.fleet() as fleet:
                await fleet["db-1"].create(Spec(UBUNTU, backend="vm", storage="local-zfs"))
                steps = [Snapshot("db-1", "before"), DelSnapshot("db-1", "before")]
                sim["pve-01"].fault(fault, f"qm {on}")

                await fleet.run(steps[: 1 + (on == "delsnapshot")])

                await fleet.reconcile()
                text = vms.config(sim["pve-01"].model, fleet.machines["db-1"].vmid)
                assert ("lock:" in text, "snapstate" in text) == (False, False)

    virtual_run(main)


@simulated(nodes=1)
async def test_a_half_made_one_of_somebody_else_is_never_removed(sim, fleet):
    """The mark is looked for by the command that removes, so what has it not, or has another one, stays."""
    node = sim["pve-01"]
    node.fault("kill-worker", "qm create")
    await node.run(["qm", "create", "200", "--scsi0", f"local:0,import-from={UBUNTU}"])
    before = vms.config(node.model, 200)

    await fleet["db-1"].create(Spec(UBUNTU, backend="vm"))
    found = await fleet.doctor()

    assert before == "lock: create\n"
    assert vms.config(node.model, 200) == before
    assert [finding.fix for finding in found if finding.what == "half-made"] == [
        "if nobody needs it: qm unlock 200 and qm destroy 200 there"
    ]


@simulated(nodes=1)
async def test_a_journal_that_is_lost_is_rebuilt_with_the_right_backend(sim, fleet):
    await fleet["db-1"].create(Spec(UBUNTU, backend="vm"))
    await fleet["db-1"].start()
    await fleet["web-1"].create(Spec(DEBIAN))
    async with sim.fleet(
        config=Config(fleet=fleet.id), state_dir=str(fleet.state_dir) + "2", run_dir=str(fleet.run_dir) + "2"
    ) as other:
        await other.rebuild()
        known = {id: (machine.backend, str(machine.state)) for id, machine in other.machines.items()}
        assert known == {"db-1": ("vm", "running"), "web-1": ("lxc", "stopped")}
        await other["db-1"].stop()


@simulated(nodes=1)
async def test_protection_is_said(sim, fleet):
    await fleet["db-1"].create(Spec(UBUNTU, backend="vm"))
    await sim["pve-01"].run(["qm", "set", str(fleet.machines["db-1"].vmid), "--protection", "1"])

    with pytest.raises(Blocked, match="protection"):
        await fleet["db-1"].delete()


@simulated(nodes=1)
async def test_a_disk_is_no_image_for_a_container_nor_a_template_for_a_machine(sim, fleet):
    with pytest.raises(UnsupportedImage):
        await fleet["a"].create(Spec(UBUNTU, backend="lxc"))
    with pytest.raises(UnsupportedImage):
        await fleet["b"].create(Spec(DEBIAN, backend="vm"))
    with pytest.raises(UnsupportedImage, match="name a backend"):
        await fleet["c"].create(Spec("ubuntu:20.04"))


@simulated(nodes=2)
async def test_a_drain_plans_no_move_of_what_cannot_be_moved_and_names_it(sim, fleet):
    (await fleet.run([Create("db-1", Spec(UBUNTU, backend="vm", node="pve-01"))])).raise_for_failures()
    assert await fleet.moves_off("pve-01") == []
    (await fleet.run([Create("web-1", Spec(DEBIAN, node="pve-01", storage="local-zfs"))])).raise_for_failures()

    moves = await fleet.moves_off("pve-01")

    assert [(move.id, move.node) for move in moves] == [("web-1", "pve-02")]
    assert (fleet.stay_on("pve-01"), fleet.stay_on("pve-02")) == (("db-1",), ())
    (await fleet.run(moves)).raise_for_failures()


WITH_AGENT = Spec(UBUNTU, backend="vm", vm=VmSpec(agent=True))


async def agent(fleet):
    """A machine that runs, with a guest agent."""
    await fleet["db-1"].create(WITH_AGENT)
    await fleet["db-1"].start()
    return fleet["db-1"]


@simulated(nodes=1)
async def test_a_program_inside_gives_its_status_and_its_bytes(sim, fleet):
    db = await agent(fleet)
    data = bytes(range(256)) * 500  # more than goes with a command

    through = await db.exec(["cat"], stdin=data)
    failed = await db.exec(["sh", "-c", 'echo out; echo "err \\ end" >&2; exit 7'])

    assert (through.exit, through.stdout, through.stderr) == (0, data, b"")
    assert (failed.exit, failed.stdout) == (7, b"out\n")
    assert failed.stderr.startswith(b"err \\")
    assert fleet.machines["db-1"].state is State.RUNNING


@simulated(nodes=1)
async def test_what_runs_inside_is_journaled_and_never_runs_twice(sim, fleet):
    db = await agent(fleet)

    first = await db.exec(["sh", "-c", "echo more >> /root/log"], op_id="once")
    again = await db.exec(["sh", "-c", "echo more >> /root/log"], op_id="once")
    shown = await db.exec(["cat", "/root/log"])

    assert (first.repeated, again.repeated, shown.stdout) == (False, True, b"more\n")
    async with fleet.events.subscribe(since=0) as events:
        seen = [await anext(events) for _ in range(fleet.seq)]
    assert [event.exit for event in seen if isinstance(event, Succeeded) and event.op is Op.EXEC] == [0, 0]


@simulated(nodes=1)
async def test_a_lost_answer_of_a_program_inside_is_uncertain_and_not_repeated(sim, fleet):
    db = await agent(fleet)
    sim["pve-01"].fault("drop-after", "guest")

    with pytest.raises(Uncertain):
        await db.exec(["sh", "-c", "echo more >> /root/log"])

    assert (await db.exec(["cat", "/root/log"])).stdout == b"more\n"


@simulated(nodes=1)
async def test_a_program_that_takes_longer_than_it_may_is_uncertain(sim, fleet):
    db = await agent(fleet)

    with pytest.raises(NodeTimeout, match="still runs in the guest as pid") as caught:
        await db.exec(["sleep", "100"], timeout=5)

    assert caught.value.uncertain


@simulated(nodes=1)
async def test_an_agent_that_is_not_there_is_named_with_what_to_do(sim, fleet):
    sim._set(vm={"default": "mute"})
    db = await agent(fleet)
    await fleet["db-2"].create(Spec(UBUNTU, backend="vm"))
    await fleet["db-2"].start()

    with pytest.raises(Blocked, match="does not answer: install and start qemu-guest-agent inside"):
        await db.exec(["true"])
    with pytest.raises(Blocked, match=r"qm set [0-9]+ --agent 1"):
        await fleet["db-2"].exec(["true"])

    assert not [effect for effect in sim.effects() if effect.get("kind") == "exec"]
    await db.stop()
    with pytest.raises(IllegalTransition):
        await db.exec(["true"])


@simulated(nodes=1)
async def test_what_the_agent_has_no_way_to_is_refused_by_name_before_it_begins(sim, fleet):
    db = await agent(fleet)
    before = fleet.seq

    for name, value in (("env", {"A": "secret"}), ("cwd", "/srv"), ("user", "ada"), ("stdin", bytes((1 << 20) + 1))):
        with pytest.raises(InvalidInput, match=name) as caught:
            await db.exec(["true"], **{name: value})
        assert "secret" not in str(caught.value)
    with pytest.raises(CommandFailed, match="Failed to execute child process") as caught:
        await db.exec(["no-such-program"])

    assert not caught.value.uncertain
    assert fleet.seq == before + 2
