"""Backups: an archive is made, or the caller knows that it was not; and a container is made from one."""

from __future__ import annotations

import pytest

import nexcage
from nexcage import Busy, CommandFailed, InvalidInput, NotFound, Spec, State, Uncertain, Unsupported
from nexcage.testing import SimCluster

IMAGE = "local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst"
SPEC = Spec(IMAGE, node="pve-01", storage="local-zfs", memory=640, tags=("web",), description="keep this")


def config(sim: SimCluster, vmid: int, node: str = "pve-01") -> str:
    return sim[node].model.config(vmid) or ""


async def web(fleet: nexcage.Fleet, spec: Spec = SPEC) -> nexcage.Container:
    one = fleet["web-1"]
    await one.create(spec)
    await one.start()
    return one


@pytest.mark.sim(nodes=2)
@pytest.mark.parametrize("mode", ["snapshot", "suspend", "stop"])
async def test_a_backup_is_an_archive_that_can_be_seen_and_the_container_runs_on(sim: SimCluster, mode: str) -> None:
    async with sim.fleet() as fleet:
        one = await web(fleet)

        volume = await one.backup(mode=mode)

        assert [archive.id for archive in await one.backups()] == [volume]
        assert one.machine.state is State.RUNNING
        assert one.machine.pid == sim["pve-01"].model.init_pid(one.machine.vmid)
        assert "lock:" not in config(sim, one.machine.vmid)


@pytest.mark.sim(nodes=2)
async def test_a_rehearsed_backup_is_its_command_and_makes_no_archive(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        one = await web(fleet)

        node, (command,) = await fleet.rehearse(nexcage.Backup("web-1", storage="local"))

        at = command.argv.index("vzdump")
        assert (node, command.argv[at : at + 2]) == ("pve-01", ("vzdump", str(one.machine.vmid)))
        assert not await one.backups()


@pytest.mark.sim(nodes=2)
async def test_a_restored_container_is_as_it_was_saved_with_a_mark_of_its_own(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        one = await web(fleet)
        volume = await one.backup()

        done = await fleet.restore("web-2", volume, storage="local-zfs")

        text = config(sim, done.vmid)
        assert (done.node, done.state) == ("pve-01", State.CREATED)
        assert text.split("\n")[0] == f"#nexcage fleet={fleet.id} id=web-2 vmid={done.vmid} op={done.op_id}"
        assert text.count("nexcage fleet=") == 1
        for kept in ("#keep this\n", "memory: 640\n", "tags: nexcage;web\n", "hostname: web-1\n"):
            assert kept in text
        await fleet["web-2"].start()
        assert await fleet.doctor() == []


@pytest.mark.sim(nodes=2)
async def test_only_beside_its_original_a_restored_one_gets_addresses_of_its_own(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        one = await web(fleet)
        volume = await one.backup()
        (mac,) = (line for line in config(sim, one.machine.vmid).split("\n") if line.startswith("net0:"))

        beside = await fleet.restore("web-2", volume, storage="local-zfs")
        await one.delete(force=True)
        instead = await fleet.restore("web-3", volume, storage="local-zfs")

        assert mac not in config(sim, beside.vmid)
        assert mac in config(sim, instead.vmid)


@pytest.mark.sim(nodes=2)
async def test_a_backup_that_failed_is_said_and_leaves_no_lock(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        one = await web(fleet)
        sim["pve-01"].fault("storage-full", seconds=60)

        with pytest.raises(CommandFailed, match="No space left on device"):
            await one.backup()

        assert (await one.backups(), one.machine.state) == ((), State.RUNNING)
        assert "lock:" not in config(sim, one.machine.vmid)


@pytest.mark.sim(nodes=2)
async def test_a_storage_that_takes_no_backups_is_refused(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        one = await web(fleet)
        with pytest.raises(NotFound, match="storage 'nope'"):
            await one.backup("nope")
        with pytest.raises(CommandFailed, match="does not support backups"):
            await one.backup("local-zfs")
        with pytest.raises(InvalidInput, match="mode"):
            await one.backup(mode="quick")


@pytest.mark.sim(nodes=2)
async def test_a_locked_container_is_busy(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        one = await web(fleet)
        model = sim["pve-01"].model
        model.write_config(one.machine.vmid, config(sim, one.machine.vmid) + "lock: migrate\n")

        with pytest.raises(Busy):
            await one.backup()


@pytest.mark.sim(nodes=2)
@pytest.mark.parametrize("kind", ["drop-before", "drop-during", "drop-after"])
async def test_a_lost_answer_is_asked_for_and_never_makes_two(sim: SimCluster, kind: str) -> None:
    async with sim.fleet() as fleet:
        one = await web(fleet)
        sim["pve-01"].fault(kind, on="vzdump", times=1)
        try:
            await one.backup()
        except (Uncertain, nexcage.NodeUnreachable):
            assert len(await one.backups()) <= 1
        else:
            assert len(await one.backups()) == 1
        assert (await one.state()).status == "running"


@pytest.mark.sim(nodes=2)
async def test_a_virtual_machine_has_no_backup_yet(sim: SimCluster) -> None:
    made = await sim["pve-01"].run(["qm", "create", "105", "--name", "vm5"])
    assert made.exit == 0, made
    async with sim.fleet() as fleet:
        await fleet.adopt("vm-1", 105)
        with pytest.raises(Unsupported):
            await fleet["vm-1"].backup()


@pytest.mark.sim(nodes=2)
async def test_an_archive_that_nobody_has_is_not_found(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        with pytest.raises(NotFound, match="is not on pve-01, pve-02"):
            await fleet.restore("web-2", "local:backup/vzdump-lxc-104-2025_11_24-16_00_05.tar.zst")
        with pytest.raises(InvalidInput, match="an archive of a container"):
            await fleet.restore("web-2", IMAGE)
