"""Guests that somebody else made become containers of the fleet, and nothing of them changes but our mark."""

from __future__ import annotations

import pytest

import nexcage
from nexcage import AlreadyExists, Busy, Changed, IllegalTransition, InvalidInput, NoRoute, NotFound, NotOurs, State
from nexcage.testing import SimCluster
from nexcage.testing._model import vms

IMAGE = "local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst"
THEIRS = ["--storage", "local-zfs", "--tags", "db;prod", "--description", "keep\nthis", "--memory", "640"]
MARK = "nexcage fleet={} id=old vmid={} op=0123456789abcdef"


async def guest(sim: SimCluster, vmid: int = 104, *more: str, node: str = "pve-01") -> None:
    made = await sim[node].run(["pct", "create", str(vmid), IMAGE, *(more or THEIRS)])
    assert made.exit == 0, made


def config(sim: SimCluster, vmid: int = 104) -> str:
    return sim["pve-01"].model.config(vmid) or ""


@pytest.mark.sim(nodes=2)
async def test_only_the_mark_is_added(sim: SimCluster) -> None:
    await guest(sim)
    before = config(sim)
    async with sim.fleet() as fleet:
        done = await fleet.adopt("db-1", 104)
        mark = f"#nexcage fleet={fleet.id} id=db-1 vmid=104 op={done.op_id}\n"

        assert config(sim) == mark + before.replace("tags: db;prod", "tags: db;nexcage;prod")
        assert (done.state, done.node, done.vmid, done.changed) == (State.STOPPED, "pve-01", 104, True)


@pytest.mark.sim(nodes=2)
@pytest.mark.parametrize("state", [State.RUNNING, State.PAUSED])
async def test_it_goes_on_as_it_is(sim: SimCluster, state: State) -> None:
    await guest(sim)
    await sim["pve-01"].run(["pct", "start", "104"])
    if state is State.PAUSED:
        await sim["pve-01"].run(["lxc-freeze", "-n", "104"])
    pid = sim["pve-01"].model.init_pid(104)
    async with sim.fleet() as fleet:
        done = await fleet.adopt("db-1", 104)

        assert (done.state, done.pid) == (state, pid)
        assert (await fleet["db-1"].state()).pid == pid == sim["pve-01"].model.init_pid(104)
        assert await fleet.reconcile() == []


@pytest.mark.sim(nodes=2)
async def test_an_adopted_one_is_one_of_ours(sim: SimCluster) -> None:
    await guest(sim)
    async with sim.fleet() as fleet:
        await fleet.adopt("db-1", 104)
        await fleet["db-1"].start()
        await fleet["db-1"].update(memory=1024)
        await fleet["db-1"].stop()
        await fleet["db-1"].delete()

        assert config(sim) == ""


@pytest.mark.sim(nodes=2)
async def test_the_journal_keeps_what_was_adopted(sim: SimCluster) -> None:
    await guest(sim)
    async with sim.fleet() as fleet:
        await fleet.adopt("db-1", 104)
    async with sim.fleet() as fleet:
        assert fleet["db-1"].machine.vmid == 104
        assert await fleet.doctor() == []


@pytest.mark.sim(nodes=2)
async def test_a_virtual_machine_becomes_one_of_the_vm_backend(sim: SimCluster) -> None:
    made = await sim["pve-01"].run(["qm", "create", "105", "--name", "vm5", "--description", "theirs"])
    assert made.exit == 0, made
    async with sim.fleet() as fleet:
        done = await fleet.adopt("vm-1", 105)

        assert fleet["vm-1"].machine.backend == "vm"
        text = vms.config(sim["pve-01"].model, 105) or ""
        assert text.startswith(f"#nexcage fleet={fleet.id} id=vm-1 vmid=105 op={done.op_id}\n#theirs\n")
        await fleet["vm-1"].start()


@pytest.mark.sim(nodes=2)
async def test_a_template_may_be_adopted(sim: SimCluster) -> None:
    await guest(sim)
    await sim["pve-01"].run(["pct", "template", "104"])
    async with sim.fleet() as fleet:
        await fleet.adopt("base", 104)

        await fleet["web-1"].create(nexcage.Spec.from_container("base", linked=True))


@pytest.mark.sim(nodes=2)
async def test_one_of_another_fleet_is_refused_and_a_copy_of_it_is_not(sim: SimCluster) -> None:
    await guest(sim, 104, "--storage", "local-zfs", "--description", MARK.format("another", 104))
    await guest(sim, 105, "--storage", "local-zfs", "--description", MARK.format("another", 104) + "\ntheir text")
    before = config(sim)
    async with sim.fleet() as fleet:
        with pytest.raises(NotOurs, match="it is container 'old' of fleet another"):
            await fleet.adopt("db-1", 104)
        done = await fleet.adopt("db-2", 105)

        assert config(sim) == before
        mark = f"#nexcage fleet={fleet.id} id=db-2 vmid=105 op={done.op_id}"
        assert config(sim, 105).split("\n")[:2] == [mark, "#their text"]
        assert "db-1" not in fleet.machines


@pytest.mark.sim(nodes=2)
async def test_what_is_known_is_not_adopted_again(sim: SimCluster) -> None:
    await guest(sim)
    await guest(sim, 105)
    async with sim.fleet() as fleet:
        await fleet.adopt("db-1", 104)
        with pytest.raises(AlreadyExists, match="container 'db-1' of this fleet already"):
            await fleet.adopt("db-2", 104)
        with pytest.raises(AlreadyExists, match="container 'db-1' already exists"):
            await fleet.adopt("db-1", 105)


@pytest.mark.sim(nodes=2)
async def test_the_same_key_adopts_once(sim: SimCluster) -> None:
    await guest(sim)
    async with sim.fleet() as fleet:
        first = await fleet.adopt("db-1", 104, op_id="take-104")

        assert (await fleet.adopt("db-1", 104, op_id="take-104")).seconds == first.seconds
        assert sum(effect["argv"][:2] == ["pct", "set"] for effect in sim.effects()) == 1


@pytest.mark.sim(nodes=2)
async def test_an_unknown_vmid_names_the_nearest(sim: SimCluster) -> None:
    await guest(sim)
    async with sim.fleet() as fleet:
        with pytest.raises(NotFound, match="guest 107 is not on pve-01, pve-02; the nearest: 104"):
            await fleet.adopt("db-1", 107)
        with pytest.raises(NotFound, match="guest 104 is not on pve-02"):
            await fleet.adopt("db-1", 104, node="pve-02")
        with pytest.raises(NotFound, match="node 'pve-09'"):
            await fleet.adopt("db-1", 104, node="pve-09")


@pytest.mark.sim(nodes=2)
async def test_a_guest_of_a_node_outside_the_fleet_names_that_node(sim: SimCluster) -> None:
    await guest(sim, node="pve-02")
    async with sim.fleet(["pve-01"]) as fleet:
        with pytest.raises(NoRoute, match="on node 'pve-02', which is not in this fleet"):
            await fleet.adopt("db-1", 104)


async def test_a_vmid_on_two_nodes_needs_the_node() -> None:
    from nexcage._core.adopting import sought
    from nexcage._core.seen import Guest, Look

    looks = {key: Look(key, key, f"boot-{key}", {104: Guest(104)}, {104: key}) for key in ("a", "b")}
    with pytest.raises(InvalidInput, match="it is on a, b; name the node"):
        sought(nexcage.Adopt("db-1", 104), looks)
    assert sought(nexcage.Adopt("db-1", 104, "b"), looks)[0] == "b"


@pytest.mark.sim(nodes=1)
@pytest.mark.parametrize("lock, error", [("backup", Busy), ("create", IllegalTransition)])
async def test_a_locked_one_is_left_alone(sim: SimCluster, lock: str, error: type[Exception]) -> None:
    await guest(sim)
    model = sim["pve-01"].model
    model.write_config(104, config(sim) + f"lock: {lock}\n")
    before = config(sim)
    async with sim.fleet() as fleet:
        with pytest.raises(error):
            await fleet.adopt("db-1", 104)

        assert config(sim) == before


@pytest.mark.sim(nodes=2)
@pytest.mark.parametrize("kind", ["drop-before", "drop-during", "drop-after", "kill-supervisor"])
async def test_a_lost_answer_is_looked_for(sim: SimCluster, kind: str) -> None:
    await guest(sim)
    async with sim.fleet() as fleet:
        sim["pve-01"].fault(kind, on="pct set", times=1)

        done = await fleet.adopt("db-1", 104)

        assert done.state is State.STOPPED
        assert config(sim).count("nexcage fleet=") == 1


@pytest.mark.sim(nodes=2)
async def test_another_guest_that_took_its_place_meanwhile_is_left_alone(sim: SimCluster) -> None:
    await guest(sim)
    async with sim.fleet() as fleet:
        sim["pve-01"].fault("swap", on="pct set", times=1)

        with pytest.raises(Changed):
            await fleet.adopt("db-1", 104)

        assert "hostname: theirs" in config(sim)
        assert "nexcage" not in config(sim)
        assert fleet["db-1"].machine.state is State.ABSENT


@pytest.mark.sim(nodes=2)
async def test_a_rehearsal_shows_the_command_and_changes_nothing(sim: SimCluster) -> None:
    await guest(sim)
    before = config(sim)
    async with sim.fleet() as fleet:
        node, (command,) = await fleet.rehearse(nexcage.Adopt("db-1", 104))

        assert (node, command.argv[:3]) == ("pve-01", ("pct", "set", "104"))
        assert "--digest" in command.argv
        assert config(sim) == before
