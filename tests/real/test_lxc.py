"""Real containers of LXC on a node behind a real sshd: pids, signals, freezer, monitor and exit statuses are the kernel's own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

import nexcage
from nexcage import Command, Create, Delete, Kill, Observed, Pause, Resume, Spec, Start, State, Stop
from nexcage._core.command import nothing
from nexcage.testing import SimCluster
from nexcage.testing.executables import bin_dir
from nexcage.testing.real_lxc import RealLxc, missing
from nexcage.testing.real_sshd import RealSshd
from nexcage.testing.real_sshd import missing as no_sshd

ROOT = Path(__file__).parents[2]
SPEC = Spec("local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst", storage="local-zfs")
IDS = [f"web-{n:02}" for n in range(20)]


class Node:
    """One simulated node with real containers, behind an sshd."""

    def __init__(self, dir: Path) -> None:
        self.dir = dir
        self.sim = SimCluster(1, dir=dir / "sim", kind="real")
        assert self.sim.lxc is not None
        self.lxc: RealLxc = self.sim.lxc
        self.server = RealSshd(dir / "sshd", name="pve-01", path=[str(bin_dir(dir / "sim", "pve-01"))])

    def open(self, **options: Any) -> AbstractAsyncContextManager[nexcage.Fleet]:  # Any: those of open_fleet
        config = options.pop("config", nexcage.Config(ssh_config="none"))
        return nexcage.open_fleet(
            [self.server.host], config=config, state_dir=self.dir / "state", run_dir=self.dir / "run", **options
        )

    def state(self, id: str) -> dict[str, Any]:  # Any: JSON
        return dict(msgspec.json.decode((self.dir / "run" / id / "state.json").read_bytes()))

    def programs(self) -> Counter[str]:
        """What runs in the node's namespaces and inside its containers, by name."""
        return Counter(words[0].rpartition("/")[2] for pid in self.lxc.processes() if (words := _cmdline(pid)))


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """Ends its containers, and fails where one cannot be ended."""
    if why := missing() or no_sshd():
        pytest.skip(why)
    made = Node(tmp_path)
    try:
        with made.server:
            yield made
    finally:
        made.sim.close()
    assert made.lxc.processes() == []
    ours = f"*/{made.lxc._base}-*"  # another run on this machine has its own
    assert not list(Path("/sys/fs/cgroup").glob(ours))


def _cmdline(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")
    except OSError:  # it has ended
        return []


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text("utf-8").splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def cgroups_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cgroup").read_text("utf-8")


def frozen(pid: int) -> bool:
    """By the kernel's own flag, in whichever version of cgroups there is."""
    for line in cgroups_of(pid).splitlines():
        _, kinds, path = line.split(":", 2)
        if "freezer" in kinds.split(","):
            return Path(f"/sys/fs/cgroup/freezer{path}/freezer.state").read_text("utf-8").strip() == "FROZEN"
    path = cgroups_of(pid).splitlines()[-1].split(":", 2)[2]
    return "frozen 1" in Path(f"/sys/fs/cgroup{path}/cgroup.events").read_text("utf-8")


def signals(pid: int) -> list[str]:
    """What its init says that it got."""
    try:
        return Path(f"/proc/{pid}/root/run/signals").read_text("utf-8").split()
    except FileNotFoundError:
        return []


async def until(true: Callable[[], bool]) -> None:
    with anyio.fail_after(40):
        while not true():
            await anyio.sleep(0.01)


async def test_twenty_containers_live_and_die(node: Node) -> None:
    lives: list[tuple[str, Callable[[str], nexcage.Intent]]] = [
        ("created", lambda id: Create(id, SPEC)),
        ("running", Start),
        ("paused", Pause),
        ("running", Resume),
        ("running", lambda id: Kill(id, "HUP")),
        ("stopped", lambda id: Stop(id, timeout=30.0)),
        ("running", Start),
        ("stopped", lambda id: Stop(id, force=True)),
        ("absent", Delete),
    ]
    inits: list[dict[str, int]] = []
    async with node.open() as fleet:
        for state, make in lives:
            report = await fleet.run([make(id) for id in IDS])

            report.raise_for_failures()
            assert Counter(str(done.state) for done in report.done) == {state: 20}
            pids = {done.id: done.pid for done in report.done}
            if state not in ("running", "paused"):
                assert not any(pids.values())
                continue
            for done in report.done:
                assert node.state(done.id)["pid"] == done.pid
                assert status_of(done.pid)["NSpid"].split() == [str(done.pid), "1"]
                assert f"/lxc/{done.vmid}/" in cgroups_of(done.pid)
                assert frozen(done.pid) == (state == "paused")
            if not inits or inits[-1] != pids:
                inits.append(pids)

    assert len(inits) == 2
    assert len({pid for pids in inits for pid in pids.values()}) == 40
    effects = node.sim.effects()
    assert max(Counter((effect["op_id"], effect["step"]) for effect in effects).values()) == 1
    assert Counter(" ".join(effect["argv"][:2]) for effect in effects if effect["argv"][0] == "pct") == {
        "pct create": 20,
        "pct start": 40,
        "pct shutdown": 20,
        "pct stop": 20,
        "pct destroy": 20,
    }
    await until(lambda: node.programs()["sh"] == 1)  # who holds the namespaces


async def test_signals_arrive_and_kill_ends_it(node: Node) -> None:
    async with node.open() as fleet:
        web = fleet["web-1"]
        await web.create(SPEC)
        pid = (await web.start()).pid
        names: tuple[str | int, ...] = ("TERM", "SIGHUP", "usr1", 12)
        for number, name in enumerate(names, start=1):
            assert (await web.kill(name)).pid == pid
            await until(lambda wanted=number: len(signals(pid)) == wanted)  # type: ignore[misc]
        said = signals(pid)

        assert (await web.kill("KILL")).changed
        await until(lambda: not Path(f"/proc/{pid}").exists())

        assert said == ["TERM", "HUP", "USR1", "USR2"]
        with anyio.fail_after(30):
            while (await web.state()).status != "stopped":  # LXC's monitor goes a moment later
                await anyio.sleep(0.05)
        assert node.state("web-1")["pid"] == 0
        with pytest.raises(nexcage.IllegalTransition):
            await web.kill("TERM")


async def test_a_frozen_container_does_nothing_until_it_is_thawed(node: Node) -> None:
    async with node.open() as fleet:
        web = fleet["web-1"]
        await web.create(SPEC)
        pid = (await web.start()).pid
        await web.pause()
        await web.kill("TERM")

        assert frozen(pid)
        assert status_of(pid)["State"].startswith(("D", "S", "T"))
        assert signals(pid) == []
        await web.resume()
        await until(lambda: signals(pid) == ["TERM"])
        assert not frozen(pid)


async def test_one_that_does_not_halt_is_forced_when_its_time_is_over(node: Node) -> None:
    node.sim.inits("stubborn")
    async with node.open() as fleet:
        web = fleet["web-1"]
        await web.create(SPEC)
        pid = (await web.start()).pid

        done = await web.stop(timeout=1.0)

        assert (done.state, done.changed) == (State.STOPPED, True)
        assert done.seconds >= 1.0
        await until(lambda: not Path(f"/proc/{pid}").exists())


async def test_exec_gives_the_bytes_and_the_status_of_the_program(node: Node) -> None:
    every = bytes(range(256)) * 512
    async with node.open() as fleet:
        web = fleet["web-1"]
        await web.create(SPEC)
        pid = (await web.start()).pid

        echoed = await web.exec(["cat"], stdin=every)
        failed = await web.exec(["sh", "-c", "echo out; printf '\\377' >&2; exit 42"])
        inside = await web.exec(["sh", "-c", 'echo "$$ $(hostname)"; readlink /proc/1/ns/pid'], env={"A": "b c"})
        killed = await web.exec(["sh", "-c", "kill -9 $$"])

        assert (echoed.exit, echoed.stdout, echoed.stderr) == (0, every, b"")
        assert (failed.exit, failed.stdout, failed.stderr) == (42, b"out\n", b"\xff")
        assert inside.stdout.split()[1:] == [b"web-1", os.readlink(f"/proc/{pid}/ns/pid").encode()]
        assert killed.exit == 137


async def test_a_container_killed_behind_our_back_is_heard_of_and_recorded(node: Node) -> None:
    argv = [
        sys.executable,
        "-m",
        "nexcage",
        "--state-dir",
        str(node.dir / "state"),
        "events",
        "--follow",
        "-o",
        "jsonl",
    ]
    async with node.open(watch=True) as fleet:
        web = fleet["web-1"]
        await web.create(SPEC)
        done = await web.start()
        await until(lambda: node.programs()["lxc-monitor"] == 1 and node.programs()["lxc-monitord"] == 1)
        await until(lambda: _quiet(fleet))  # what is looked at when following begins has been looked at
        follower = subprocess.Popen(
            argv, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}, start_new_session=True
        )
        try:
            assert follower.stdout is not None
            async with fleet.events.subscribe() as events:
                os.kill(done.pid, signal.SIGKILL)
                with anyio.fail_after(
                    40
                ):  # what came before it listened is found by one more look; the next is minutes away
                    observed = [event async for event in _first(events, Observed)]
            lines = await anyio.to_thread.run_sync(lambda: list(_lines_until(follower, b'"observed"')))
        finally:
            follower.kill()
            follower.communicate()

        assert [(event.id, event.state, event.pid) for event in observed] == [("web-1", State.STOPPED, 0)]
        assert msgspec.json.decode(lines[-1])["state"] == "stopped"
        assert node.state("web-1")["status"] == "stopped"
        assert node.programs()["lxc-monitor"] == 1  # it was heard: nobody had to ask again
        assert (await web.start()).pid not in (0, done.pid)
    await until(lambda: node.programs()["lxc-monitor"] == 0)


def _quiet(fleet: nexcage.Fleet) -> bool:
    """Whether the newest look is older than what following asks for when it begins."""
    (node,) = fleet.nodes.values()
    return node.seen is not None and node.seen.at + 2.0 < time.time()


async def _first(events: Any, kind: type[Any]) -> Any:  # Any: an iterator of events, and one of them
    async for event in events:
        if isinstance(event, kind):
            yield event
            return


def _lines_until(process: subprocess.Popen[bytes], word: bytes) -> Iterator[bytes]:
    assert process.stdout is not None
    for line in process.stdout:
        yield line
        if word in line:
            return


async def test_a_container_that_somebody_starts_and_stops_is_followed(node: Node) -> None:
    async with node.open(watch=True) as fleet:
        web = fleet["web-1"]
        vmid = (await web.create(SPEC)).vmid
        await web.start()
        await web.stop()
        there = node.sim["pve-01"]
        await until(lambda: node.programs()["lxc-monitor"] == 1)

        for argv, state in (
            (("lxc-start", "-n", str(vmid), "-d"), State.RUNNING),
            (("lxc-freeze", "-n", str(vmid)), State.PAUSED),
            (("lxc-unfreeze", "-n", str(vmid)), State.RUNNING),
            (("lxc-stop", "-n", str(vmid), "-k"), State.STOPPED),
        ):
            await fleet.nodes["pve-01"].run(Command(argv, nothing))
            await until(lambda wanted=state: web.machine.state is wanted)  # type: ignore[misc]
        assert there.model.running() == []


async def test_it_is_heard_of_without_a_runner_too(node: Node) -> None:
    async with node.open(config=nexcage.Config(ssh_config="none", runner="off"), watch=True) as fleet:
        web = fleet["web-1"]
        await web.create(SPEC)
        done = await web.start()
        await until(lambda: node.programs()["lxc-monitord"] == 1 and _quiet(fleet))

        os.kill(done.pid, signal.SIGKILL)

        await until(lambda: web.machine.state is State.STOPPED)
    await until(lambda: node.programs()["lxc-monitor"] == 0)


async def test_lxc_start_of_a_running_container_exits_0_and_fools_nobody(node: Node) -> None:
    async with node.open() as fleet:
        web, there = fleet["web-1"], fleet.nodes["pve-01"]
        vmid = (await web.create(SPEC)).vmid
        first = (await web.start()).pid
        again = Command(("lxc-start", "-n", str(vmid), "-d"), nothing)

        assert (await there.call(again)).exit == 0
        done = await web.start()
        assert (done.changed, done.pid) == (False, first)

        await web.stop()
        assert (await there.call(again)).exit == 0  # somebody starts it, and then once more
        assert (await there.call(again)).exit == 0
        done = await web.start()
        pid = node.sim["pve-01"].model.init_pid(vmid)
        assert (done.changed, done.pid) == (False, pid)
        assert status_of(done.pid)["NSpid"].split() == [str(pid), "1"]


async def test_a_start_whose_init_dies_at_once_is_a_failure(node: Node) -> None:
    node.sim.inits("broken")
    async with node.open() as fleet:
        web = fleet["web-1"]
        await web.create(SPEC)
        with pytest.raises(nexcage.NexcageError) as refused:
            await web.start()

        assert not refused.value.uncertain
        assert web.machine.state is State.CREATED


async def test_a_node_that_was_down_has_its_containers_stopped_and_goes_on(node: Node) -> None:
    there = node.sim["pve-01"]
    async with node.open() as fleet:
        web = fleet["web-1"]
        await web.create(SPEC)
        pid = (await web.start()).pid
        there.crash()
        there.restart()

        await web.reconcile()
        assert web.machine.state is State.STOPPED
        await until(lambda: not Path(f"/proc/{pid}").exists())
        assert (await web.start()).pid not in (0, pid)


def test_containers_end_with_the_process_that_had_them_made(tmp_path: Path) -> None:
    if why := missing():
        pytest.skip(why)
    script = (
        "import sys, time; from nexcage.testing import SimCluster; from pathlib import Path\n"
        "sim = SimCluster(2, dir=Path(sys.argv[1]), kind='real'); print('ready', flush=True); sys.stdin.read()"
    )
    dying = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "sim")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert dying.stdout is not None
    assert dying.stdout.readline() == b"ready\n"
    inits: list[int] = []
    for name, vmid in (("pve-01", "104"), ("pve-02", "105")):
        env = {"PATH": f"{bin_dir(tmp_path / 'sim', name)}:{os.environ['PATH']}"}
        for words in (("create", vmid, SPEC.image, "--storage", "local-zfs"), ("start", vmid)):
            subprocess.run(["pct", *words], env=env, stdout=subprocess.DEVNULL, check=True)
        asked = ["sh", "-c", f"lxc-info -n {vmid} -p -H"]
        inits.append(int(subprocess.run(asked, env=env, stdout=subprocess.PIPE, check=True).stdout))
    groups = {line.split(":", 2)[2].split("/")[1] for pid in inits for line in cgroups_of(pid).splitlines()}

    dying.kill()
    dying.communicate()

    gives_up = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in inits) or _groups(groups):
        assert time.monotonic() < gives_up
        time.sleep(0.05)
    assert len(groups) == 2


def test_what_was_real_is_a_model_again_afterwards(tmp_path: Path) -> None:
    if why := missing():
        pytest.skip(why)
    env = {"PATH": f"{bin_dir(tmp_path / 'sim', 'pve-01')}:{os.environ['PATH']}"}

    def pct(*words: str) -> str:
        return subprocess.run(["pct", *words], env=env, capture_output=True, text=True, check=True).stdout

    with SimCluster(1, dir=tmp_path / "sim", kind="real"):
        pct("create", "104", SPEC.image, "--storage", "local-zfs")
        pct("start", "104")
        assert pct("status", "104") == "status: running\n"
    assert pct("status", "104") == "status: stopped\n"
    pct("start", "104")

    assert SimCluster(dir=tmp_path / "sim")["pve-01"].model.init_pid(104) > 4194304  # type: ignore[operator]


def _groups(names: set[str]) -> list[Path]:
    top = Path("/sys/fs/cgroup")
    return [path for name in names for path in (*top.glob(name), *top.glob(f"*/{name}"))]


def test_the_machine_itself_is_left_alone(node: Node, tmp_path: Path) -> None:
    before = sorted(Path("/var/lib/lxc").iterdir()), Path("/proc/net/unix").read_text("utf-8").count("/var/lib/lxc")
    with node.sim["pve-01"].step():
        assert node.sim["pve-01"].model.running() == []
    path = f"{bin_dir(tmp_path / 'sim', 'pve-01')}:{os.environ['PATH']}"

    def pct(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["pct", *words], env={"PATH": path}, capture_output=True, text=True, check=True)

    pct("create", "104", SPEC.image, "--storage", "local-zfs")
    pct("start", "104")

    assert pct("status", "104").stdout == "status: running\n"
    assert (tmp_path / "sim/nodes/pve-01/root/var/lib/lxc/104/config").exists()
    after = sorted(Path("/var/lib/lxc").iterdir()), Path("/proc/net/unix").read_text("utf-8").count("/var/lib/lxc")
    assert after == before
