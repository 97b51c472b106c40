"""Containers of the real `runc` and `crun`, on this machine and over a real sshd: their whole life, and what dies in it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import anyio
import pytest

import nexcage
from nexcage import BackendConfig, Config, Container, Create, Defaults, Delete, Fleet, Limits, Look, Spec, Start, State
from nexcage.testing.real_sshd import RealSshd
from nexcage.testing.real_sshd import missing as no_sshd
from tests.real.oci_bundle import CRUN, bundle, forget, missing

pytestmark = [
    pytest.mark.skipif(bool(missing("runc", "crun")), reason=missing("runc", "crun")),
]
WEB = f"web{os.getpid()}"  # the name of its cgroup too, which is the machine's
PROGRAMS = {"crun": BackendConfig(command=tuple(CRUN))}
TELLS = "trap 'echo told; exit 7' TERM; trap 'echo again' HUP; echo up; while :; do sleep 0.05; done"
DEAF = "trap '' TERM; echo up; while :; do sleep 0.05; done"


@pytest.fixture(params=["runc", "crun"])
def program(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def places(tmp_path: Path) -> Iterator[Path]:
    """A directory for everything; what containers of its fleet leave on this machine goes at the end."""
    yield tmp_path
    known = tmp_path / "state" / "fleet"
    if known.exists():
        forget(known.read_text().strip())


@asynccontextmanager
async def opened(places: Path, program: str, *hosts: nexcage.Host, **more: Any) -> AsyncIterator[Fleet]:
    """A fleet whose containers are all deleted at the end."""
    config = Config(
        state_dir=str(places / "state"),
        run_dir=str(places / "run"),
        ssh_config="none",
        backends=PROGRAMS,
        defaults=Defaults(backend=program),
        limits=Limits(retry_base=0.05),
        **more,
    )
    async with nexcage.open_fleet(hosts or None, config=config) as fleet:
        try:
            yield fleet
        finally:
            with anyio.CancelScope(shield=True):
                left = await fleet.run([Delete(container.id, force=True) for container in fleet], wait=True)
                left.raise_for_failures()


def kept(fleet: Fleet) -> list[str]:
    """What is on this machine of containers of the fleet."""
    found = [f"/var/lib/nexcage-oci/{fleet.id}", *(f"/run/nexcage-oci/{fleet.id}/{name}" for name in ("crun", "runc"))]
    return [f"{where}/{name}" for where in found if os.path.isdir(where) for name in os.listdir(where)]


async def wrong(fleet: Fleet) -> list[nexcage.Finding]:
    """What the doctor finds; other fleets may have containers of these programs here too."""
    return [finding for finding in await fleet.doctor() if finding.what != "other fleet"]


async def until_said(container: Container, *lines: bytes) -> None:
    """Wait until it has printed these."""
    with anyio.fail_after(20):
        while (await said(container))[: len(lines)] != list(lines):
            await anyio.sleep(0.02)


async def said(container: Container) -> list[bytes]:
    async with container.logs() as found:
        return [line async for line in found]


async def lives(fleet: Fleet, made_from: Path, program: str) -> None:
    """From create to delete, with all that is between."""
    web = fleet[WEB]
    created = await web.create(Spec(str(made_from), bundle=str(made_from)))
    document = await web.state()
    assert (document.status, document.pid) == ("created", created.pid)
    assert os.readlink(f"/proc/{created.pid}/ns/pid") != os.readlink("/proc/self/ns/pid")
    assert str(document.bundle) == str(made_from)
    assert await said(web) == []

    started = await web.start()
    assert started.pid == created.pid
    await until_said(web, b"up")
    assert not (await web.start()).changed

    await web.kill("HUP")
    await until_said(web, b"up", b"again")

    done = await web.exec(["sh", "-c", 'printf "%s|" "$@"; cat; exit 3', "sh", "", "a b", "q\"'\n"], stdin=b"in")
    assert (done.exit, done.stdout, done.stderr) == (3, b"|a b|q\"'\n|in", b"")
    assert (await web.exec(["echo", b"\xff\xfe"])).stdout == b"\xff\xfe\n"
    told = await web.exec(["sh", "-c", "echo $A; pwd; id -u"], env={"A": "1 '2"}, cwd="/bin", user="33:44")
    assert told.stdout == b"1 '2\n/bin\n33\n"
    assert (await web.exec(["no-such-program"])).exit == 127

    assert created.pid in [process.pid for process in await web.ps()]
    (used,) = await fleet.stats()
    assert used.pids > 0
    assert used.memory > 0

    assert (await web.update(memory=64, cpulimit=0.5)).changed
    (limited,) = await fleet.stats()
    assert limited.memory_limit == 64 << 20
    with pytest.raises(nexcage.InvalidInput, match="changes memory, swap"):
        await web.update(hostname="other")

    await web.pause()
    assert (await web.state()).status == "paused"
    with pytest.raises(nexcage.IllegalTransition):
        await web.exec(["true"])
    await web.resume()
    with pytest.raises(nexcage.IllegalTransition, match="it is running"):
        await web.delete()

    assert (await web.stop(timeout=20)).state is State.STOPPED
    assert (await said(web))[-1] == b"told"
    assert not os.path.exists(f"/proc/{created.pid}/root/bin")
    with pytest.raises(nexcage.IllegalTransition, match=f"{program} starts a container once"):
        await web.start()
    await web.delete()
    with pytest.raises(nexcage.NotFound):
        await web.state()
    assert kept(fleet) == []


async def test_a_whole_life_on_this_machine(places: Path, program: str) -> None:
    async with opened(places, program) as fleet:
        await lives(fleet, bundle(places / "bundle", TELLS), program)


@pytest.mark.skipif(bool(no_sshd()), reason=no_sshd())
async def test_a_whole_life_over_a_real_sshd(places: Path, program: str) -> None:
    made_from = bundle(places / "bundle", TELLS)
    with RealSshd(places / "sshd") as server:
        async with opened(places, program, server.host, known_hosts=str(server.known_hosts)) as fleet:
            await lives(fleet, made_from, program)


async def test_what_the_program_itself_says_is_what_state_says(places: Path, program: str) -> None:
    made_from = bundle(places / "bundle", TELLS)
    async with opened(places, program) as fleet:
        web = fleet[WEB]
        await web.create(Spec(str(made_from), bundle=str(made_from)))
        theirs = _asked(program, fleet, "state", WEB)
        ours = await web.state()
        assert f'"pid": {ours.pid}' in theirs
        assert '"status": "created"' in theirs

        _asked(program, fleet, "start", WEB)
        _asked(program, fleet, "kill", WEB, "KILL")
        with anyio.fail_after(20):
            while (await web.state()).status != "stopped":
                await anyio.sleep(0.02)
        _asked(program, fleet, "delete", WEB)
        with pytest.raises(nexcage.NotFound):
            await web.state()
        assert [finding.what for finding in await wrong(fleet)] == ["half-made"]
        await web.create(Spec(str(made_from), bundle=str(made_from)))
        assert await wrong(fleet) == []


def _asked(program: str, fleet: Fleet, *words: str) -> str:
    command = [*(CRUN if program == "crun" else [program]), "--root", f"/run/nexcage-oci/{fleet.id}/{program}", *words]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=200).stdout


async def test_one_that_does_not_listen_is_killed_when_its_time_is_over(places: Path, program: str) -> None:
    made_from = bundle(places / "bundle", DEAF)
    async with opened(places, program) as fleet:
        web = fleet[WEB]
        await web.create(Spec(str(made_from), bundle=str(made_from)))
        await web.start()
        await until_said(web, b"up")
        await web.pause()
        assert (await web.stop(timeout=0.5)).state is State.STOPPED


async def test_delete_with_force_ends_one_that_runs_and_one_that_waits(places: Path, program: str) -> None:
    made_from = bundle(places / "bundle", DEAF)
    async with opened(places, program) as fleet:
        for id, runs in ((WEB, True), (f"{WEB}-2", False)):
            await fleet[id].create(Spec(str(made_from), bundle=str(made_from)))
            if runs:
                await fleet[id].start()
            pid = (await fleet[id].state()).pid
            assert (await fleet[id].delete(force=runs)).state is State.ABSENT
            assert not os.path.exists(f"/proc/{pid}/root/bin")
        assert kept(fleet) == []
        assert not (await fleet[WEB].delete(force=True)).changed


async def test_a_program_that_ends_at_once_was_started(places: Path, program: str) -> None:
    made_from = bundle(places / "bundle", "echo hello")
    async with opened(places, program) as fleet:
        web = fleet[WEB]
        await web.create(Spec(str(made_from), bundle=str(made_from)))
        await web.start()
        await until_said(web, b"hello")
        with anyio.fail_after(20):
            while (await web.state()).status != "stopped":
                await anyio.sleep(0.02)
        assert await fleet.reconcile(dry_run=True) == []


@pytest.mark.parametrize("harm", ["no directory", "no config.json", "no JSON", "no root", "no program"])
async def test_a_bundle_that_is_wrong_is_refused_and_leaves_nothing(places: Path, program: str, harm: str) -> None:
    made_from = bundle(places / "bundle", TELLS)
    match harm:
        case "no directory":
            shutil.rmtree(made_from)
        case "no config.json":
            (made_from / "config.json").unlink()
        case "no JSON":
            (made_from / "config.json").write_text("{")
        case "no root":
            shutil.rmtree(made_from / "rootfs")
        case _:
            text = (made_from / "config.json").read_text()
            (made_from / "config.json").write_text(text.replace('"sh"', '"no-such-program"'))
    async with opened(places, program) as fleet:
        with pytest.raises(nexcage.NexcageError) as refused:
            await fleet[WEB].create(Spec(str(made_from), bundle=str(made_from)))
            await fleet[WEB].start()
        assert not refused.value.uncertain
        if fleet[WEB].machine.state is not State.ABSENT:  # crun looks for the program when it starts it
            assert (program, harm) == ("crun", "no program")
            await fleet[WEB].delete(force=True)
        assert kept(fleet) == []


async def test_fifty_at_once(places: Path, program: str) -> None:
    made_from = bundle(places / "bundle", TELLS)
    ids = [f"{WEB}-{n}" for n in range(50)]
    async with opened(places, program) as fleet:
        made = await fleet.run([Create(id, Spec(str(made_from), bundle=str(made_from))) for id in ids])
        made.raise_for_failures()
        started = await fleet.run([Start(id) for id in ids])
        started.raise_for_failures()
        assert {state.status for state in (await fleet.states()).values()} == {"running"}
        assert len({done.pid for done in started.done}) == 50
        (await fleet.run([Delete(id, force=True) for id in ids])).raise_for_failures()
        assert kept(fleet) == []


# ---- a driver that dies ----------------------------------------------------------------------------------------------------

DRIVER = """
import sys, anyio, nexcage
async def main(config, made_from, id):
    async with nexcage.open_fleet(config=config) as fleet:
        while True:
            for verb in ("create", "start", "stop", "delete"):
                print(verb, flush=True)
                spec = nexcage.Spec(made_from, bundle=made_from)
                await getattr(fleet[id], verb)(*([spec] if verb == "create" else []))
anyio.run(main, *sys.argv[1:])
"""


@pytest.mark.parametrize("verb", ["create", "start", "stop", "delete"])
async def test_what_a_killed_driver_had_begun_is_finished_or_gone(places: Path, program: str, verb: str) -> None:
    made_from = bundle(places / "bundle", TELLS)
    config = places / "config.toml"
    words = ", ".join(repr(word).replace("'", '"') if '"' not in word else f"'{word}'" for word in CRUN)
    config.write_text(
        f'state_dir = "{places}/state"\nrun_dir = "{places}/run"\n[defaults]\nbackend = "{program}"\n'
        f"[backends.crun]\ncommand = [{words}]\n"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(config), str(made_from), WEB], stdout=subprocess.PIPE, text=True, env=env
    ) as driver:
        assert driver.stdout is not None
        assert any(line.strip() == verb for line in driver.stdout)
        await anyio.sleep(
            Random().uniform(0.0, 0.2)
        )  # somewhere in the middle; wherever that is, what follows must hold
        driver.send_signal(signal.SIGKILL)
    async with opened(places, program) as fleet:
        web = fleet[WEB]
        # A child that it had forked holds its ownership until that runs another program.
        with anyio.fail_after(60):
            while web.machine.running is not None:
                await fleet.recover(wait=True)
                await anyio.sleep(0.01)
        machine = await fleet.observe(WEB)
        assert machine.state in (State.ABSENT, State.CREATED, State.RUNNING, State.STOPPED)
        if machine.state is not State.ABSENT:
            await web.delete(force=True)
        assert kept(fleet) == []
        assert await wrong(fleet) == []
        await web.create(Spec(str(made_from), bundle=str(made_from)))


def only(looks: Mapping[str, Look | nexcage.NexcageError]) -> Look:
    (look,) = looks.values()
    assert isinstance(look, Look)
    return look


@pytest.mark.skipif(shutil.which("pct") is not None, reason="this is a node of Proxmox VE")
async def test_a_machine_without_proxmox_ve_is_seen_before_and_after_its_containers(places: Path) -> None:
    config = Config(state_dir=str(places / "state"), run_dir=str(places / "run"), backends=PROGRAMS)
    id = f"seen-{os.getpid()}"  # a look sees other fleets' too
    async with nexcage.open_fleet(config=config) as fleet:
        before = await fleet.look()
        await fleet[id].create(Spec(bundle=str(bundle(places / "bundle", TELLS)), backend="runc"))
        try:
            during = await fleet.look()
        finally:
            await fleet[id].delete(force=True)
        after = await fleet.look()
    seen = [[guest.name for guest in look.guests.values() if guest.mark] for look in map(only, (before, during, after))]
    assert [id in there for there in seen] == [False, True, False]


@pytest.mark.skipif(shutil.which("pct") is not None, reason="this is a node of Proxmox VE")
async def test_a_machine_with_neither_proxmox_ve_nor_a_runtime_is_told_as_such(places: Path) -> None:
    nowhere = {name: BackendConfig(command=(f"{places}/{name}",)) for name in ("crun", "runc")}
    config = Config(state_dir=str(places / "state"), run_dir=str(places / "run"), backends=nowhere)
    async with nexcage.open_fleet(config=config) as fleet:
        (error,) = (await fleet.look()).values()
    assert isinstance(error, nexcage.NodeNotUsable)
    assert "not a Proxmox VE node" in str(error)
