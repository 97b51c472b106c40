"""Fleets over the sshd of OpenSSH: each node is one server whose commands are the pretend tools of a node on disk."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

import nexcage
from nexcage import Command, Create, Delete, Kill, Limits, Pause, Resume, Spec, Start, State, Stop
from nexcage._core.command import nothing
from nexcage.testing.faults import state_of

ROOT = Path(__file__).parents[2]
SPEC = Spec("local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst", storage="local-zfs")
IDS = [f"web-{n}" for n in range(6)]


async def until(true: Any) -> None:
    with anyio.fail_after(20):
        while not true():
            await anyio.sleep(0.01)


async def test_containers_live_and_die_over_three_servers(site: Any, highest_pid: int) -> None:
    here = site(3)
    before = [path.exists() for path in map(Path, ("/etc/pve", "/var/lib/lxc", "/var/lib/vz", "/run/lock/lxc"))]
    lives = (Create, Start, Pause, Resume, Kill, Stop, Delete)
    states = ["created", "running", "paused", "running", "running", "stopped", "absent"]
    async with here.open() as fleet:
        for make, state in zip(lives, states, strict=True):
            extra: dict[str, Any] = {Create: {"spec": SPEC}, Kill: {"signal": "HUP"}, Stop: {"timeout": 10.0}}.get(
                make, {}
            )
            report = await fleet.run([make(id, **extra) for id in IDS])

            report.raise_for_failures()
            assert {str(done.state) for done in report.done} == {state}
            if make is Start:
                there = {
                    (done.node, vmid): here.sim[done.node].model.init_pid(vmid)
                    for done in report.done
                    for vmid in here.sim[done.node].model.running()
                }
                assert {(done.node, done.vmid): done.pid for done in report.done} == there
                assert min(done.pid for done in report.done) > highest_pid

    effects = here.sim.effects()
    assert max(Counter((effect["op_id"], effect["step"]) for effect in effects).values()) == 1
    assert Counter(" ".join(effect["argv"][:2]) for effect in effects if effect["argv"][0] == "pct") == dict.fromkeys(
        ["pct create", "pct start", "pct shutdown", "pct destroy"], len(IDS)
    )
    assert {effect["exit"] for effect in effects} == {0}
    assert {node.name for node in here.sim if node.model.containers()} == set()
    assert {effect["node"] for effect in effects} == set(here.sim.hosts)
    assert before == [path.exists() for path in map(Path, ("/etc/pve", "/var/lib/lxc", "/var/lib/vz", "/run/lock/lxc"))]
    await until(lambda: here.processes() == [])


async def test_a_link_lost_during_a_create_makes_exactly_one_container(site: Any) -> None:
    here = site()
    here.sim["pve-01"].fault("drop-during", on="pct create")
    async with here.open() as fleet:
        done = await fleet["web-1"].create(SPEC)

        # The tool either went on, and looking found what it made, or it died of its closed pipe, undid its work and was run again.
        assert (done.state, done.resolved_by in ("claim", "probe") or done.retries == 1) == (State.CREATED, True)
        assert state_of(here.sim["pve-01"].model)["faults"] == []
        assert here.sim["pve-01"].model.containers() == [done.vmid]
        assert len(here.ran("pct", "create")) == 1 + done.retries
        assert (await fleet["web-1"].start()).state is State.RUNNING


async def test_killing_every_session_fails_no_operation_that_can_be_repeated(site: Any) -> None:
    here = site()
    async with here.open() as fleet, anyio.create_task_group() as tasks:
        (await fleet.run([Create(id, SPEC) for id in IDS[:3]])).raise_for_failures()
        reports: list[nexcage.Report] = []

        async def start() -> None:
            reports.append(await fleet.run([Start(id) for id in IDS[:3]]))

        tasks.start_soon(start)
        await until(lambda: here.ran("pct", "start"))
        here.servers["pve-01"].drop()
    reports[0].raise_for_failures()
    assert len(here.sim["pve-01"].model.running()) == 3
    started = [change["target"] for effect in here.ran("pct", "start") for change in effect["changed"]
               if (change["kind"], change["change"]) == ("process", "started")]  # fmt: skip
    assert len(started) == len(set(started))


async def test_a_changed_host_key_stops_that_node_alone_until_it_is_put_right(site: Any) -> None:
    here = site(2)
    spec = {name: msgspec.structs.replace(SPEC, node=name) for name in here.sim.hosts}
    async with here.open() as fleet:
        await fleet["web-1"].create(spec["pve-01"])
        server = here.servers["pve-01"]
        server.stop()
        server.change_host_key()
        server.start()

        report = await fleet.run([Start("web-1"), Create("web-2", spec["pve-02"])])

        assert [type(failure.error) for failure in report.failures] == [nexcage.HostKeyRejected]
        assert report.lost_nodes == {"pve-01"}
        assert here.ran("pct", "start") == []
        server.remember_host_key()
        fleet.nodes["pve-01"].forgive()
        assert (await fleet["web-1"].start()).state is State.RUNNING


@pytest.mark.parametrize("sessions", [10, 1])
async def test_twenty_creates_at_once_fit_into_whatever_sessions_sshd_allows(site: Any, sessions: int) -> None:
    here = site(1, **({} if sessions == 10 else {"MaxSessions": sessions}))
    async with here.open(limits=Limits(per_node=20, creates_per_node=20)) as fleet:
        report = await fleet.run([Create(f"web-{n}", SPEC) for n in range(20)])

    report.raise_for_failures()
    assert sum(done.retries for done in report.done) == 0
    assert len(here.sim["pve-01"].model.containers()) == len(here.ran("pct", "create")) == 20


async def test_what_start_up_files_print_is_not_an_answer(site: Any) -> None:
    here = site()
    (here.servers["pve-01"].home / ".bashrc").write_text("printf '@nexcage end\\n109 4194999'; echo beware >&2\n")
    async with here.open() as fleet:
        await fleet["web-1"].create(SPEC)
        await fleet["web-1"].start()

        assert (await fleet["web-1"].kill("HUP")).pid != 4194999
        with pytest.raises(nexcage.CommandFailed) as refused:
            await fleet.nodes["pve-01"].run(Command(("false",), nothing))
        assert refused.value.stderr == ""


async def test_output_that_is_not_utf_8_changes_no_outcome(site: Any) -> None:
    here = site()
    node = here.sim["pve-01"]
    async with here.open() as fleet:
        for verb in ("create", "start"):
            node.fault("non-utf8", on=f"pct {verb}")
        node.fault("non-utf8", on="sh -c")
        (await fleet.run([Create("web-1", SPEC), Start("web-1")])).raise_for_failures()
        with pytest.raises(nexcage.CommandFailed) as refused:
            await fleet.nodes["pve-01"].run(Command(("sh", "-c", "printf '\\377\\376' >&2; exit 4"), nothing))

    assert refused.value.exit == 4
    assert "\\xff\\xfe" in refused.value.stderr
    refused.value.stderr.encode()


def test_200_megabytes_of_output_take_little_memory(site: Any) -> None:
    here = site()
    argv = [sys.executable, str(Path(__file__).with_name("gulp.py")), msgspec.json.encode(here.servers["pve-01"].host)]

    said = subprocess.run(
        [*argv, str(here.dir)], capture_output=True, text=True, check=False, timeout=200, env={"PYTHONPATH": str(ROOT)}
    )

    assert said.returncode == 0, said.stderr
    size, grown = map(int, said.stdout.split())
    assert size == 200 << 20
    assert grown < 50 << 10  # KiB


async def test_cancelling_leaves_no_process_and_says_that_nobody_knows(site: Any) -> None:
    here = site()
    here.sim["pve-01"].fault("stall", on="pct start")
    async with here.open() as fleet:
        web = fleet["web-1"]
        await web.create(SPEC)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(web.start)
            await until(lambda: not state_of(here.sim["pve-01"].model)["faults"])  # it has begun, and stalls
            tasks.cancel_scope.cancel()

        assert web.machine.state is State.UNKNOWN
        await until(lambda: here.processes(runners=False) == [])
        await web.reconcile()
        assert web.machine.state in (State.CREATED, State.STOPPED)
        assert (await web.start()).state is State.RUNNING


@pytest.mark.skipif(
    not shutil.which("ssh-agent"), reason="no ssh-agent on this machine: apt-get install openssh-client"
)
async def test_neither_agent_nor_display_reaches_a_node(
    site: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = site(1, AllowAgentForwarding="yes", X11Forwarding="yes")
    socket = tmp_path / "agent"
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.DEVNULL)
    try:
        await until(socket.exists)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
        monkeypatch.setenv("DISPLAY", "localhost:10.0")
        async with here.open() as fleet:
            result = await fleet.nodes["pve-01"].call(Command(("env",), nothing))
    finally:
        agent.terminate()
        agent.wait()

    names = {line.partition(b"=")[0] for line in result.stdout.splitlines()}
    assert b"PATH" in names
    assert not names & {b"SSH_AUTH_SOCK", b"DISPLAY", b"XAUTHORITY"}
