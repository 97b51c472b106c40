"""What happens to containers over time: locks, signals, interrupted and killed tools, effects."""

from __future__ import annotations

import pytest

from nexcage.tools.config import parse

from .conftest import DEBIAN, World


def test_a_killed_create_leaves_what_a_real_one_leaves(world: World) -> None:
    call = world.start("pct", "create", "100", DEBIAN, "--rootfs", "local:1")
    world.advance(1.3)
    call.kill()
    world.advance(60)

    assert world.node.config(100) == "lock: create\n"
    assert world.node.files.exists("/var/lib/vz/images/100/vm-100-disk-0.raw")
    assert world.node.tasks("vzcreate", 100) == []
    assert world.effects()[-1]["exit"] is None
    assert world.run("pct", "start", "100").stderr == "CT is locked (create)\n"
    assert world.run("pct", "unlock", "100").exit == 0


def test_an_interrupted_create_takes_everything_back(world: World) -> None:
    call = world.start("pct", "create", "100", DEBIAN, "--rootfs", "local:1")
    world.advance(1.3)
    call.interrupt()
    world.finish(call)

    assert call.exit == 255
    assert call.stderr.endswith("failed: received interrupt\n")
    assert world.node.config(100) is None
    assert not world.node.files.exists("/var/lib/vz/images/100")
    assert [c["change"] for c in world.effects()[-1]["changed"] if c["kind"] == "volume"] == ["created", "removed"]


def test_a_vmid_belongs_to_one_guest_of_the_whole_cluster(world: World) -> None:
    calls = [
        world.start("pct", "create", "100", DEBIAN, "--storage", "local-zfs", on=node) for node in world.nodes.values()
    ]
    world.finish(*calls)

    assert sorted(call.exit == 0 for call in calls) == [False, True]
    loser = next(call for call in calls if call.exit)
    assert "CT 100 already exists on node 'pve-0" in loser.stderr


def test_a_held_flock_is_waited_for_ten_seconds(world: World) -> None:
    world.started(100)
    world.node.files.write("/etc/pve/settings.json", '{"pace": 1.0, "init": {"default": "stubborn"}}')
    world.run("pct", "stop", "100")
    world.run("pct", "start", "100")
    shutdown = world.start("pct", "shutdown", "100", "--timeout", "60")
    world.advance(3)
    before = world.now
    stop = world.run("pct", "stop", "100")

    assert stop.stdout == "trying to acquire lock...\n"
    assert stop.stderr == "can't lock file '/run/lock/lxc/pve-config-100.lock' - got timeout\n"
    assert 10 < world.now - before < 13
    assert not shutdown.ended


def test_overruling_a_shutdown_frees_the_lock(world: World) -> None:
    world.node.files.write("/etc/pve/settings.json", '{"pace": 1.0, "init": {"default": "stubborn"}}')
    world.started(100)
    shutdown = world.start("pct", "shutdown", "100", "--timeout", "60")
    world.advance(3)
    stop = world.run("pct", "stop", "100", "--overrule-shutdown", "1")
    world.finish(shutdown)

    assert stop.exit == 0
    assert stop.stdout.startswith("overruled vzshutdown tasks: UPID:pve-01:")
    assert shutdown.exit == 255
    assert not world.node.is_running(100)


def test_a_stubborn_container_needs_force_and_shutdown_takes_twice_as_long(world: World) -> None:
    world.node.files.write("/etc/pve/settings.json", '{"pace": 1.0, "init": {"web": "stubborn"}}')
    world.started(100, "--hostname", "web")
    before = world.now
    polite = world.run("pct", "shutdown", "100", "--timeout", "10")
    took = world.now - before
    forced = world.run("pct", "shutdown", "100", "--timeout", "2", "--forceStop", "1")

    assert (polite.exit, polite.stderr) == (255, "container did not stop\n")
    assert 24 < took < 28
    assert forced.exit == 0
    assert not world.node.is_running(100)


def test_two_starts_at_once_one_wins(world: World) -> None:
    world.created(100)
    calls = [world.start("pct", "start", "100"), world.start("pct", "start", "100")]
    world.finish(*calls)

    assert sorted(str(call.exit) for call in calls) == ["0", "255"]
    assert "CT 100 already running\n" in [call.stderr for call in calls]


@pytest.mark.parametrize("signal", ["-PWR", "-30", "-RTMIN+3", "-37"])
def test_a_halt_signal_ends_the_container_a_little_later(world: World, signal: str) -> None:
    pid = world.started(100)
    call = world.run("kill", signal, str(pid))

    assert call.exit == 0
    assert world.node.is_running(100)
    world.advance(3)
    assert not world.node.is_running(100)
    assert [c["kind"] for c in world.effects()[-1]["changed"]] == ["signal", "process"]


def test_kill_ends_init_at_once_and_other_signals_do_nothing(world: World) -> None:
    pid = world.started(100)
    world.run("kill", "-s", "HUP", str(pid))
    world.advance(60)
    assert world.node.init_pid(100) == pid

    world.run("kill", "-KILL", str(pid))

    assert not world.node.is_running(100)
    assert world.run("kill", "-0", str(pid)).exit == 1


def test_a_frozen_container_runs_and_does_not_halt(world: World) -> None:
    world.started(100)
    world.run("lxc-freeze", "-n", "100")

    assert world.run("lxc-info", "-n", "100", "-s", "-H").stdout == "FROZEN\n"
    assert world.run("pct", "status", "100").stdout == "status: running\n"
    assert world.node.files.read("/sys/fs/cgroup/lxc/100/ns/cgroup.events") == "populated 1\nfrozen 1\n"
    assert world.run("pct", "shutdown", "100", "--timeout", "5").exit == 255
    assert world.run("lxc-unfreeze", "-n", "100").exit == 0
    world.advance(5)
    assert not world.node.is_running(100)


def test_pids_never_come_back(world: World) -> None:
    first = world.started(100)
    world.run("pct", "stop", "100")
    world.run("pct", "start", "100")
    second = world.node.init_pid(100)

    assert second is not None
    assert 4194304 < first < second


def test_a_task_is_in_active_while_it_works_and_in_index_after(world: World) -> None:
    world.created(100)
    call = world.start("pct", "start", "100")
    world.advance(1.2)
    (upid,) = world.node.tasks("vzstart", 100)
    world.finish(call)

    assert world.node.tasks("vzstart", 100) == []
    assert (world.node.files.read("/var/log/pve/tasks/index") or "").splitlines()[-1].startswith(upid)
    assert (world.node.files.read(f"/var/log/pve/tasks/{upid.split(':')[4][-1]}/{upid}") or "").endswith("TASK OK\n")


def test_an_effect_says_who_did_what_and_how_it_ended(world: World) -> None:
    env = {"NEXCAGE_OP_ID": "op-1", "NEXCAGE_STEP": "2"}
    world.run("pct", "create", "100", DEBIAN, "--storage", "local-zfs", env=env)
    world.run("pct", "list", env=env)
    world.run("pct", "start", "999", env=env)

    (effect,) = world.effects()
    assert (effect["op_id"], effect["step"], effect["exit"], effect["node"]) == ("op-1", 2, 0, "pve-01")
    assert effect["argv"][:3] == ["pct", "create", "100"]
    assert {"kind": "config", "target": "100", "change": "created"} in effect["changed"]
    assert {"kind": "volume", "target": "local-zfs:subvol-100-disk-0", "change": "created"} in effect["changed"]


def test_without_quorum_nothing_is_created_and_reads_go_on(world: World) -> None:
    world.created(100)
    world.node.files.write("/var/lib/nexcage-sim/no-quorum", "")

    assert world.run("pct", "create", "101", DEBIAN).stderr == "cluster not ready - no quorum?\n"
    assert "Permission denied" in world.run("pct", "set", "100", "--memory", "64").stderr
    assert world.run("pct", "status", "100").exit == 0


def test_a_reboot_of_a_locked_container_leaves_it_stopped(world: World) -> None:
    world.started(100)
    world.run("pct", "set", "100", "--lock", "backup")
    call = world.run("pct", "reboot", "100")

    assert call.stderr == "startup for container '100' failed\n"
    assert not world.node.is_running(100)


def test_destroy_shows_destroyed_while_it_works(world: World) -> None:
    world.created(100)
    call = world.start("pct", "destroy", "100")
    world.advance(1.1)
    seen = world.node.config(100)
    while not call.ended and seen != "lock: destroyed\n":
        world.advance(0.02)
        seen = world.node.config(100) or seen
    world.finish(call)

    assert seen == "lock: destroyed\n"
    assert world.node.config(100) is None
    assert "subvol-100-disk-0" not in (world.node.files.read("/var/lib/nexcage-sim/zfs.json") or "")


def test_a_snapshot_on_zfs_rolls_back_only_to_the_newest(world: World) -> None:
    world.created(100)
    for name in ("one", "two"):
        assert world.run("pct", "snapshot", "100", name).exit == 0

    refused = world.run("pct", "rollback", "100", "one")

    newest = "is not most recent snapshot on 'local-zfs:subvol-100-disk-0'"
    assert refused.stderr == f"can't rollback, 'one' {newest}\n"
    assert world.run("pct", "rollback", "100", "two").exit == 0
    assert sorted(parse(world.node.config(100) or "").snapshots) == ["one", "two"]


def test_equal_seeds_give_equal_histories() -> None:
    def history() -> list[object]:
        world = World(seed=7)
        world.started(100, "--net0", "name=eth0,bridge=vmbr0")
        world.run("pct", "shutdown", "100")
        return [*world.effects(), world.node.config(100), world.now]

    assert history() == history()
