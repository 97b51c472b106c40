"""Backups, volumes that change hands and containers that change nodes, in the pretend cluster."""

from __future__ import annotations

from nexcage.testing._model.pct.restore import Backup
from nexcage.tools.config import parse

from .conftest import DEBIAN, World

ARCHIVE = "local:backup/vzdump-lxc-100.tar.zst"


def made(world: World, vmid: int, *more: str) -> None:
    call = world.run("pct", "create", str(vmid), DEBIAN, *(more or ("--rootfs", "local:1")))
    assert call.exit == 0


def values(world: World, vmid: int, on: str = "") -> dict[str, str]:
    node = world.nodes[on] if on else world.node
    return dict(parse(node.config(vmid) or "").values)


def backed_up(world: World, vmid: int = 100) -> None:
    world.node.files.write("/var/lib/vz/dump/vzdump-lxc-100.tar.zst", str(Backup.of(world.node, vmid)))


def test_a_restored_container_is_as_it_was_saved_but_for_what_was_asked(world: World) -> None:
    made(world, 100, "--rootfs", "local:1", "--net0", "name=eth0,bridge=vmbr0", "--memory", "256", "--tags", "a")
    backed_up(world)

    call = world.run("pct", "restore", "101", ARCHIVE, "--memory", "64", "--unique", "1")

    saved, restored = values(world, 100), values(world, 101)
    assert call.exit == 0
    assert "merging backed-up and given configuration.." in call.stdout
    assert restored["memory"] == "64"
    assert restored["tags"] == "a"
    assert restored["rootfs"] == "local:101/vm-101-disk-0.raw,size=1G"
    assert restored["net0"] != saved["net0"]
    assert "lock" not in restored


def test_a_restore_over_a_container_needs_force_and_that_it_is_stopped(world: World) -> None:
    made(world, 100)
    backed_up(world)

    assert "already exists on node" in world.run("pct", "restore", "100", ARCHIVE).stderr
    world.run("pct", "start", "100")
    assert world.run("pct", "restore", "100", ARCHIVE, "--force", "1").stderr == "can't overwrite running container\n"
    world.run("pct", "stop", "100")
    assert world.run("pct", "restore", "100", ARCHIVE, "--force", "1").exit == 0
    assert world.node.files.names("/var/lib/vz/images/100") == ["vm-100-disk-1.raw"]


def test_a_restore_that_fails_leaves_nothing_new_and_no_lock_on_what_was(world: World) -> None:
    made(world, 100)
    before = world.node.config(100)

    over = world.run("pct", "restore", "100", "/tmp/none.tar", "--force", "1")
    fresh = world.run("pct", "restore", "101", "/tmp/none.tar")

    assert over.stderr == "unable to restore CT 100 - can't find file '/tmp/none.tar'\n"
    assert fresh.stderr == "unable to restore CT 101 - can't find file '/tmp/none.tar'\n"
    assert world.node.config(100) == before
    assert world.node.config(101) is None


def test_a_volume_given_to_another_container_takes_its_name(world: World) -> None:
    made(world, 100, "--rootfs", "local:1", "--mp0", "local:1,mp=/data")
    made(world, 101)

    call = world.run("pct", "move-volume", "100", "mp0", "--target-vmid", "101", "--target-volume", "mp3")

    assert call.exit == 0
    assert "mp0" not in values(world, 100)
    assert values(world, 101)["mp3"] == "local:101/vm-101-disk-1.raw,mp=/data,size=1G"
    again = world.run("pct", "move-volume", "100", "mp0", "--target-vmid", "101", "--target-volume", "mp3")
    assert again.stderr == "Volume 'mp0' for container '100' does not exist\n"


def test_only_configured_volumes_move_to_another_storage(world: World) -> None:
    made(world, 100)
    world.run("pct", "move-volume", "100", "rootfs", "local-zfs")

    call = world.run("pct", "move-volume", "100", "unused0", "local-zfs")

    assert call.stderr == ("cannot move volume 'unused0', only configured volumes can be moved to another storage\n")


def test_a_container_moves_to_another_node_with_its_volumes(world: World) -> None:
    here, there = list(world.nodes)[:2]
    made(world, 100, "--rootfs", "local-zfs:1", "--mp0", "local:1,mp=/data")
    text = world.node.config(100)

    call = world.run("pct", "migrate", "100", there)

    assert call.exit == 0
    assert call.stdout.splitlines()[-1][20:].startswith("migration finished successfully (duration 00:00:0")
    assert world.nodes[here].config(100) is None
    assert world.nodes[there].config(100) == text
    assert world.nodes[there].files.exists("/var/lib/vz/images/100/vm-100-disk-0.raw")
    assert not world.nodes[here].files.exists("/var/lib/vz/images/100/vm-100-disk-0.raw")
    assert "does not exist" in world.run("pct", "start", "100").stderr
    assert world.run("pct", "start", "100", on=world.nodes[there]).exit == 0


def test_a_running_container_moves_only_with_a_restart(world: World) -> None:
    there = list(world.nodes)[1]
    made(world, 100)
    world.run("pct", "start", "100")

    refused = world.run("pct", "migrate", "100", there)
    moved = world.run("pct", "migrate", "100", there, "--restart", "1")

    assert refused.stderr == "can't migrate running container without --online or --restart\n"
    assert moved.exit == 0
    assert world.node.running() == []
    assert world.nodes[there].running() == [100]


def test_a_migration_that_cannot_be_leaves_the_container_where_it_was(world: World) -> None:
    there = list(world.nodes)[1]
    made(world, 100, "--rootfs", "local:1", "--mp0", "/srv,mp=/srv")
    before = world.node.config(100)

    call = world.run("pct", "migrate", "100", there)

    assert (call.exit, call.stderr) == (255, "migration aborted\n")
    assert "cannot migrate local bind mount point 'mp0'" in call.stdout
    assert world.node.config(100) == before


def test_a_locked_container_is_left_alone_by_what_only_mends(world: World) -> None:
    made(world, 100)
    world.run("pct", "set", "100", "--lock", "backup")

    for words in (["rescan", "--vmid", "100"], ["df", "100"], ["fstrim", "100"], ["template", "100"]):
        assert world.run("pct", *words).stderr.endswith("CT is locked (backup)\n")


def test_a_digest_is_compared_by_everything_that_takes_one(world: World) -> None:
    made(world, 100)
    stale = "0" * 40

    for words in (["set", "100", "--memory", "64"], ["resize", "100", "rootfs", "2G"]):
        assert "detected modified configuration" in world.run("pct", *words, "--digest", stale).stderr


def test_what_is_refused_before_a_task_begins_has_an_exit_status(world: World) -> None:
    made(world, 100)
    world.run("pct", "set", "100", "--lock", "backup")

    for words in (["template", "100"], ["resize", "100", "rootfs", "2G"]):
        call = world.run("pct", *words)
        assert call.exit != 0
        assert call.stderr == "CT is locked (backup)\n"
    assert world.run("pct", "push", "100", "/etc/hosts", "/x").exit != 0
