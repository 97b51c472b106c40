"""A node whose containers are LXC's own: the model keeps PVE's configs, locks, tasks and storages, the kernel keeps the rest.

Which processes there are, what they are sent, what is frozen and what the monitor streams is real. `nexcage.testing.real_lxc` makes
the ground for it: a process that holds the node's own mount and network namespace, in which ``/var/lib/lxc`` and ``/run/lxc``
are the node's and the abstract sockets of LXC are seen by nobody else.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from random import Random
from typing import NamedTuple

from nexcage.testing._model.files import REAL, DiskFiles
from nexcage.testing._model.node import FIRST_PID, Node
from nexcage.testing._model.storage import Die

__all__ = ["Ground", "RealNode", "born", "entering", "ground_of"]

_GONE = 10.0
"""Seconds after which a monitor that has been told to stop is a defect."""
_CONFIG = """\
lxc.arch = linux64
lxc.rootfs.path = overlay:{rootfs}:/var/lib/lxc/{vmid}/delta
lxc.uts.name = {name}
lxc.net.0.type = empty
lxc.cgroup.dir.container = {base}/lxc/{vmid}
lxc.cgroup.dir.container.inner = ns
lxc.cgroup.dir.monitor = {base}/lxc.monitor/{vmid}
lxc.mount.auto = proc sys
lxc.mount.entry = tmpfs run tmpfs rw 0 0
lxc.tty.max = 0
lxc.environment = INIT={init}
"""


class Ground(NamedTuple):
    """Where a real node lives: the process that holds its namespaces, its cgroups below each hierarchy, its containers' root file
    system. ``born`` tells that process from a later one of its number. ``tree`` is the directory of the hierarchy that freezes,
    ``unified`` whether that is cgroup version 2.
    """

    holder: int
    born: str
    base: str
    rootfs: str
    tree: str
    unified: bool


def ground_of(root: str) -> Ground | None:
    """What the node below ``root`` stands on; None for one that is only a model, or is left from a process that died."""
    try:
        with open(root + REAL, encoding="utf-8") as file:
            ground = Ground(**json.load(file))
    except FileNotFoundError:
        return None
    return ground if born(ground.holder) == ground.born else None


def born(pid: int) -> str:
    """When a process started, in clock ticks; empty when there is none."""
    return "".join(_read(f"/proc/{pid}/stat").rpartition(") ")[2].split(" ")[19:20])


def entering(ground: Ground) -> list[str]:
    """The words before a command that make it run on the node."""
    return ["nsenter", f"--target={ground.holder}", "--mount", "--net", "--"]


class RealNode(Node):
    """A node on disk with real containers."""

    nap: float = 0.05

    def __init__(
        self, files: DiskFiles, name: str, *, clock: Callable[[], float], random: Random, ground: Ground
    ) -> None:
        super().__init__(files, name, clock=clock, random=random)
        self.ground: Ground = ground
        self._root: str = files.root

    # --- what is so ---------------------------------------------------------------------------------------------------

    def running(self) -> list[int]:
        """The containers whose command socket is open."""
        return sorted(vmid for vmid in self._open())

    def is_running(self, vmid: int) -> bool:
        return vmid in self._open()

    def _open(self) -> set[int]:
        found: set[int] = set()
        for line in _read(f"/proc/{self.ground.holder}/net/unix").splitlines():
            _, _, name = line.partition(" @/var/lib/lxc/")
            vmid, _, rest = name.partition("/")
            if rest == "command" and vmid.isdigit():
                found.add(int(vmid))
        return found

    def _cgroup(self, vmid: int, kind: str = "lxc") -> str:
        return f"{self.ground.tree}/{self.ground.base}/{kind}/{vmid}"

    def monitor_pid(self, vmid: int) -> int | None:
        return _first(f"{self._cgroup(vmid, 'lxc.monitor')}/cgroup.procs")

    def init_pid(self, vmid: int) -> int | None:
        monitor = self.monitor_pid(vmid)
        return None if monitor is None else _first(f"/proc/{monitor}/task/{monitor}/children")

    def is_frozen(self, vmid: int) -> bool:
        if self.ground.unified:
            return _read(f"{self._cgroup(vmid)}/cgroup.freeze").strip() == "1"
        return _read(f"{self._cgroup(vmid)}/freezer.state").strip() == "FROZEN"

    def alive(self, pid: int) -> bool:
        """A process of the model, or a real one of this node's containers: no other one exists here."""
        return super().alive(pid) if pid >= FIRST_PID else self._vmid(pid) is not None

    def _vmid(self, pid: int) -> int | None:
        """The container of this node that a real process is in."""
        found = re.search(rf":/{re.escape(self.ground.base)}/lxc/([0-9]+)/", _read(f"/proc/{pid}/cgroup"))
        return int(found[1]) if found else None

    @property
    def waits(self) -> float:
        return 1.0  # real processes take their time at any pace

    def sockets_changed(self) -> None:
        """Nothing to write: the kernel's own list is linked into the node's files."""

    # --- what is done -------------------------------------------------------------------------------------------------

    def start_container(self, vmid: int, init: str = "systemd") -> int:
        """As PVE's unit: ``lxc-start``. That it ended well says nothing; another init than before does."""
        self._configure(vmid, init)
        before = self.init_pid(vmid)
        self._lxc("lxc-start", "-n", str(vmid), "-d", "-o", f"/var/lib/lxc/{vmid}/start.log")
        pid = self.init_pid(vmid)
        if pid is None or pid == before:
            raise Die(f"startup for container '{vmid}' failed")
        self._link(pid, self.monitor_pid(vmid))
        self.effect("process", str(vmid), f"started {pid}")
        return pid

    def _configure(self, vmid: int, init: str) -> None:
        conf = self.config(vmid) or ""
        name = next((line[10:] for line in conf.splitlines() if line.startswith("hostname: ")), f"CT{vmid}")
        ground = self.ground
        text = _CONFIG.format(rootfs=ground.rootfs, base=ground.base, vmid=vmid, name=name.split(".")[0], init=init)
        text += "".join(self._raw(conf.split("\n[")[0]))
        path = f"/var/lib/lxc/{vmid}/config"
        self.files.write(path, text)  # with the step; lxc-start reads it now
        os.makedirs(os.path.dirname(self._root + path), exist_ok=True)
        with open(self._root + path, "w", encoding="utf-8") as file:
            file.write(text)

    def _raw(self, conf: str) -> Iterator[str]:
        """The ``lxc.*`` lines of PVE's config; what lies on the node is below its root. Cgroups are the machine's own affair."""
        if re.search(r"^rootfs: .*,ro=1", conf, re.MULTILINE):
            yield "lxc.rootfs.options = ro\n"
        for key, value in re.findall(r"^(lxc\.[a-z0-9_.-]+): ?(.*)$", conf, re.MULTILINE):
            if not key.startswith(("lxc.cgroup", "lxc.apparmor", "lxc.net")):
                placed = f"{self._root}{value}" if value.startswith("/var/lib/nexcage-lxc/") else value
                yield f"{key} = {placed}\n"

    def _link(self, *pids: int | None) -> None:
        """Show these processes below the node's own /proc, and no longer those that have ended."""
        folder = f"{self._root}/proc"
        for name in os.listdir(folder):
            if os.path.islink(f"{folder}/{name}") and name.isdigit() and not os.path.exists(f"{folder}/{name}"):
                os.unlink(f"{folder}/{name}")
        for pid in pids:
            if pid is not None and not os.path.lexists(f"{folder}/{pid}"):
                os.symlink(f"/proc/{pid}", f"{folder}/{pid}")

    def end_container(self, vmid: int) -> None:
        """As ``pct stop``: KILL to init, and the monitor ends."""
        if not self.is_running(vmid):
            return
        pid = self.init_pid(vmid)
        self._lxc("lxc-stop", "-n", str(vmid), "-k")
        gives_up = time.monotonic() + _GONE
        while self.is_running(vmid):
            if time.monotonic() > gives_up:
                raise Die(f"command 'lxc-stop -n {vmid} --kill' failed: exit code 1")
            time.sleep(0.005)
        self.effect("process", str(vmid), f"ended {pid or 0}")

    def asked_to_halt(self, vmid: int) -> bool:
        self._lxc("lxc-stop", "-n", str(vmid), "--nokill", "-t", "0")
        return True

    def freeze(self, vmid: int, frozen: bool) -> None:
        if self.is_frozen(vmid) != frozen:
            self._lxc("lxc-freeze" if frozen else "lxc-unfreeze", "-n", str(vmid))
            self.effect("process", str(vmid), "frozen" if frozen else "thawed")

    def delivered(self, pid: int, number: int) -> bool:
        """Only to a process of this node's containers: no mistake of a test can hit another one."""
        from nexcage.testing._model.host import NAMES

        descriptor = os.pidfd_open(pid)
        try:
            if (vmid := self._vmid(pid)) is not None:
                self.effect("signal", str(vmid), NAMES.get(number, str(number)))
                signal.pidfd_send_signal(descriptor, number)
        finally:
            os.close(descriptor)
        return True

    def attach(self, vmid: int, words: tuple[str, ...], keep_env: bool) -> None:
        """Become the command inside: its input, output and exit status are this process's."""
        option = "--keep-env" if keep_env else "--clear-env"
        os.execvp("nsenter", [*entering(self.ground), "lxc-attach", "-n", str(vmid), option, "--", *words])

    def _lxc(self, *words: str) -> int:
        null = subprocess.DEVNULL
        # As from systemd: what it starts is no process of the operation.
        env = {name: value for name, value in os.environ.items() if not name.startswith("NEXCAGE_")}
        said = subprocess.run(
            [*entering(self.ground), *words], stdin=null, stdout=null, stderr=null, env=env, timeout=60, check=False
        )
        return said.returncode


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except (FileNotFoundError, ProcessLookupError, NotADirectoryError):
        return ""
    except OSError:  # a cgroup that is going away answers ENODEV
        return ""


def _first(path: str) -> int | None:
    words = _read(path).split()
    return int(words[0]) if words else None
