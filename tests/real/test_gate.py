"""Bundles in real containers of LXC: the pid of what is created, its gate, its exact argv, and the hooks around it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

import nexcage
from nexcage import State
from nexcage.testing import SimCluster
from nexcage.testing.executables import bin_dir
from nexcage.testing.real_lxc import missing
from nexcage.testing.real_sshd import RealSshd
from nexcage.testing.real_sshd import missing as no_sshd
from tests.real.oci_bundle import until

ODD = ["", "two words", "it's", 'say "so"', "line\nbreak", "\\", "$HOME", "ü", "-n"]
SCRIPT = (
    "trap 'exit 0' PWR TERM; cat /proc/1/cmdline /proc/1/environ >/run/seen; mv /run/seen /run/argv; sleep 1000 & wait"
)


class Place:
    """One node with real containers, and a bundle."""

    def __init__(self, dir: Path) -> None:
        self.dir = dir
        self.sim = SimCluster(1, dir=dir / "sim", kind="real")
        self.root = dir / "sim/nodes/pve-01/root"
        self.server = RealSshd(dir / "sshd", name="pve-01", path=[str(bin_dir(dir / "sim", "pve-01"))])

    def open(self) -> AbstractAsyncContextManager[nexcage.Fleet]:
        config = nexcage.Config(ssh_config="none")
        return nexcage.open_fleet(
            [self.server.host], config=config, state_dir=self.dir / "state", run_dir=self.dir / "run"
        )

    def spec(self, *argv: str, **more: Any) -> nexcage.Spec:  # Any: JSON
        where = self.dir / "bundle"
        (where / "rootfs/etc").mkdir(parents=True)
        (where / "rootfs/etc/hostname").write_text("web-1\n")
        process = {"args": list(argv), "cwd": "/tmp", "env": ["PATH=/bin", "A=b c"], "user": {"uid": 0, "gid": 0}}
        namespaces = [{"type": kind} for kind in ("pid", "mount", "ipc", "uts", "network")]
        config = {"ociVersion": "1.0.2", "process": process, "root": {"path": "rootfs"}} | more
        (where / "config.json").write_text(json.dumps({**config, "linux": {"namespaces": namespaces}}))
        return nexcage.Spec(image=str(where), bundle=str(where), backend="lxc")

    def hook(self, name: str, status: int = 0) -> dict[str, Any]:
        """A program of the node that notes its name, argv, environment and state."""
        path = self.root / "opt" / name
        path.parent.mkdir(exist_ok=True)
        log = self.dir / "hooks"
        path.write_text(
            f'#!/bin/sh\necho "$0 $# $A" >>{log}; cat >>{log}; echo >>{log}; readlink /proc/self/ns/net >{log}.{name}; exit {status}\n'
        )
        path.chmod(0o755)
        return {"path": f"/opt/{name}", "args": [name, "x y"], "env": ["A=1", "PATH=/usr/bin:/bin"], "timeout": 20}

    def told(self) -> list[tuple[str, dict[str, Any]]]:
        lines = (self.dir / "hooks").read_text().splitlines()
        return [
            (line.split()[0].rpartition("/")[2], json.loads(state))
            for line, state in zip(lines[::2], lines[1::2], strict=True)
        ]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    if why := missing() or no_sshd():
        pytest.skip(why)
    made = Place(tmp_path)
    try:
        with made.server:
            yield made
    finally:
        made.sim.close()


def _until(path: Path) -> bytes:
    until(path.exists, 20)
    return path.read_bytes()


def _until_gone(pid: int) -> None:
    until(lambda: not Path(f"/proc/{pid}").exists(), 20)


def _until_nothing_runs(place: Place) -> None:
    until(lambda: not place.sim["pve-01"].model.running(), 20)


async def test_the_program_runs_after_start_only_with_exactly_its_argv_and_environment(place: Place) -> None:
    argv = ["/bin/sh", "-c", SCRIPT, *ODD]
    async with place.open() as fleet:
        web = fleet["web-1"]
        created = await web.create(place.spec(*argv))
        pid = created.pid
        assert (created.state, (await web.state()).status) == (State.CREATED, "created")
        assert Path(f"/proc/{pid}/comm").read_text() == "nexcage-gate\n"
        assert "NSpid:\t" in Path(f"/proc/{pid}/status").read_text()
        assert not Path(f"/proc/{pid}/root/run/argv").exists()

        started = await web.start()

        assert (started.state, started.pid) == (State.RUNNING, pid)
        words = [word.encode() for word in (*argv, "PATH=/bin", "A=b c")]
        assert _until(Path(f"/proc/{pid}/root/run/argv")) == b"".join(word + b"\0" for word in words)
        assert os.listdir(f"/proc/{pid}/root/.nexcage") == []
        assert os.readlink(f"/proc/{pid}/cwd") == "/tmp"
        assert (await web.exec(["cat", "/proc/1/comm"])).stdout == b"sh\n"
        await web.stop(timeout=5)
        again = await web.start()
        assert again.pid not in (0, pid)
        await web.delete(force=True)
        assert not (place.root / "var/lib/nexcage-lxc").exists() or not list(
            (place.root / "var/lib/nexcage-lxc").glob("*/web-1")
        )


async def test_hooks_are_run_in_order_and_told_the_truth(place: Place) -> None:
    inside = {"path": "/bin/sh", "args": ["sh", "-c", "cat >/run/in; mv /run/in /run/inside"], "env": ["PATH=/bin"]}
    kinds = ("prestart", "createRuntime", "createContainer", "poststart", "poststop")
    hooks = {kind: [place.hook(kind)] for kind in kinds} | {"startContainer": [inside]}
    async with place.open() as fleet:
        web = fleet["web-1"]
        pid = (await web.create(place.spec("/bin/sleep", "1000", hooks=hooks))).pid
        assert [kind for kind, _ in place.told()] == list(kinds[:3])
        spaces = {kind: (place.dir / f"hooks.{kind}").read_text().strip() for kind in kinds[:3]}
        assert spaces["createContainer"] == os.readlink(f"/proc/{pid}/ns/net") != spaces["createRuntime"]
        await web.start()
        told = json.loads(_until(Path(f"/proc/{pid}/root/run/inside")))
        await web.delete(force=True)

    seen = [(kind, state["status"], state.get("pid")) for kind, state in place.told()]
    assert seen == [
        *((kind, "creating", pid) for kind in kinds[:3]),
        ("poststart", "running", pid),
        ("poststop", "stopped", None),
    ]
    assert (told["status"], told["pid"], told["id"]) == ("created", 1, "web-1")


async def test_a_program_that_cannot_be_run_is_a_failed_start_that_says_why(place: Place) -> None:
    async with place.open() as fleet:
        web = fleet["web-1"]
        await web.create(place.spec("nosuch"))
        with pytest.raises(nexcage.CommandFailed, match="executable file not found in"):
            await web.start()
        assert web.machine.state is State.STOPPED
        await web.delete()


async def test_a_hook_of_the_create_that_fails_leaves_nothing_behind(place: Place) -> None:
    hooks = {"createRuntime": [place.hook("createRuntime", 3)], "poststop": [place.hook("poststop")]}
    async with place.open() as fleet:
        with pytest.raises(nexcage.CommandFailed, match="exit status 3"):
            await fleet["web-1"].create(place.spec("/bin/sleep", "1000", hooks=hooks))
        assert fleet["web-1"].machine.state is State.ABSENT
        assert [kind for kind, _ in place.told()] == ["createRuntime", "poststop"]
        _until_nothing_runs(place)


async def test_a_created_one_can_be_killed(place: Place) -> None:
    async with place.open() as fleet:
        web = fleet["web-1"]
        pid = (await web.create(place.spec("/bin/sleep", "1000"))).pid
        await web.kill("TERM")
        _until_gone(pid)
        assert await web.wait(State.STOPPED, timeout=60) is State.STOPPED  # LXC's monitor goes a moment later
        told = [
            event.state for event in nexcage.read_journal(place.dir / "state") if isinstance(event, nexcage.Observed)
        ]
        assert told == [State.STOPPED]


async def test_a_hook_of_the_start_that_fails_leaves_nothing_behind(place: Place) -> None:
    inside = {"path": "/bin/false", "args": ["false"]}
    spec = place.spec("/bin/sleep", "1000", hooks={"startContainer": [inside], "poststop": [place.hook("poststop")]})
    async with place.open() as fleet:
        web = fleet["web-1"]
        await web.create(spec)
        with pytest.raises(nexcage.CommandFailed, match="startContainer hook"):
            await web.start()
        assert web.machine.state is State.ABSENT
        assert [kind for kind, _ in place.told()] == ["poststop"]

        (place.dir / "hooks").unlink()
        config = json.loads((place.dir / "bundle/config.json").read_text())
        failing = {"poststart": [place.hook("poststart", 3)], "poststop": [place.hook("poststop")]}
        (place.dir / "bundle/config.json").write_text(json.dumps(config | {"hooks": failing}))
        await web.create(spec)
        with pytest.raises(nexcage.CommandFailed, match="exit status 3"):
            await web.start()
        assert web.machine.state is State.ABSENT
        assert [kind for kind, _ in place.told()] == ["poststart", "poststop"]
        _until_nothing_runs(place)
        assert not list((place.root / "var/lib/nexcage-lxc").glob("*/web-1"))
