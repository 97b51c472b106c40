"""``nexcage sim``: a cluster in the background, seen through SSH and through PATH as one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import anyio
import pytest

import nexcage
from nexcage.testing import faults, simctl
from nexcage.testing._model.world import disk_node
from tests.transports.commands import alive

ROOT = Path(nexcage.__file__).parent.parent
IMAGE = "local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst"
ENV = {**os.environ, "PYTHONPATH": str(ROOT)}


@pytest.fixture
def directory(tmp_path):
    yield tmp_path / "pve"
    if (tmp_path / "pve" / ".nexcage-sim").exists():
        simctl.down(tmp_path / "pve")


@pytest.fixture
def up(directory):
    simctl.up(3, directory, seed=4, detach=True)
    return directory


def on(directory, node, *argv, **more):
    """Run a command as somebody whose shell is that node."""
    path = simctl.path(directory, node)
    env = {**os.environ, "PATH": f"{path}:{os.environ['PATH']}"}
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=120, check=False, **more)


def nexcage_cli(*argv):
    argv = [sys.executable, "-m", "nexcage", *argv]
    return subprocess.run(argv, env=ENV, capture_output=True, text=True, timeout=120, check=False)


def test_up_says_where_the_config_is_and_nothing_else(directory):
    ran = nexcage_cli("sim", "up", "--nodes", "2", "--dir", str(directory), "--detach")
    assert (ran.returncode, ran.stdout) == (0, f"{directory}/config.toml\n"), ran.stderr
    config = tomllib.loads((directory / "config.toml").read_text())
    assert config["hosts"] == ["pve-01", "pve-02"]
    assert config["state_dir"].startswith(str(directory))
    assert config["run_dir"].startswith(str(directory))
    assert config["nodes"]["pve-02"]["address"] == "127.0.0.1"
    assert set(config["images"]["ubuntu:20.04"]) == {"vm"}  # there is no template of it
    assert (directory / "ssh" / "identity").stat().st_mode & 0o777 == 0o600


def test_up_in_the_foreground_ends_by_a_signal(directory):
    argv = [sys.executable, "-m", "nexcage", "sim", "up", "--nodes", "1", "--dir", str(directory)]
    for number in (signal.SIGTERM, signal.SIGINT):
        with subprocess.Popen(argv, env=ENV, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline() == f"{directory}/config.toml\n"
            process.send_signal(number)
            assert process.wait(60) == 0
            assert process.stdout.read() == ""


async def test_a_fleet_opens_with_nothing_but_the_config(up):
    async with nexcage.open_fleet(config=up / "config.toml") as fleet:
        report = await fleet.run([nexcage.Create(f"web-{n}", nexcage.Spec(image=IMAGE)) for n in range(6)])
        report.raise_for_failures()
        report = await fleet.run([nexcage.Start(f"web-{n}") for n in range(6)])
        report.raise_for_failures()
    assert {done.node for done in report.done} == {"pve-01", "pve-02", "pve-03"}
    effects = simctl.effects(up)
    assert [effect["seq"] for effect in effects] == list(range(1, len(effects) + 1))
    assert [effect["argv"][1] for effect in effects] == ["create"] * 6 + ["start"] * 6
    assert all(effect["op_id"] and effect["step"] == 1 and effect["exit"] == 0 for effect in effects)


async def test_ssh_and_path_are_one_node(up):
    made = on(up, "pve-02", "pct", "create", "300", IMAGE)
    assert made.returncode == 0, made.stderr
    async with nexcage.open_fleet(config=up / "config.toml") as fleet:
        look = (await fleet.look("pve-02"))["pve-02"]
        assert 300 in look.guests
        await fleet["web-1"].create(nexcage.Spec(image=IMAGE, node="pve-02"))
        done = await fleet["web-1"].start()
    listed = on(up, "pve-02", "pct", "list").stdout
    assert f"{done.vmid} " in listed
    assert "300 " in listed
    assert on(up, "pve-01", "pct", "list").stdout == ""
    script = 'cat "$NEXCAGE_NODE_ROOT/proc/net/unix"'
    assert f"@/var/lib/lxc/{done.vmid}/command" in on(up, "pve-02", "sh", "-c", script).stdout


def test_path_works_without_up(up):
    simctl.down(up)
    assert on(up, "pve-01", "pct", "create", "300", IMAGE).returncode == 0
    ran = nexcage_cli("sim", "path", "--dir", str(up), "--node", "pve-01")
    assert ran.stdout == f"{up}/nodes/pve-01/bin\n"


def test_effects_are_read_after_down(up):
    on(up, "pve-01", "pct", "create", "300", IMAGE)
    on(up, "pve-01", "pct", "list")
    simctl.down(up)
    ran = nexcage_cli("sim", "effects", "--dir", str(up), "--output", "jsonl")
    (line,) = ran.stdout.splitlines()
    effect = json.loads(line)
    assert effect["argv"] == ["pct", "create", "300", IMAGE]
    assert (effect["node"], effect["op_id"], effect["step"], effect["epoch"]) == ("pve-01", None, None, None)
    assert {change["kind"] for change in effect["changed"]} >= {"config", "volume"}


def test_up_again_goes_on_with_the_same_cluster(up):
    on(up, "pve-01", "pct", "create", "300", IMAGE)
    before = (up / "config.toml").read_text()
    simctl.down(up)
    simctl.up(3, up, detach=True)
    assert (up / "config.toml").read_text() == before
    assert "300" in on(up, "pve-01", "pct", "list").stdout


def test_up_twice_is_refused(up):
    with pytest.raises(nexcage.Busy, match="it is up"):
        simctl.up(3, up, detach=True)
    ran = nexcage_cli("sim", "up", "--dir", str(up))
    assert ran.returncode == 1
    assert "it is up" in ran.stderr


def test_a_directory_with_other_things_in_it_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(nexcage.InvalidInput, match="empty"):
        simctl.up(1, tmp_path, detach=True)
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("verb", [simctl.down, simctl.effects, lambda d: simctl.path(d, "pve-01")])
def test_a_directory_without_a_cluster_is_refused(verb, tmp_path):
    with pytest.raises(nexcage.InvalidInput, match="sim up"):
        verb(tmp_path)


def test_what_does_not_exist_is_named(up):
    with pytest.raises(nexcage.NotFound, match="pve-09"):
        simctl.path(up, "pve-09")
    with pytest.raises(nexcage.NotFound, match="pve-09"):
        simctl.fault(up, "pve-09", "crash")
    with pytest.raises(nexcage.InvalidInput, match="drop-before"):
        simctl.fault(up, "pve-01", "earthquake")


def test_a_pid_left_behind_by_a_killed_one_fools_nobody(up):
    pid = int((up / "up.lock").read_text())
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while alive(pid):
        assert time.monotonic() < deadline
    (up / "up.lock").write_text(f"{os.getpid()}\n")  # the number now belongs to somebody else
    simctl.down(up)
    simctl.up(3, up, detach=True)
    assert int((up / "up.lock").read_text()) != pid


async def test_a_crash_closes_the_door_and_a_restart_opens_it(up):
    async with nexcage.open_fleet(config=up / "config.toml") as fleet:
        before = (await fleet.look("pve-02"))["pve-02"]
        simctl.fault(up, "pve-02", "crash")
        assert isinstance((await fleet.look("pve-02"))["pve-02"], nexcage.NodeError)
        assert on(up, "pve-02", "pct", "list").returncode == 255
        simctl.fault(up, "pve-02", "restart")
        with anyio.fail_after(30):
            while isinstance(after := (await fleet.look("pve-02"))["pve-02"], nexcage.NodeError):
                await anyio.sleep(0.1)
    assert after.boot_id != before.boot_id


async def test_a_changed_host_key_stops_the_fleet(up):
    simctl.fault(up, "pve-01", "host-key")
    async with nexcage.open_fleet(config=up / "config.toml") as fleet:
        looks = await fleet.look()
    assert isinstance(looks["pve-01"], nexcage.HostKeyRejected)
    assert isinstance(looks["pve-02"], nexcage.Look)


@pytest.mark.parametrize("kind", ["drop-before", "drop-during", "drop-after"])
async def test_a_lost_answer_never_makes_two(up, kind):
    for node in ("pve-01", "pve-02", "pve-03"):
        simctl.fault(up, node, kind, on="pct create")
    async with nexcage.open_fleet(config=up / "config.toml") as fleet:
        report = await fleet.run([nexcage.Create(f"web-{n}", nexcage.Spec(image=IMAGE)) for n in range(6)])
        report.raise_for_failures()
        looks = await fleet.look()
    ids = sorted(guest.mark.id for look in looks.values() for guest in look.guests.values())
    assert ids == [f"web-{n}" for n in range(6)]


async def test_a_partition_holds_answers_back_until_it_heals(up):
    async with nexcage.open_fleet(config=up / "config.toml") as fleet:
        await fleet["web-1"].create(nexcage.Spec(image=IMAGE, node="pve-03"))
        simctl.fault(up, "pve-03", "partition", on="pct start")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(fleet["web-1"].start)
            with anyio.fail_after(30):
                # Not only its effect: that is there a step before the partition, and healing too early heals nothing.
                while not faults.state_of(disk_node(up, "pve-03")).get("partitioned"):
                    await anyio.sleep(0.02)
            assert any(effect["argv"][1] == "start" for effect in simctl.effects(up))
            assert fleet["web-1"].machine.state is nexcage.State.STARTING
            simctl.fault(up, "pve-03", "heal")
        assert fleet["web-1"].machine.state is nexcage.State.RUNNING
