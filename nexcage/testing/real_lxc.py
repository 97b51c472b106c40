"""Real containers of LXC under the pretend ``pct``: what a simulated node on disk needs for them, and its end.

Each node gets a mount and a network namespace of its own, held by one process. In it ``/var/lib/lxc`` and ``/run/lxc`` are the node's
directories, and LXC's abstract sockets are seen by nobody else, so many nodes live on one machine and no container of the
machine itself is ever touched. All containers have one root file system, busybox and an init that writes down the signals that it
gets (``/run/signals``), below an overlay.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from nexcage.testing._model.files import REAL, SIM
from nexcage.testing._model.real import Ground, born
from nexcage.testing.executables import install

__all__ = ["RealLxc", "missing"]

_TOOLS = ("lxc-start", "lxc-stop", "lxc-info", "lxc-freeze", "lxc-attach", "lxc-monitor")
_GROUPS = Path("/sys/fs/cgroup")
_LINKS = ("proc/net/unix", "sys/fs/cgroup/lxc.monitor", "sys/fs/cgroup/lxc", "sys/fs/cgroup/freezer/lxc")
_PATIENCE = 30.0
# Its standard input is the life line: when whoever started it is gone, its containers go too.
_HOLD = """\
mount --bind "$1/var/lib/lxc" /var/lib/lxc && mount --bind "$1/var/lib/nexcage-sim/lxc-run" /run/lxc || exit 1
echo ready
read -r line
cd /var/lib/lxc && for id in [1-9]*; do lxc-stop -n "$id" -k; done
find /sys/fs/cgroup -depth -type d -path "*/$2/*" -exec rmdir {} +
find /sys/fs/cgroup -maxdepth 2 -type d -name "$2" -exec rmdir {} +
"""
_INIT = """\
#!/bin/sh
# How it takes being asked to halt is in $INIT, in the words of the model.
for s in HUP INT QUIT USR1 USR2 TERM; do trap "echo $s >>/run/signals" $s; done
trap 'echo PWR >>/run/signals; [ "$INIT" = stubborn ] || exit 0' PWR
[ "$INIT" != exits ] || for s in HUP INT QUIT TERM; do trap "exit 0" $s; done
[ "$INIT" != broken ] || exit 1
sleep 1000000 &
while :; do wait $!; done
"""


def missing() -> str:
    """Why no real containers can run here and what to do about it; empty when they can."""
    lacking = [name for name in _TOOLS if shutil.which(name) is None]
    if lacking or not _static(shutil.which("busybox")):
        return "no LXC or no static busybox on this machine: apt-get install --no-install-recommends lxc busybox-static"
    if os.geteuid() != 0:
        return "real containers need root"
    if not os.access(_hierarchy()[0], os.W_OK):
        return "the cgroups of this machine cannot be written: run in a privileged container or a virtual machine"
    tried = subprocess.run(["unshare", "--mount", "--net", "true"], stderr=subprocess.PIPE, check=False)
    return (
        f"no namespaces to be had here: {tried.stderr.decode('utf-8', 'replace').strip()}" if tried.returncode else ""
    )


def _static(program: str | None) -> bool:
    if program is None:
        return False
    with open(program, "rb") as file:
        return b"/ld-linux" not in file.read(4096)


def _hierarchy() -> tuple[Path, bool]:
    """Where containers are frozen, and whether that is cgroup version 2."""
    if (_GROUPS / "cgroup.controllers").exists():
        return _GROUPS, True
    return _GROUPS / "freezer", False


class RealLxc:
    """The ground of the real containers of a cluster on disk. `start` and `stop`, or a context manager."""

    def __init__(self, directory: Path, nodes: Iterable[str]) -> None:
        self.directory: Path = directory
        self.nodes: tuple[str, ...] = tuple(nodes)
        self._base = f"nexcage-sim-{hashlib.sha256(os.fsencode(directory)).hexdigest()[:10]}"
        self._holders: dict[str, subprocess.Popen[bytes]] = {}
        self._spaces: set[str] = set()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """From now on the containers that the nodes' ``pct`` starts are real ones."""
        rootfs = self.directory / "rootfs"
        if not rootfs.exists():
            _make_rootfs(rootfs)
        for path in ("/var/lib/lxc", "/run/lxc"):
            os.makedirs(path, exist_ok=True)
        tree, unified = _hierarchy()
        try:
            for name in self.nodes:
                root = self.directory / "nodes" / name / "root"
                base = f"{self._base}-{name}"
                holder = self._hold(name, root, base)
                ground = Ground(holder.pid, born(holder.pid), base, str(rootfs), str(tree), unified)
                _link(root, ground)
                (root / REAL[1:]).write_text(json.dumps(ground._asdict()), "utf-8")
        except BaseException:
            self.stop()
            raise
        install(self.directory, self.nodes)

    def _hold(self, name: str, root: Path, base: str) -> subprocess.Popen[bytes]:
        for path in ("/var/lib/lxc", f"{SIM}/lxc-run"):
            Path(f"{root}{path}").mkdir(parents=True, exist_ok=True)
        argv = ["unshare", "--mount", "--net", "sh", "-c", _HOLD, "nexcage-holder", str(root), base]
        pipe = subprocess.PIPE
        holder = subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, start_new_session=True)
        self._holders[name] = holder
        assert holder.stdout is not None
        said = holder.stdout.readline()
        if said != b"ready\n":
            raise RuntimeError(f"no ground for real containers: {said.decode('utf-8', 'replace').strip()}")
        self._spaces.add(_space(holder.pid))
        return holder

    def stop(self) -> None:
        """End the containers, everything else that runs in the nodes' namespaces, and their cgroups."""
        for holder in self._holders.values():
            assert holder.stdin is not None
            holder.stdin.close()
        for holder in self._holders.values():
            try:
                holder.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                holder.kill()
                holder.wait()
            assert holder.stdout is not None
            holder.stdout.close()
        self._holders.clear()
        self._end_all()
        for name in self.nodes:
            root = self.directory / "nodes" / name / "root"
            (root / REAL[1:]).unlink(missing_ok=True)
            _unlink(root)
        install(self.directory, self.nodes)

    def processes(self) -> list[int]:
        """What runs for these nodes: in their namespaces (monitors, tools) and inside their containers."""
        return sorted(pid for pid in _pids() if _space(pid) in self._spaces or self._contained(pid))

    def _contained(self, pid: int) -> bool:
        try:
            text = Path(f"/proc/{pid}/cgroup").read_text("utf-8", "replace")
        except OSError:
            return False
        return f":/{self._base}-" in text

    def _end_all(self) -> None:
        gives_up = time.monotonic() + _PATIENCE
        while self._spaces and (left := self.processes()):
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if time.monotonic() > gives_up:
                raise RuntimeError(f"processes of real containers do not end: {left}")
            time.sleep(0.01)
        while not self._without_cgroups():
            if time.monotonic() > gives_up:
                raise RuntimeError(f"cgroups of real containers do not go: {_GROUPS}/*/{self._base}-*")
            time.sleep(0.01)
        self._spaces.clear()

    def _without_cgroups(self) -> bool:
        tops = [*_GROUPS.glob(f"{self._base}-*"), *_GROUPS.glob(f"*/{self._base}-*")]
        for top in tops:
            for directory, _, _ in os.walk(top, topdown=False):
                with suppress(OSError):  # it is busy for a moment longer, or gone
                    os.rmdir(directory)
        return not any(top.exists() for top in tops)


def _unlink(root: Path) -> None:
    """From now on it is a model again, on which nothing runs."""
    for link in (*root.glob("proc/[0-9]*"), *(root / path for path in _LINKS)):
        if link.is_symlink():
            link.unlink()
    for path in ("lxc", "lxc.monitor"):
        (root / "sys/fs/cgroup" / path).mkdir(parents=True, exist_ok=True)


def _link(root: Path, ground: Ground) -> None:
    """What a look reads of the kernel: the sockets of the node's network namespace and its cgroups."""
    tree = Path(ground.tree) / ground.base
    groups = root / "sys/fs/cgroup"
    links = {
        root / "proc/net/unix": Path(f"/proc/{ground.holder}/net/unix"),
        groups / "lxc.monitor": tree / "lxc.monitor",
        (groups if ground.unified else groups / "freezer") / "lxc": tree / "lxc",
    }
    for link, target in links.items():
        link.parent.mkdir(parents=True, exist_ok=True)
        if link.is_dir() and not link.is_symlink():
            link.rmdir()  # a model's, and nothing may run while its node becomes a real one
        link.unlink(missing_ok=True)
        link.symlink_to(target)


def _make_rootfs(rootfs: Path) -> None:
    busybox = shutil.which("busybox")
    assert busybox, missing()
    made = rootfs.with_name(f"{rootfs.name}.making")
    shutil.rmtree(made, ignore_errors=True)
    for name in (
        "bin",
        "sbin",
        "dev",
        "etc",
        ".nexcage",
        "proc",
        "root",
        "run",
        "sys",
        "tmp",
        "usr/bin",
        "usr/sbin",
        "var/log",
    ):
        (made / name).mkdir(parents=True)
    shutil.copy(busybox, made / "bin/busybox")
    names = subprocess.run([busybox, "--list"], stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    for name in names:
        if name not in ("busybox", "init"):
            (made / "bin" / name).symlink_to("busybox")
    init = made / "sbin/init"
    init.write_text(_INIT)
    init.chmod(0o755)
    (made / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (made / "etc/group").write_text("root:x:0:\n")
    made.rename(rootfs)


def _pids() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdigit())


def _space(pid: int) -> str:
    """Its network namespace; a word that none has when it is gone."""
    try:
        return os.readlink(f"/proc/{pid}/ns/net")
    except OSError:
        return "gone"
