"""Containers of the pretend ``crun`` and ``runc``: what both keep below their ``--root``, and their processes.

``ROOT/ID/status`` is what the program remembers, ``exec.fifo`` is there until the start, and the cgroup of a container is named after it
as theirs is. In the model its program lives until it is signalled; TERM ends it a moment later, as the default of a program that listens.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from nexcage.testing._model.files import SIM, DiskFiles
from nexcage.testing._model.guest import Guest
from nexcage.testing._model.node import Node
from nexcage.testing._model.tool import Ctx

__all__ = ["Box", "Inside", "boxes", "ended", "find", "plain"]

ENDS = frozenset({1, 2, 3, 15})
"""Signals that end its program; 9 does so at once."""


def plain(node: Node, path: str) -> str:
    """A path as the node sees it: on disk, programs are handed the one of this machine."""
    if isinstance(node.files, DiskFiles):
        path = path.removeprefix(node.files.root)
    return path.rstrip("/") or "/"


class Box:
    """One container of one program."""

    def __init__(self, node: Node, root: str, id: str) -> None:
        self.node: Node = node
        self.root: str = root
        self.id: str = id
        known: dict[str, Any] = json.loads(node.files.read(f"{self.place}/status") or "{}")  # Any: JSON
        self.known: dict[str, Any] = known
        self.pid: int = int(known.get("pid", 0))
        self.bundle: str = str(known.get("bundle", ""))

    @property
    def place(self) -> str:
        return f"{self.root}/{self.id}"

    @property
    def cgroup(self) -> str:
        return f"/sys/fs/cgroup/{self.id}"

    @property
    def status(self) -> str:
        """created, running, paused or stopped."""
        if not (self.pid and self.node.alive(self.pid)):
            return "stopped"
        if (self.node.files.read(f"{self.cgroup}/cgroup.freeze") or "0").strip() == "1":
            return "paused"
        return "created" if self.node.files.exists(f"{self.place}/exec.fifo") else "running"

    # --- what is done to it -------------------------------------------------------------------------------------------

    def make(self, bundle: str, config: dict[str, Any]) -> int:  # Any: JSON
        """It is there, and its init waits; the pid."""
        node, files = self.node, self.node.files
        pid = node.start_process("init", 1, f"/{self.id}")
        created = datetime.fromtimestamp(node.now(), UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        known: dict[str, Any] = {
            "pid": pid,
            "bundle": bundle,
            "created": created,
            "annotations": config.get("annotations"),
        }
        known["cgroup-path"] = f"/{self.id}"
        root: dict[str, Any] = config.get("root") or {}  # Any: JSON
        process: dict[str, Any] = config.get("process") or {}  # Any: likewise
        known["rootfs"] = root.get("path", "rootfs")
        known["env"] = process.get("env") or []
        status = (
            f"Name:\tinit\nState:\tS (sleeping)\nPPid:\t1\nUid:\t0\t0\t0\t0\nVmRSS:\t    1024 kB\nNSpid:\t{pid}\t1\n"
        )
        files.write(f"/proc/{pid}/status", status)
        files.write(f"/proc/{pid}/cmdline", "".join(f"{word}\0" for word in process.get("args") or ("init",)))
        files.write(f"{self.place}/status", json.dumps(known))
        files.write(f"{self.place}/exec.fifo", "")
        for name, text in (("cgroup.freeze", "0"), ("cgroup.procs", str(pid)), ("memory.current", "1048576")):
            files.write(f"{self.cgroup}/{name}", f"{text}\n")
        files.write(f"{self.cgroup}/pids.current", "1\n")
        if not files.exists("/sys/fs/cgroup/cgroup.procs"):
            files.write("/sys/fs/cgroup/cgroup.procs", "")  # where the hierarchy is version 2, its root has that
        node.effect("config", self.id, "created")
        node.effect("process", self.id, f"started {pid}")
        self.known, self.pid, self.bundle = known, pid, bundle
        return pid

    def start(self) -> None:
        """Its program begins."""
        self.node.files.remove(f"{self.place}/exec.fifo")
        self.node.files.write(f"/proc/{self.pid}/environ", "".join(f"{one}\0" for one in self.known.get("env", ())))
        self.node.effect("process", self.id, f"begun {self.pid}")

    def freeze(self, frozen: bool) -> None:
        if (self.status == "paused") != frozen:
            self.node.files.write(f"{self.cgroup}/cgroup.freeze", f"{int(frozen)}\n")
            self.node.effect("process", self.id, "frozen" if frozen else "thawed")

    def signal(self, number: int, name: str) -> None:
        """A signal arrives. Before the start init has no handlers, so that only KILL does something."""
        node, status = self.node, self.status
        node.effect("signal", self.id, name)
        if number == 9:
            self.end()
        elif number in ENDS and status in ("running", "paused") and self._listens():
            node.later((0.2 + 0.3 * node.random.random()) * node.pace, f"oci-end {self.place}", 0, self.pid)

    def _listens(self) -> bool:
        chosen = self.node.settings.get("oci", {})
        return bool(chosen.get(self.id, chosen.get("default", "")) != "stubborn")

    def end(self) -> None:
        """Its processes are gone."""
        if self.pid and self.node.alive(self.pid):
            self.node.end_process(self.pid)
            self.node.files.remove(self.cgroup)
            self.node.effect("process", self.id, f"ended {self.pid}")

    def remove(self) -> None:
        """Nothing is left of it."""
        self.end()
        self.node.files.remove(self.place)
        self.node.effect("config", self.id, "removed")


def ended(node: Node, place: str, pid: int) -> None:
    """The time of a program that was told to end has come; a frozen one acts on it once it is thawed."""
    root, _, id = place.rpartition("/")
    box = Box(node, root, id)
    if box.pid != pid or not node.alive(pid):
        return
    if box.status == "paused":
        node.later(1.0, f"oci-end {place}", 0, pid)
        return
    box.end()


def find(node: Node, root: str, id: str) -> Box | None:
    """A container that the program knows."""
    return Box(node, root, id) if id and node.files.read(f"{root}/{id}/status") is not None else None


def boxes(node: Node, root: str) -> list[Box]:
    """All of them; directories that are no containers are left out."""
    found = (find(node, root, id) for id in node.files.names(root))
    return [box for box in found if box is not None]


class Inside(Guest):
    """A program's view of such a container."""

    def __init__(self, ctx: Ctx, box: Box, env: dict[str, str], *, uid: int = 0, gid: int = 0, cwd: str = "/") -> None:
        super().__init__(ctx, box.node, 0, env, uid=uid, gid=gid)
        self.box: Box = box
        self.cwd = cwd

    def lives(self) -> bool:
        return self.box.status in ("created", "running", "paused")

    def _stored(self, path: str) -> str:
        return f"{SIM}/oci/{self.box.pid}/rootfs{path}"

    @property
    def _modes(self) -> str:
        return f"{SIM}/oci/{self.box.pid}/modes"
