"""Virtual machines in a look: what real shells show is what the twin shows, and what QEMU says is asked as QEMU expects it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
import threading
from collections.abc import AsyncIterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexcage import Command, IllegalTransition, Look, Mark, NotOurs, Result, Settled
from nexcage.testing import SimCluster
from nexcage.testing._model import vms
from nexcage.testing._model.files import SIM
from nexcage.tools import kvm, lxc, mend_snapshot, mending, qm
from nexcage.tools.config import parse

SHELLS = [shell for shell in ("dash", "bash") if shutil.which(shell)]
MARK = Mark("f1", "db+1.x", 200, "op.1")


class OnDisk:
    """A simulated node on disk, and real shells that work on the same files."""

    def __init__(self, sim: SimCluster) -> None:
        assert sim.dir is not None
        self.node = sim["pve-01"]
        self.root = sim.dir / "nodes" / "pve-01" / "root"
        path = f"{sim.path('pve-01')}:{os.environ['PATH']}"
        self.environ = {**os.environ, "NEXCAGE_NODE_ROOT": str(self.root), "PATH": path}

    async def real(self, shell: str, command: Command[Any]) -> Result:
        done = await anyio.run_process([shell, *command.argv[1:]], env=self.environ, check=False)
        return Result(done.returncode, done.stdout, done.stderr)

    async def qm(self, *words: str) -> None:
        result = await self.node.run(["qm", *words])
        assert result.exit == 0, result.stderr

    async def create(self, mark: Mark, *options: str) -> None:
        disk = ("--scsi0", "local-zfs:1")
        await self.qm("create", str(mark.vmid), "--name", "db", *disk, "--description", f"{mark}\nmine", *options)

    async def look(self, shell: str) -> Look:
        command = lxc.look("pve-01")
        real, twin = await self.real(shell, command), await self.node.run(command.argv)
        assert timeless(command.parse(real)) == timeless(command.parse(twin))
        return command.parse(real)


def timeless(look: Look) -> Look:
    """Without the uptime: a simulated node on disk runs its scripts on this machine."""
    return msgspec.structs.replace(look, uptime=0.0)


@pytest.fixture
async def disk() -> AsyncIterator[OnDisk]:
    # Not in tmp_path: the path of a socket has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="vm-") as folder, SimCluster(1, dir=f"{folder}/sim", seed=5) as sim:
        yield OnDisk(sim)


@pytest.mark.parametrize("shell", SHELLS)
async def test_a_real_shell_sees_the_same_virtual_machines_as_the_model(disk: OnDisk, shell: str) -> None:
    await disk.create(MARK)
    await disk.create(Mark("f1", "second", 201, "op.2"))
    await disk.qm("create", "300", "--name", "theirs", "--scsi0", "local:2")
    for vmid in ("200", "201", "300"):
        await disk.qm("start", vmid)
    await disk.qm("suspend", "201")
    await disk.qm("suspend", "300")

    look = await disk.look(shell)

    mine, paused, theirs = (look.guests[vmid] for vmid in (200, 201, 300))
    assert (mine.kind, mine.name, mine.mark, mine.running, mine.frozen) == ("vm", "db", MARK, True, False)
    assert (mine.pid, mine.started > 0) == (vms.pid_of(disk.node.model, 200), True)
    assert (paused.running, paused.frozen, paused.silent) == (True, True, False)
    assert (theirs.running, theirs.frozen, theirs.mark) == (True, False, None)  # only ours are asked


@pytest.mark.parametrize("shell", SHELLS)
async def test_a_pid_file_without_its_process_means_stopped(disk: OnDisk, shell: str) -> None:
    await disk.create(MARK)
    (disk.root / "run/qemu-server").mkdir(parents=True, exist_ok=True)
    for text in ("4194999\n", "1\n", "", "x; id\n"):  # nobody, somebody else, nothing
        (disk.root / "run/qemu-server/200.pid").write_text(text)
        look = lxc.look("pve-01").parse(await disk.real(shell, lxc.look("pve-01")))
        assert not look.guests[200].running


@pytest.mark.parametrize("shell", SHELLS)
async def test_the_plug_is_pulled_only_behind_the_mark(disk: OnDisk, shell: str) -> None:
    await disk.create(MARK)
    pull = kvm.power_off(MARK)
    stopped = await disk.real(shell, pull)
    await disk.qm("start", "200")
    pid = vms.pid_of(disk.node.model, 200)
    other = kvm.power_off(Mark("f1", "db+1.x", 200, "op.2"))
    refused = await disk.real(shell, other)
    done = await disk.real(shell, pull)

    assert isinstance(pull.classify(pull, stopped, "n"), IllegalTransition)
    assert isinstance(other.classify(other, refused, "n"), NotOurs)
    assert (done.exit, pull.parse(done), vms.pid_of(disk.node.model, 200)) == (0, pid, None)


@pytest.mark.parametrize("shell", SHELLS)
async def test_the_guard_looks_into_the_config_of_a_virtual_machine_too(disk: OnDisk, shell: str) -> None:
    await disk.create(MARK)
    ours, theirs = lxc.guarded(MARK, qm.start(200)), lxc.guarded(Mark("f2", "db", 200, "op.1"), qm.start(200))

    refused = await disk.real(shell, theirs)
    done = await disk.real(shell, ours)

    assert isinstance(theirs.classify(theirs, refused, "n"), NotOurs)
    assert done.exit == 0
    assert vms.pid_of(disk.node.model, 200) is not None


# ---- reading a config -----------------------------------------------------------------------------------------------------------


def test_what_waits_for_the_next_start_is_pending_and_no_snapshot() -> None:
    config = b"memory: 512\nname: db\n\n[PENDING]\nmemory: 1024\n\n[special:cloudinit]\nname: old\nmemory: 16\n\n[before]\nmemory: 256\n"
    parsed = parse(kvm.plain(config).decode())
    assert (parsed.values, sorted(parsed.snapshots), parsed.broken) == ({"memory": "512", "name": "db"}, ["before"], ())
    assert parsed.effective()["memory"] == "1024"
    assert parsed.snapshots["before"].values == {"memory": "256"}


@given(st.text("a: 1\n[]specialPENDING", max_size=60).map(str.encode))
def test_what_is_left_out_of_a_config_never_adds_to_it(config: bytes) -> None:
    left = kvm.plain(config)
    assert len(left) <= len(config) + 4 * config.upper().count(b"[PENDING]")
    assert kvm.plain(left) == left


# ---- what is left half done ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", SHELLS)
async def test_a_half_made_one_goes_when_it_is_nothing_but_a_lock_or_carries_our_mark(disk: OnDisk, shell: str) -> None:
    lost = Settled(kind="lost", at=0, started=0)
    mine = mending.mend("db+1.x", 200, "create", lost, mark=MARK)
    theirs = mending.mend("db+1.x", 200, "create", lost, mark=Mark("f1", "db+1.x", 200, "op.2"))
    bare = disk.node.model.files

    await disk.create(MARK, "--lock", "create")
    refused = await disk.real(shell, theirs)
    kept = vms.config(disk.node.model, 200)
    done = await disk.real(shell, mine)
    gone = vms.config(disk.node.model, 200)
    again = await disk.real(shell, mine)
    with disk.node.step():
        bare.write(vms.config_path(disk.node.model, 200), "lock: create\n")
    empty = await disk.real(shell, mine)

    assert isinstance(theirs.classify(theirs, refused, "n"), NotOurs)
    assert kept is not None
    assert (done.exit, gone, again.exit, empty.exit) == (0, None, 0, 0)
    assert vms.machines(disk.node.model) == []
    assert "vm-200-disk-0" not in (bare.read(f"{SIM}/zfs.json") or "")


@pytest.mark.parametrize("shell", SHELLS)
async def test_one_that_is_whole_is_never_half_made(disk: OnDisk, shell: str) -> None:
    await disk.create(MARK)
    mine = mending.mend("db+1.x", 200, "create", Settled(kind="lost", at=0, started=0), mark=MARK)

    refused = await disk.real(shell, mine)

    assert isinstance(mine.classify(mine, refused, "n"), NotOurs)
    assert vms.config(disk.node.model, 200) is not None


@pytest.mark.parametrize("shell", SHELLS)
async def test_a_half_made_snapshot_goes_with_its_lock(disk: OnDisk, shell: str) -> None:
    await disk.create(MARK)
    whole = vms.config(disk.node.model, 200) or ""
    half = f"{whole}lock: snapshot\n\n[before]\n#nexcage op=op.7\nscsi0: local-zfs:vm-200-disk-0,size=1G\nsnapstate: prepare\n"
    with disk.node.step():
        disk.node.files.write(vms.config_path(disk.node.model, 200), half)

    other = await disk.real(shell, mend_snapshot.mend(MARK, "before", "snapshot", "op.8", tool="qm"))
    still = vms.config(disk.node.model, 200)
    done = await disk.real(shell, mend_snapshot.mend(MARK, "before", "snapshot", "op.7", tool="qm"))

    assert (other.exit, still) == (9, half)
    assert (done.exit, vms.config(disk.node.model, 200)) == (0, whole)


# ---- QMP itself ----------------------------------------------------------------------------------------------------------------


@contextmanager
def qemu(path: Path, status: str, *, deaf: bool = False):
    """A QMP server as QEMU has it: greets, wants the capabilities first, may say an event in between, one client at a time."""
    heard: list[str] = []
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(1)

    def serve() -> None:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        with client, client.makefile("rw", encoding="utf-8") as stream:
            if deaf:
                stream.readline()
                return
            say(stream, {"QMP": {"version": {"qemu": {"major": 10}}, "capabilities": ["oob"]}})
            for line in stream:
                heard.append(json.loads(line)["execute"])
                if heard[-1] == "qmp_capabilities":
                    say(stream, {"timestamp": {"seconds": 1}, "event": "RTC_CHANGE", "data": {"status": "no"}})
                    say(stream, {"return": {}})
                elif heard[0] == "qmp_capabilities":
                    say(stream, {"return": {"status": status, "singlestep": False, "running": status == "running"}})

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield heard
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)


def say(stream: Any, message: object) -> None:
    stream.write(json.dumps(message) + "\r\n")
    stream.flush()


async def test_qemu_is_asked_by_qmp_and_one_that_is_deaf_costs_a_second(disk: OnDisk) -> None:
    await disk.create(MARK)
    await disk.create(Mark("f1", "second", 201, "op.2"))
    await disk.qm("start", "200")
    await disk.qm("start", "201")
    run = disk.root / "run/qemu-server"
    for vmid in (200, 201):
        (run / f"{vmid}.qmp").unlink()

    with qemu(run / "200.qmp", "paused") as heard, qemu(run / "201.qmp", "running", deaf=True):
        look = lxc.look("pve-01").parse(await disk.real("sh", lxc.look("pve-01")))

    assert heard == ["qmp_capabilities", "query-status"]
    assert (look.guests[200].frozen, look.guests[200].silent) == (True, False)
    assert (look.guests[201].running, look.guests[201].frozen, look.guests[201].silent) == (True, False, True)
