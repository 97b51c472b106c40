"""Containers with datasets of their own, on simulated nodes."""

from __future__ import annotations

from typing import Any

import pytest

import nexcage
from nexcage import Blocked, NodeNotUsable, State
from nexcage._core.config import ZfsConfig
from nexcage.testing import SimCluster, SimNode
from nexcage.testing.cluster import IMAGES

DEBIAN = "local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst"
SPEC = nexcage.Spec(DEBIAN)
SIM = "/var/lib/nexcage-sim"


def settings(**zfs: Any) -> nexcage.Config:
    return nexcage.Config(images=IMAGES, zfs=ZfsConfig(**{"pool": "tank", **zfs}))


async def pool(node: SimNode, name: str = "tank") -> None:
    assert (await node.run(["zpool", "create", name, "sdb"])).exit == 0


async def zfs(node: SimNode, *words: str) -> str:
    result = await node.run(["zfs", *words])
    assert result.exit == 0, result
    return result.stdout.decode()


async def datasets(node: SimNode, pool: str = "tank") -> list[str]:
    return (await zfs(node, "list", "-H", "-o", "name", "-t", "all", "-r", pool)).split()


def config_of(sim: SimCluster, vmid: int) -> str:
    return sim["pve-01"].model.config(vmid) or ""


def busy(node: SimNode, dataset: str, who: str = "4711 rsync file") -> None:
    node.files.write(f"{SIM}/busy/{dataset}", f"{who}\n")


def left_alone(node: SimNode, dataset: str) -> None:
    node.files.remove(f"{SIM}/busy/{dataset}")


# ---- making --------------------------------------------------------------------------------------------------------------------


@pytest.mark.sim(nodes=1)
async def test_the_root_disk_lies_in_a_dataset_with_our_mark(sim: SimCluster) -> None:
    node = sim["pve-01"]
    await pool(node)

    async with sim.fleet(config=settings(properties={"compression": "lz4"})) as fleet:
        done = await fleet["web-1"].create(nexcage.Spec(DEBIAN, size=8))
        await fleet["web-1"].start()
        name = f"tank/containers/web-1-{done.vmid}"

        assert await datasets(node) == ["tank", "tank/containers", name]
        said = await zfs(node, "get", "-Hp", "-o", "value", "org.nexcage:mark,refquota,compression,mountpoint", name)
        assert said.splitlines() == [
            f"nexcage fleet={fleet.id} id=web-1 vmid={done.vmid} op={done.op_id}",
            str(8 << 30),
            "lz4",
            f"/tank/containers/images/{done.vmid}",
        ]
        assert f"rootfs: nexcage-zfs:{done.vmid}/subvol-{done.vmid}-disk-0.subvol" in config_of(sim, done.vmid)
        assert done.notes == ()


@pytest.mark.sim(nodes=1)
async def test_one_directory_storage_serves_all_containers(sim: SimCluster) -> None:
    await pool(sim["pve-01"])

    async with sim.fleet(config=settings()) as fleet:
        report = await fleet.run(nexcage.Create(f"web-{n}", SPEC) for n in range(6))
        report.raise_for_failures()

    text = sim["pve-01"].files.read("/etc/pve/storage.cfg") or ""
    assert text.count("dir: nexcage-zfs\n\tpath /tank/containers\n\tcontent rootdir,images\n\tis_mountpoint 1\n") == 1
    assert len(await datasets(sim["pve-01"])) == 8


@pytest.mark.sim(nodes=1)
async def test_a_data_disk_is_a_bind_mount_and_the_root_disk_stays_where_it_was(sim: SimCluster) -> None:
    await pool(sim["pve-01"])

    async with sim.fleet(config=settings(pool="tank/data", mount="/srv/data")) as fleet:
        done = await fleet["web-1"].create(nexcage.Spec(DEBIAN, storage="local-zfs"))

        text = config_of(sim, done.vmid)
        assert f"mp0: /tank/data/web-1-{done.vmid},mp=/srv/data" in text
        assert f"rootfs: local-zfs:subvol-{done.vmid}-disk-0,size=4G" in text


@pytest.mark.sim(nodes=1)
async def test_mount_points_of_its_own_stand_beside_the_dataset(sim: SimCluster) -> None:
    await pool(sim["pve-01"])
    spec = nexcage.Spec(DEBIAN, mounts={"mp0": "local-zfs:2,mp=/var/lib/data"}, features="nesting=1")

    async with sim.fleet(config=settings()) as fleet:
        root = config_of(sim, (await fleet["web-1"].create(spec)).vmid)
    async with sim.fleet(config=settings(pool="tank/data", mount="/srv/data")) as fleet:
        data = config_of(sim, (await fleet["web-2"].create(spec)).vmid)

    assert "rootfs: nexcage-zfs:" in root
    assert "mp0: local-zfs:" in root
    assert "features: nesting=1" in root
    assert "mp0: local-zfs:" in data
    assert "mp1: /tank/data/web-2-" in data


@pytest.mark.sim(nodes=1)
async def test_on_a_storage_of_pve_volumes_are_left_to_pve(sim: SimCluster) -> None:
    async with sim.fleet(config=settings(pool="rpool/data")) as fleet:
        done = await fleet["web-1"].create(SPEC)

        assert f"rootfs: local-zfs:subvol-{done.vmid}-disk-0" in config_of(sim, done.vmid)
        assert await datasets(sim["pve-01"], "rpool") == [
            "rpool",
            "rpool/data",
            f"rpool/data/subvol-{done.vmid}-disk-0",
        ]
        await fleet["web-1"].delete()
        assert await datasets(sim["pve-01"], "rpool") == ["rpool", "rpool/data"]


@pytest.mark.sim(nodes=1)
async def test_who_says_a_storage_gets_that(sim: SimCluster) -> None:
    await pool(sim["pve-01"])

    async with sim.fleet(config=settings()) as fleet:
        await fleet["web-1"].create(nexcage.Spec(DEBIAN, storage="local-zfs"))

    assert await datasets(sim["pve-01"]) == ["tank"]


@pytest.mark.sim(nodes=1)
async def test_without_the_pool_it_goes_on_without_and_says_so_in_the_event(sim: SimCluster) -> None:
    await pool(sim["pve-01"], "tank2")  # a name that begins alike is another one

    async with sim.fleet(config=settings()) as fleet:
        done = await fleet["web-1"].create(SPEC)

        assert done.notes == ("made without ZFS: there is no pool 'tank'",)
        assert fleet.machines["web-1"].done[-1].notes == done.notes  # type: ignore[union-attr]
        await fleet["web-1"].delete()


@pytest.mark.sim(nodes=1)
@pytest.mark.parametrize(
    ("said", "told"),
    [(None, "there is no pool 'tank'"), ("", "modprobe zfs"), ("zfs-fuse daemon is running.\n", "daemon")],
)
async def test_where_zfs_is_required_nothing_is_made_without(sim: SimCluster, said: str | None, told: str) -> None:
    if said is not None:
        sim["pve-01"].files.write(f"{SIM}/zfs-down", said)

    async with sim.fleet(config=settings(required=True)) as fleet:
        with pytest.raises(NodeNotUsable, match=told):
            await fleet["web-1"].create(SPEC)

        assert sim["pve-01"].model.containers() == []


@pytest.mark.sim(nodes=1)
@pytest.mark.parametrize("trouble", ["health", "room", "mountpoint", "storage"])
async def test_a_pool_that_cannot_take_it_is_named_and_nothing_is_made(sim: SimCluster, trouble: str) -> None:
    node = sim["pve-01"]
    await pool(node)
    if trouble == "health":
        node.files.write(f"{SIM}/pool/tank", "DEGRADED")
    elif trouble == "room":
        node.files.write(f"{SIM}/full/tank", "")
    elif trouble == "mountpoint":
        await zfs(node, "set", "mountpoint=none", "tank")
    else:
        await node.run(["pvesm", "add", "dir", "nexcage-zfs", "--path", "/elsewhere"])
    before = sim.effects()

    async with sim.fleet(config=settings()) as fleet:
        with pytest.raises(Blocked, match={"health": "DEGRADED", "storage": "/elsewhere"}.get(trouble, trouble)):
            await fleet["web-1"].create(SPEC)

    assert sim.effects() == before


@pytest.mark.sim(nodes=1)
async def test_a_dataset_of_somebody_else_is_never_reused(sim: SimCluster) -> None:
    node = sim["pve-01"]
    await pool(node)
    async with sim.fleet(config=settings()) as fleet:
        first = (await fleet["web-1"].create(SPEC)).vmid
        await fleet["web-1"].delete()
        theirs = f"tank/containers/web-1-{first}"
        await zfs(node, "create", theirs)

        second = (await fleet["web-1"].create(SPEC)).vmid
        assert second != first
        await fleet["web-1"].delete()

    assert await datasets(node) == ["tank", "tank/containers", theirs]


@pytest.mark.sim(nodes=2)
async def test_a_create_that_fails_leaves_no_dataset(sim: SimCluster) -> None:
    node = sim["pve-01"]
    await pool(node)
    node.files.write(f"{SIM}/full/nexcage-zfs", "")
    async with sim.fleet(config=settings()) as fleet:
        with pytest.raises(nexcage.CommandFailed, match="exit code 2"):
            await fleet["web-1"].create(nexcage.Spec(DEBIAN, node="pve-01"))

        assert fleet.machines["web-1"].state is State.ABSENT

    assert await datasets(node) == ["tank", "tank/containers"]


@pytest.mark.sim(nodes=1)
async def test_a_vmid_that_is_taken_meanwhile_costs_its_dataset_only(sim: SimCluster) -> None:
    node = sim["pve-01"]
    await pool(node)
    node.fault("rival", on="pct create")
    async with sim.fleet(config=settings()) as fleet:
        done = await fleet["web-1"].create(SPEC)

    assert await datasets(node) == ["tank", "tank/containers", f"tank/containers/web-1-{done.vmid}"]


# ---- deleting ------------------------------------------------------------------------------------------------------------------


@pytest.mark.sim(nodes=1)
async def test_a_delete_removes_the_dataset_with_its_snapshots(sim: SimCluster) -> None:
    node = sim["pve-01"]
    await pool(node)
    async with sim.fleet(config=settings()) as fleet:
        done = await fleet["web-1"].create(SPEC)
        await zfs(node, "snapshot", f"tank/containers/web-1-{done.vmid}@daily")
        await fleet["web-1"].start()
        await fleet["web-1"].delete(force=True)

    assert await datasets(node) == ["tank", "tank/containers"]


@pytest.mark.sim(nodes=1)
@pytest.mark.parametrize("mount", ["", "/data"])
async def test_a_dataset_can_be_kept(sim: SimCluster, mount: str) -> None:
    node = sim["pve-01"]
    await pool(node)
    async with sim.fleet(config=settings(on_delete="keep", mount=mount)) as fleet:
        made = await fleet["web-1"].create(SPEC)
        done = await fleet["web-1"].delete()
        name = f"tank/containers/web-1-{made.vmid}"

        kept = [name] if mount else [name, f"{name}@nexcage-deleted"]
        assert await datasets(node) == ["tank", "tank/containers", *kept]
        if not mount:
            assert done.notes == (f"its dataset {name} is kept, unmounted",)
        again = await fleet["web-1"].create(SPEC)
        assert again.vmid != made.vmid  # what is kept is not attached to the next one


@pytest.mark.sim(nodes=1)
async def test_a_dataset_can_be_renamed(sim: SimCluster) -> None:
    node = sim["pve-01"]
    await pool(node)
    async with sim.fleet(config=settings(on_delete="rename")) as fleet:
        made = await fleet["web-1"].create(SPEC)
        done = await fleet["web-1"].delete()
        new = f"tank/containers/web-1-{made.vmid}-deleted-{made.op_id}"

        assert await datasets(node) == ["tank", "tank/containers", new, f"{new}@nexcage-deleted"]
        assert done.notes == (f"its dataset is {new} now",)
        assert (await fleet["web-1"].create(SPEC)).vmid == made.vmid


@pytest.mark.sim(nodes=1)
async def test_a_dataset_without_our_mark_survives_the_delete(sim: SimCluster) -> None:
    node = sim["pve-01"]
    await pool(node)
    async with sim.fleet(config=settings()) as fleet:
        done = await fleet["web-1"].create(SPEC)
        name = f"tank/containers/web-1-{done.vmid}"
        await zfs(node, "inherit", "org.nexcage:mark", name)
        await fleet["web-1"].delete()

    assert name in await datasets(node)


@pytest.mark.sim(nodes=1)
async def test_who_holds_the_dataset_is_named_before_anything_is_gone(sim: SimCluster) -> None:
    node = sim["pve-01"]
    await pool(node)
    async with sim.fleet(config=settings()) as fleet:
        done = await fleet["web-1"].create(SPEC)
        name = f"tank/containers/web-1-{done.vmid}"
        busy(node, name)

        with pytest.raises(Blocked, match=rf"{name} on pve-01 is blocked by rsync \(pid 4711\)"):
            await fleet["web-1"].delete()
        assert node.model.containers() == [done.vmid]
        assert fleet.machines["web-1"].state is State.CREATED

        left_alone(node, name)
        await fleet["web-1"].delete()
    assert await datasets(node) == ["tank", "tank/containers"]


@pytest.mark.sim(nodes=1)
async def test_what_still_holds_it_after_a_forced_delete_is_named_and_the_container_is_gone(sim: SimCluster) -> None:
    node = sim["pve-01"]
    await pool(node)
    async with sim.fleet(config=settings()) as fleet:
        done = await fleet["web-1"].create(SPEC)
        await fleet["web-1"].start()
        name = f"tank/containers/web-1-{done.vmid}"
        busy(node, name, "1 systemd mount")

        with pytest.raises(Blocked, match="another mount namespace"):
            await fleet["web-1"].delete(force=True)
        assert fleet.machines["web-1"].state is fleet.machines["web-1"].wanted is State.ABSENT
        assert node.model.containers() == []
        assert not (await fleet.reconcile())

    assert name in await datasets(node)


@pytest.mark.sim(nodes=1)
async def test_a_clone_of_it_blocks_and_is_named(sim: SimCluster) -> None:
    node = sim["pve-01"]
    await pool(node)
    async with sim.fleet(config=settings()) as fleet:
        done = await fleet["web-1"].create(SPEC)
        name = f"tank/containers/web-1-{done.vmid}"
        await zfs(node, "snapshot", f"{name}@gold")
        await zfs(node, "clone", f"{name}@gold", "tank/copy")

        with pytest.raises(Blocked, match="its clones tank/copy"):
            await fleet["web-1"].delete()


@pytest.mark.sim(nodes=1)
async def test_a_node_that_lost_zfs_still_deletes(sim: SimCluster) -> None:
    async with sim.fleet(config=settings()) as fleet:
        await fleet["web-1"].create(SPEC)
        sim["pve-01"].files.write(f"{SIM}/zfs-down", "")
        await fleet["web-1"].delete()

    assert sim["pve-01"].model.containers() == []


@pytest.mark.sim(nodes=1)
async def test_where_zfs_is_required_nothing_is_deleted_that_cannot_be_seen(sim: SimCluster) -> None:
    await pool(sim["pve-01"])
    async with sim.fleet(config=settings(required=True)) as fleet:
        done = await fleet["web-1"].create(SPEC)
        sim["pve-01"].files.write(f"{SIM}/zfs-down", "")
        with pytest.raises(NodeNotUsable, match="modprobe zfs"):
            await fleet["web-1"].delete()
        assert sim["pve-01"].model.containers() == [done.vmid]

        sim["pve-01"].files.remove(f"{SIM}/zfs-down")
        await fleet["web-1"].delete()
    assert await datasets(sim["pve-01"]) == ["tank", "tank/containers"]
