"""The pretend tools as processes over one directory: many at once, interrupted, killed."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nexcage.testing._model.files import DiskFiles
from nexcage.testing._model.world import effects, make_disk_cluster

from .conftest import ALPINE

CHECKOUT = Path(__file__).parents[2]


class Cluster:
    """A cluster on disk and a way to call its tools."""

    def __init__(self, directory: Path, pace: float) -> None:
        self.directory = directory
        self.root = directory / "nodes" / "pve-01" / "root"
        make_disk_cluster(directory, ["pve-01", "pve-02"], pace=pace)

    def begin(self, *argv: str, node: str = "pve-01") -> subprocess.Popen[str]:
        words = [sys.executable, "-m", "nexcage.testing._model", str(self.directory), node, *argv]
        return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=CHECKOUT)

    def run(self, *argv: str, node: str = "pve-01") -> subprocess.CompletedProcess[str]:
        process = self.begin(*argv, node=node)
        out, err = process.communicate(timeout=120)
        return subprocess.CompletedProcess(argv, process.returncode, out, err)

    def effects(self) -> list[dict[str, Any]]:
        return effects(DiskFiles(self.root))

    @property
    def conf(self) -> Path:
        return self.conf_of(100)

    def conf_of(self, vmid: int) -> Path:
        return self.root / f"etc/pve/lxc/{vmid}.conf"


def wait_for(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.01)


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(tmp_path, pace=0.0)


@pytest.fixture
def slow(tmp_path: Path) -> Cluster:
    """Its tools take long enough to be caught in the middle."""
    return Cluster(tmp_path, pace=0.7)


def test_a_life_in_processes(cluster: Cluster) -> None:
    create = cluster.run("pct", "create", "100", ALPINE, "--storage", "local-zfs", "--hostname", "web")
    start = cluster.run("pct", "start", "100")
    listed = cluster.run("pct", "list").stdout
    pid = cluster.run("lxc-info", "-n", "100", "-p", "-H").stdout.strip()
    killed = cluster.run("kill", "-KILL", pid)
    destroy = cluster.run("pct", "destroy", "100")

    assert [done.returncode for done in (create, start, killed, destroy)] == [0, 0, 0, 0]
    assert "100        running                 web" in listed
    assert not cluster.conf.exists()
    assert [entry["argv"][:2] for entry in cluster.effects()] == [
        ["pct", "create"], ["pct", "start"], ["kill", "-KILL"], ["pct", "destroy"],
    ]  # fmt: skip


def test_a_container_moves_between_nodes_on_disk(cluster: Cluster) -> None:
    cluster.run("pct", "create", "100", ALPINE, "--storage", "local-zfs")
    cluster.run("pct", "start", "100")

    moved = cluster.run("pct", "migrate", "100", "pve-02", "--restart", "1")

    assert moved.returncode == 0, moved.stdout + moved.stderr
    assert not cluster.conf.exists()
    assert "does not exist" in cluster.run("pct", "status", "100").stderr
    assert cluster.run("pct", "status", "100", node="pve-02").stdout == "status: running\n"
    assert cluster.run("pct", "destroy", "100", "--force", "1", node="pve-02").returncode == 0


def test_many_processes_at_once_lose_nothing(cluster: Cluster) -> None:
    processes = [
        cluster.begin("pct", "create", str(100 + n // 2), ALPINE, "--storage", "local-zfs", node=f"pve-0{n % 2 + 1}")
        for n in range(12)
    ]
    for process in processes:
        process.communicate(timeout=120)

    good = sum(process.returncode == 0 for process in processes)
    confs = sorted(path.name for path in (cluster.directory / "cluster/nodes").glob("*/lxc/*.conf"))
    vmlist = (cluster.directory / "cluster/.vmlist").read_text()
    assert good == 6
    assert confs == [f"{vmid}.conf" for vmid in range(100, 106)]
    assert all(f'"{vmid}": {{ "node": "pve-0' in vmlist for vmid in range(100, 106))
    assert [entry["seq"] for entry in cluster.effects()] == list(range(1, 7))


def test_term_takes_a_create_back_and_kill_leaves_its_traces(slow: Cluster) -> None:
    vmids = iter(range(100, 120))

    def half(vmid: int) -> bool:
        conf = slow.conf_of(vmid)
        return conf.exists() and conf.read_text() == "lock: create\n"

    back = next(vmid for vmid in vmids if signalled_at(slow, vmid, half, signal.SIGTERM) == 255)
    dead = next(vmid for vmid in vmids if signalled_at(slow, vmid, half, signal.SIGKILL) == -9 and half(vmid))

    assert not slow.conf_of(back).exists()
    wait_for(lambda: not any(path.name.isdigit() for path in (slow.root / "proc").iterdir()))
    exits = {entry["argv"][2]: (entry["exit"], entry["changed"]) for entry in slow.effects()}
    assert exits[str(back)][0] == 255
    assert exits[str(dead)][0] is None
    assert {"kind": "config", "target": str(dead), "change": "created"} in exits[str(dead)][1]


def signalled_at(slow: Cluster, vmid: int, moment: Callable[[int], bool], number: int) -> int | None:
    """How a create ended that got a signal in that moment; None: on a busy machine it may be over before anybody looks."""
    process = slow.begin("pct", "create", str(vmid), ALPINE, "--storage", "local-zfs")
    try:
        wait_for(lambda: moment(vmid) or process.poll() is not None)
        over = process.poll() is not None
    finally:
        process.send_signal(number)
        process.communicate(timeout=120)
    return None if over else process.returncode


def test_wherever_a_create_is_killed_its_effects_are_known(slow: Cluster) -> None:
    moments: list[Callable[[int], bool]] = [
        lambda vmid: True,
        lambda vmid: (slow.root / f"run/lock/lxc/pve-config-{vmid}.lock").exists(),
        lambda vmid: f":vzcreate:{vmid}:" in (slow.root / "var/log/pve/tasks/active").read_text(),
        lambda vmid: (slow.root / f"etc/pve/lxc/{vmid}.conf").exists(),
        lambda vmid: (slow.root / f"rpool/data/subvol-{vmid}-disk-0").exists(),
    ]
    slow.run("pct", "create", "999", ALPINE, "--storage", "local-zfs")
    vmids = iter(range(100, 200))
    for moment in moments:
        vmid = next(vmid for vmid in vmids if signalled_at(slow, vmid, moment, signal.SIGKILL) is not None)
        slow.run("pvesm", "path", "local:iso/x.iso")  # whoever comes next finishes a step that was cut short

        changed = [c for entry in slow.effects() if entry["argv"][2] == str(vmid) for c in entry["changed"]]
        made = (slow.root / f"etc/pve/lxc/{vmid}.conf").exists()
        volume = (slow.root / f"rpool/data/subvol-{vmid}-disk-0").exists()
        assert made == ({"kind": "config", "target": str(vmid), "change": "created"} in changed)
        assert volume == any(c["kind"] == "volume" for c in changed)


def test_a_container_halts_although_no_tool_runs_any_more(slow: Cluster) -> None:
    slow.run("pct", "create", "100", ALPINE, "--storage", "local-zfs")
    slow.run("pct", "start", "100")
    pid = slow.run("lxc-info", "-n", "100", "-p", "-H").stdout.strip()
    slow.run("kill", "-PWR", pid)

    wait_for(lambda: "/100/command" not in (slow.root / "proc/net/unix").read_text())
    wait_for(lambda: not (slow.root / "proc" / pid).exists())


def test_a_reader_that_went_away_stops_a_create_and_it_is_taken_back(slow: Cluster) -> None:
    process = slow.begin("pct", "create", "100", ALPINE, "--rootfs", "local:1")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    process.stderr.read()
    process.stderr.close()

    assert process.wait(timeout=120) != 0
    assert not slow.conf.exists()


def test_an_executable_imports_neither_the_engine_nor_anyio(cluster: Cluster) -> None:
    script = (
        "import sys; from nexcage.testing._model.main import main\n"
        f"main([{str(cluster.directory)!r}, 'pve-01', 'pct', 'list'])\n"
        "print(sorted({'anyio', 'msgspec', 'asyncio', 'asyncssh', 'subprocess'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=CHECKOUT)

    assert done.stdout == "[]\n"
