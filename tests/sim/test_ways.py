"""The ways into a simulated node give the same answers, leave the same state and have the same faults."""

from __future__ import annotations

import json
import os
import re
from contextlib import AsyncExitStack, asynccontextmanager

import anyio
import pytest

import nexcage
from nexcage import Command
from nexcage._core.command import nothing
from nexcage._transports.local import LocalTransport
from nexcage._transports.ssh import SshSettings, SshTransport
from nexcage.testing import SimCluster, faults
from nexcage.testing.real_sshd import RealSshd, missing
from nexcage.testing.replay import normalise
from nexcage.tools import lxc
from nexcage.tools.shelf import SHELF

DEBIAN = "local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst"
ALPINE = "local:vztmpl/alpine-3.20-default_20240908_amd64.tar.xz"
NODE = "pve-01"
MARK = nexcage.Mark("fleet", "web-1", 100, "op-1")
WAYS = ("memory", "asyncssh", "asyncssh-disk", "executables", "sshd")


class Way:
    """One way into one cluster."""

    def __init__(self, name, sim, connect):
        self.name = name
        self.sim = sim
        self._connect = connect
        self.transport = connect()
        self.transports = [self.transport]

    @property
    def node(self):
        return self.sim[NODE]

    @property
    def served(self):
        """Whether the node's side of the link is in this process."""
        return self.name not in ("executables", "sshd")

    async def run(self, *argv, **options):
        return await self.transport.run(Command(argv, parse=nothing, **{"timeout": 120.0, **options}))

    async def late(self, kind, *argv, seconds, shows=lambda result: True, **options):
        """What a fault makes too late. On a slow machine the deadline may come before the fault shows: then again, with more time."""
        await self.run("true")  # opening the link takes time as well
        while True:
            self.node.fault(kind, on=" ".join(argv[:2]))
            result = await self.run(*argv, timeout=seconds, **options)
            assert result.lost == "deadline", result
            with self.node.step():
                begun = not faults.state_of(self.node.model).get("faults")
                faults.update(self.node.model, faults=[])
            if begun and shows(result):
                return result
            seconds *= 2
            assert seconds < 60

    def again(self):
        """A connection of its own."""
        made = self._connect()
        self.transports.append(made)
        return made

    async def aclose(self):
        for transport in self.transports:
            await transport.aclose()

    def config(self, vmid):
        return self.node.model.config(vmid)

    async def until(self, true):
        with anyio.fail_after(30):
            while not true():
                await anyio.sleep(0.02)


def ssh(host):
    settings = SshSettings(ssh_config="none", connect_timeout=30.0, backoff=0.01, backoff_most=0.05)
    return SshTransport(host, settings=settings)


@asynccontextmanager
async def opened(name, tmp_path):
    async with AsyncExitStack() as stack:
        sim = SimCluster(nodes=2, seed=1, dir=None if name in ("memory", "asyncssh") else tmp_path / "sim")
        if name == "memory":
            way = Way(name, sim, lambda: sim.transport(NODE))
        elif name.startswith("asyncssh"):
            served = await stack.enter_async_context(sim.serve())
            way = Way(name, sim, lambda: ssh(served.hosts[0]))
        else:
            path = str(sim.path(NODE))
            if name == "executables":
                env = {"PATH": f"{path}:{os.environ['PATH']}"}
                way = Way(name, sim, lambda: LocalTransport(env=env))
            else:
                if missing():
                    pytest.skip(missing())
                server = stack.enter_context(RealSshd(tmp_path / "sshd", path=[path]))
                way = Way(name, sim, lambda: ssh(server.host))
        stack.push_async_callback(way.aclose)
        yield way


over_a_link = pytest.mark.parametrize("way", [way for way in WAYS if way != "executables"], indirect=True)
served_by_us = pytest.mark.parametrize("way", ["memory", "asyncssh", "asyncssh-disk"], indirect=True)


@pytest.fixture(params=WAYS)
async def way(request, tmp_path):
    async with opened(request.param, tmp_path) as made:
        yield made


SCRIPT = [
    ("pct", "list"),
    (
        "pct",
        "create",
        "100",
        DEBIAN,
        "--memory",
        "256",
        "--hostname",
        "web",
        "--description",
        str(MARK),
        "--tags",
        "nexcage",
    ),
    ("pct", "create", "100", DEBIAN),
    ("pct", "create", "101", ALPINE, "--net0", "name=eth0,bridge=vmbr0,ip=dhcp"),
    ("pct", "create", "102", "local:vztmpl/nosuch.tar.zst"),
    ("pct", "create", "103", DEBIAN, "--memory", "1", "--cores", "x"),
    ("pct", "start", "100"),
    ("pct", "start", "100"),
    ("pct", "list"),
    ("pct", "status", "100"),
    ("pct", "config", "100"),
    ("pct", "set", "100", "--memory", "512"),
    ("pct", "pending", "100"),
    ("sh", "-c", lxc.LOOK, "nexcage"),
    ("sh", "-c", lxc.GUARD, "nexcage", str(MARK), "100", "pct", "set", "100", "--cores", "2"),
    ("sh", "-c", lxc.GUARD, "nexcage", str(MARK).replace("op-1", "op-2"), "100", "pct", "destroy", "100"),
    ("sh", "-c", lxc.SIGNAL, "nexcage", str(MARK), "100", "1"),
    ("sh", "-c", lxc.SIGNAL, "nexcage", str(MARK), "101", "1"),
    ("lxc-info", "-n", "100", "-s", "-H"),
    ("lxc-freeze", "-n", "100"),
    ("sh", "-c", lxc.LOOK, "nexcage"),
    ("lxc-unfreeze", "-n", "100"),
    ("pct", "shutdown", "100", "--timeout", "20"),
    ("pct", "shutdown", "100"),
    ("pct", "set", "101", "--lock", "backup"),
    ("pct", "start", "101"),
    ("pct", "unlock", "101"),
    ("pct", "destroy", "101"),
    ("pct", "destroy", "999"),
    ("pct", "frobnicate"),
    ("pct", "start"),
    ("pvesm", "status"),
    ("pveam", "available", "--section", "system"),
    ("pveam", "download", "local", "nosuch.tar.zst"),
    ("pveam", "download", "local", "alpine-3.22-default_20250617_amd64.tar.xz"),
    ("pveam", "list", "local"),
    ("pveam", "remove", "local:vztmpl/alpine-3.22-default_20250617_amd64.tar.xz"),
    ("sh", "-c", SHELF, "nexcage", "", "/nosuch", "/etc/hostname"),
    ("pveversion",),
    ("zfs", "list", "-H"),
    ("kill", "-s", "NOSUCH", "1"),
    ("nosuchprogram", "x"),
    ("sh", "-c", lxc.LOOK, "nexcage"),
]


def told(result):
    out = normalise(result.stdout.decode())
    out = re.sub(r"(?m)^[0-9a-f-]{36}$", "BOOT", out)
    out = re.sub(r"(@nexcage uptime\n)[0-9. ]+", r"\1UP", out)
    out = re.sub(r"(?m)^(\d+) \d{7,}.*$", r"\1 INIT", out)  # what runs, by pid
    out = re.sub(r"\b4[12]\d{5}\b", "PID", out)
    out = re.sub(r"(@nexcage name\n).*(?=pve-)", r"\1", out)  # where the link points to: only its last word is read
    out = re.sub(r'"version": \d+', "VERSION", out)
    out = re.sub(r"(?m)^(pve-0\d|\S*local\S*) .*$", lambda line: " ".join(line[0].split()[:2]), out)
    err = normalise(result.stderr.decode())
    return result.exit == 0, out, re.sub(r"^.*(nosuchprogram).*not found.*\n?$", r"\1: not found", err, flags=re.DOTALL)


async def test_a_script_of_commands_gets_the_same_answers(way, tmp_path):
    async with opened("memory", tmp_path) as memory:
        for argv in SCRIPT:
            wanted, got = told(await memory.run(*argv)), told(await way.run(*argv))
            assert got == wanted, argv
        texts = [re.sub("hwaddr=[^,]*", "", str(memory.config(vmid))) for vmid in (100, 101)]
        assert [re.sub("hwaddr=[^,]*", "", str(way.config(vmid))) for vmid in (100, 101)] == texts
        wanted = [(e["argv"], e["exit"], [c["kind"] for c in e["changed"]]) for e in memory.sim.effects()]
        assert [(e["argv"], e["exit"], [c["kind"] for c in e["changed"]]) for e in way.sim.effects()] == wanted


async def test_operation_and_step_travel_in_the_environment(way):
    env = {"NEXCAGE_OP_ID": "op-7", "NEXCAGE_STEP": "2"}
    result = await way.run("pct", "create", "100", DEBIAN, env=env)
    assert result.exit == 0
    effect = way.sim.effects()[0]
    assert (effect["op_id"], effect["step"], effect["node"], effect["exit"]) == ("op-7", 2, NODE, 0)
    assert list(effect) == ["seq", "at", "node", "op_id", "step", "epoch", "claim", "argv", "exit", "changed"]


async def test_many_commands_at_once_are_all_done(way):
    vmids = range(100, 110)
    async with anyio.create_task_group() as tasks:
        for vmid in vmids:
            tasks.start_soon(way.run, "pct", "create", str(vmid), ALPINE)
    assert way.node.model.containers() == list(vmids)
    assert len(way.sim.effects()) == len(vmids)


async def test_one_of_two_creates_of_one_number_is_refused(way):
    exits = []

    async def create():
        exits.append((await way.run("pct", "create", "100", ALPINE)).exit == 0)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(create)
        tasks.start_soon(create)
    assert sorted(exits) == [False, True]


async def test_ssh_keys_come_by_standard_input(way):
    argv = ("pct", "create", "100", ALPINE, "--ssh-public-keys", "/dev/stdin")
    assert (await way.run(*argv, stdin=b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ somebody\n")).exit == 0


async def test_a_cancelled_create_cleans_up(way):
    await way.late("stall", "pct", "create", "100", ALPINE, cancel="term", seconds=1.0)
    assert way.config(100) is None
    assert (await way.run("pct", "list")).stdout == b""


# Faults of commands: the same everywhere.


async def test_a_stalled_command_ends_by_its_deadline(way):
    result = await way.late("stall", "pct", "list", seconds=0.5)
    assert result.exit is None
    assert (await way.run("pct", "list")).exit == 0


async def test_a_slow_command_is_only_slow(way):
    way.node.fault("slow", on="pct list", seconds=0.2)
    result = await way.run("pct", "list")
    assert result.exit == 0
    assert result.seconds >= 0.2


async def test_a_wrong_exit_is_about_the_exit_alone(way):
    way.node.fault("wrong-exit", on="pct create")
    assert (await way.run("pct", "create", "100", ALPINE)).exit == 255
    assert way.config(100) is not None


async def test_garbage_hides_what_was_said(way):
    await way.run("pct", "create", "100", ALPINE)
    way.node.fault("garbage", on="pct config")
    result = await way.run("pct", "config", "100")
    assert b"hostname" not in result.stdout
    assert len(result.stdout) > 100


async def test_endless_output_is_capped_and_ended(way):
    result = await way.late("endless", "pct", "list", seconds=1.0, cap=4096, shows=lambda result: result.dropped > 0)
    assert result.exit is None
    assert len(result.stdout) <= 4096


async def test_bytes_that_are_not_utf8_arrive_as_they_are(way):
    way.node.fault("non-utf8", on="pct list")
    result = await way.run("pct", "list")
    assert result.exit == 0
    assert b"\xff\xfe" in result.stdout
    assert b"\xff\xfe" in result.stderr


async def test_somebody_else_has_the_config_lock(way):
    await way.run("pct", "create", "100", ALPINE)
    way.node.fault("lock-held", on="pct start", lock="backup")
    result = await way.run("pct", "start", "100")
    assert result.stderr == b"CT is locked (backup)\n"
    assert "lock:" not in way.config(100)
    assert (await way.run("pct", "start", "100")).exit == 0


async def test_a_fault_happens_as_often_as_asked(way):
    way.node.fault("wrong-exit", on="pct list", times=2)
    assert [(await way.run("pct", "list")).exit for _ in range(3)] == [255, 255, 0]


async def test_faults_reach_what_a_script_runs(way):
    await way.run("pct", "create", "100", ALPINE, "--description", str(MARK))
    way.node.fault("wrong-exit", on="pct start")
    argv = ("sh", "-c", lxc.GUARD, "nexcage", str(MARK), "100", "pct", "start", "100")
    assert (await way.run(*argv)).exit == 255
    assert way.node.model.is_running(100)


# Faults of the link.


@over_a_link
async def test_a_link_that_drops_before_leaves_nothing(way):
    way.node.fault("drop-before", on="pct create")
    result = await way.run("pct", "create", "100", ALPINE)
    assert (result.exit, result.lost) == (None, "link")
    assert way.config(100) is None
    assert (await way.again().run(Command(("pct", "list"), parse=nothing))).exit == 0


@over_a_link
async def test_a_link_that_drops_after_leaves_the_whole_effect(way):
    way.node.fault("drop-after", on="pct create")
    result = await way.run("pct", "create", "100", ALPINE)
    assert (result.exit, result.lost) == (None, "link")
    await way.until(lambda: "lock: create" not in (way.config(100) or "lock: create"))
    assert (await way.run("pct", "start", "100")).exit == 0


@over_a_link
async def test_a_command_that_says_nothing_goes_on_without_its_link(way):
    await way.run("pct", "create", "100", ALPINE)
    way.node.fault("drop-during", on="pct start")
    result = await way.run("pct", "start", "100")
    assert (result.exit, result.lost) == (None, "link")
    await way.until(lambda: way.node.model.is_running(100))


@over_a_link
async def test_a_create_whose_reader_is_gone_takes_itself_back(way):
    way.node.fault("drop-during", on="pct create")
    result = await way.run("pct", "create", "100", ALPINE, cancel="term")
    assert (result.exit, result.lost) == (None, "link")
    await way.until(lambda: way.config(100) is None)


# Faults of the node.


async def test_a_crash_ends_everything_and_a_restart_has_another_boot_id(way):
    await way.run("pct", "create", "100", ALPINE)
    await way.run("pct", "start", "100")
    boot = "/proc/sys/kernel/random/boot_id"
    before = way.node.files.read(boot)
    way.node.crash()
    assert way.node.model.running() == []
    if way.served:
        with pytest.raises(nexcage.NodeUnreachable):
            await way.again().run(Command(("pct", "list"), parse=nothing))
    else:
        result = await way.run("pct", "list")
        assert (result.exit, result.stderr) == (255, b"nexcage sim: node pve-01 is down\n")
    way.node.restart()
    assert way.node.files.read(boot) != before
    result = await way.again().run(Command(("pct", "list"), parse=nothing))
    assert b"100        stopped" in result.stdout


async def test_a_crash_in_the_middle_of_a_create_leaves_its_debris(way):
    way.node.fault("crash", on="pct create")
    result = await way.run("pct", "create", "100", ALPINE)
    assert result.exit in (None, 137)
    assert "lock: create" in way.config(100)
    way.node.restart()
    listed = await way.again().run(Command(("pct", "list"), parse=nothing))
    assert b"create" in listed.stdout


@served_by_us
async def test_a_partitioned_node_answers_nothing_and_goes_on(way):
    await way.run("pct", "create", "100", ALPINE)
    way.node.partition()
    result = None

    async def start():
        nonlocal result
        result = await way.run("pct", "start", "100", timeout=60.0)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(start)
        await anyio.sleep(0.3)
        assert result is None
        way.node.heal()
    assert result.exit == 0


@served_by_us
async def test_an_answer_that_a_partition_held_up_comes_when_it_heals(way):
    await way.run("pct", "create", "100", ALPINE)
    way.node.fault("partition", on="pct start")
    result = None

    async def start():
        nonlocal result
        result = await way.run("pct", "start", "100", timeout=60.0)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(start)
        await way.until(lambda: way.node.partitioned and way.node.model.is_running(100))
        assert result is None
        way.node.heal()
    assert result.exit == 0


@served_by_us
async def test_a_changed_host_key_is_refused(way):
    assert (await way.run("pct", "list")).exit == 0
    way.node.fault("host-key")
    with pytest.raises(nexcage.HostKeyRejected):
        for _ in range(2):  # what is sent in the instant in which the link dies is lost with it
            assert (await way.run("pct", "list")).lost == "link"


def test_every_effect_is_one_json_object(tmp_path):
    with SimCluster(nodes=1, dir=tmp_path / "sim") as sim:
        assert json.dumps(sim.effects()) == "[]"
