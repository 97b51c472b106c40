"""One node of the model: verbs over its files.

Nothing is kept here that is not in the files, apart from the clock, the dice and who is calling, so that two processes that
look at one directory see the same node.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from random import Random
from typing import TYPE_CHECKING, Any

from nexcage.testing._model.files import SIM, Files

if TYPE_CHECKING:
    from nexcage.testing._model.claims import Held, Supervise
    from nexcage.testing._model.tool import Ctx, Tool

__all__ = ["EFFECTS", "SETTINGS", "Node", "Task"]

EFFECTS = "/etc/pve/effects.jsonl"
SETTINGS = "/etc/pve/settings.json"
FIRST_PID = 4194305  # above the largest pid Linux gives out, so that a real kill can never hit anything
DUE = f"{SIM}/due.json"
CLOCK = f"{SIM}/clock"
_TICKS = 100
_UNIX = "Num       RefCount Protocol Flags    Type St Inode Path\n"


class Task:
    """One worker: its pid and UPID, and whether somebody asked it to stop."""

    __slots__ = ("pid", "upid")

    def __init__(self, pid: int, upid: str) -> None:
        self.pid: int = pid
        self.upid: str = upid

    @property
    def log(self) -> str:
        """Where the task writes what it says."""
        return f"/var/log/pve/tasks/{self.upid.split(':')[4][-1]}/{self.upid}"


class Node:
    """The facade that the pretend tools work on."""

    nap: float = 1.0
    """Seconds between two looks of a tool that waits for a container to halt."""

    def __init__(self, files: Files, name: str, *, clock: Callable[[], float], random: Random) -> None:
        self.files: Files = files
        self.name: str = name
        self.steady: Callable[[], float] = clock
        """Seconds that nobody sets: what waits and what lasts is measured by it."""
        self.peers: Mapping[str, Node] = {}
        """The nodes of its cluster, where they are in this process."""
        self.random: Random = random
        self.current: Ctx | None = None
        """The call whose step is running; changes are recorded under it."""
        self.taught: dict[str, Tool] = {}
        """Programs that this node has besides the model's own, or in their place."""
        self.supervise: Supervise | None = None
        """Begins a claimed command as a process of the node itself; None where nothing drives one."""
        self.supervised: dict[str, Held] = {}
        """The claimed commands that this process runs now, by claim."""
        self._cause: int | None = None
        self._settings: tuple[str, dict[str, Any]] = ("", {})  # Any: JSON
        files.compute("/proc/net/unix", self._sockets)
        files.compute(
            "/proc/uptime", lambda: f"{self.steady() - self.booted:.2f} {(self.steady() - self.booted) * 1.5:.2f}\n"
        )

    def __repr__(self) -> str:
        return f"<Node {self.name}: {len(self.running())} running>"

    def now(self) -> float:
        """Seconds since 1970 by the node's clock, which may have been set."""
        ahead = self.files.read(CLOCK)
        return self.steady() if ahead is None else self.steady() + float(ahead)

    def jump(self, seconds: float) -> None:
        """Set the node's clock; how long it has been up does not change."""
        self.files.write(CLOCK, repr(float(self.files.read(CLOCK) or 0) + seconds))

    # --- settings -----------------------------------------------------------------------------------------------------

    @property
    def settings(self) -> dict[str, Any]:  # Any: JSON
        """The cluster's settings: seed, pace, how inits react."""
        text = self.files.read(SETTINGS) or "{}"
        if text is not self._settings[0] and text != self._settings[0]:
            self._settings = (text, json.loads(text))
        return self._settings[1]

    @property
    def pace(self) -> float:
        """How slow tools are: 1.0 as on a real node, 0 not at all. A node may have its own, and a tool on it too."""
        settings = self.settings
        own = settings.get("paces", {}).get(self.name)
        return float(settings.get("pace", 1.0) if own is None else own)

    @property
    def waits(self) -> float:
        """How long a tool waits for a container, as part of what it was told."""
        return self.pace

    def cost(self, seconds: float) -> float:
        """What ``seconds`` of a real node take here, a little different each time."""
        pace = self.pace
        return seconds * pace * self.random.uniform(0.9, 1.15) if pace else 0.0

    @property
    def booted(self) -> float:
        """When the node started."""
        return float(self.files.read(f"{SIM}/booted") or 0)

    @property
    def quorate(self) -> bool:
        """False while the node does not see the majority of its cluster."""
        return self.files.read(f"{SIM}/no-quorum") is None

    def uuid(self) -> str:
        """A random UUID from the node's dice."""
        digits = f"{self.random.getrandbits(128):032x}"
        return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"

    # --- effects ------------------------------------------------------------------------------------------------------

    def _count(self, name: str, start: int) -> int:
        path = f"/etc/pve/.{name}"
        number = int(self.files.read(path) or start)
        self.files.write(path, str(number + 1))
        return number

    def effect(self, kind: str, target: str, change: str) -> None:
        """Record that the running call changes something; written in the same step as the change.

        What happens by itself counts for the call that caused it, or for none (a crash, a program that ends).
        """
        changed = {"kind": kind, "target": target, "change": change}
        ctx = self.current
        if ctx is not None:
            if ctx.seq is None:
                ctx.seq = self._count("seq", 1)
                ctx.line = {
                    "seq": ctx.seq,
                    "at": round(self.steady(), 6),
                    "node": self.name,
                    **_caller(ctx),
                    "exit": None,
                }
            ctx.changed.append(changed)
        elif self._cause is not None:
            self.files.append(EFFECTS, json.dumps({"seq": self._cause, "changed": [changed]}) + "\n")

    def stepped(self, ctx: Ctx) -> None:
        """A step of the call ends: write down what it changed."""
        if ctx.changed:
            self._write(ctx, {})

    def finished(self, ctx: Ctx, status: int) -> None:
        """The call ends: add its exit status to what it recorded, if it recorded anything."""
        self.abandon(ctx)
        if ctx.seq is not None:
            self._write(ctx, {"exit": status})

    def _write(self, ctx: Ctx, more: dict[str, object]) -> None:
        line = {**(ctx.line or {"seq": ctx.seq}), "changed": ctx.changed, **more}
        self.files.append(EFFECTS, json.dumps(line) + "\n")
        ctx.line, ctx.changed = None, []

    # --- processes ----------------------------------------------------------------------------------------------------

    def start_process(self, name: str, parent: int = 1, cgroup: str = "/") -> int:
        """A process of the model; the pid was never used before on any node of the cluster."""
        pid = self._count("pid", FIRST_PID)
        files = self.files
        started = int((self.steady() - self.booted) * _TICKS)
        zeros = "0 " * 11  # minflt ... itrealvalue; the start time is the 22nd field (proc(5))
        files.write(f"/proc/{pid}/stat", f"{pid} ({name}) S {parent} {pid} {pid} 0 -1 4194560 {zeros}0 {started} 0 0\n")
        files.write(f"/proc/{pid}/cgroup", f"0::{cgroup}\n")
        return pid

    def show_call(self, ctx: Ctx) -> None:
        """A call that belongs to an operation is a process whose environment says so, for as long as it works."""
        op = ctx.env.get("NEXCAGE_OP_ID")
        if op and not ctx.real:
            pid = self.start_process(ctx.argv[0])
            self.files.write(f"/proc/{pid}/environ", f"NEXCAGE_OP_ID={op}\0")
            ctx.pids.add(pid)

    def end_process(self, pid: int) -> None:
        """Its directory in /proc goes."""
        self.files.remove(f"/proc/{pid}")

    def alive(self, pid: int) -> bool:
        """Whether the process exists."""
        return self.files.exists(f"/proc/{pid}/stat")

    def running(self) -> list[int]:
        """The containers whose monitor lives, which is what PVE calls running."""
        return sorted(int(name) for name in self.files.names("/sys/fs/cgroup/lxc.monitor") if name.isdigit())

    def is_running(self, vmid: int) -> bool:
        """Whether the container's monitor lives."""
        return self.files.exists(f"/sys/fs/cgroup/lxc.monitor/{vmid}/cgroup.procs")

    def init_pid(self, vmid: int) -> int | None:
        """The host pid of the container's init."""
        text = self.files.read(f"/sys/fs/cgroup/lxc/{vmid}/ns/cgroup.procs")
        return int(text.split()[0]) if text and text.split() else None

    def monitor_pid(self, vmid: int) -> int | None:
        """The host pid of the container's lxc-start."""
        text = self.files.read(f"/sys/fs/cgroup/lxc.monitor/{vmid}/cgroup.procs")
        return int(text.split()[0]) if text and text.split() else None

    def is_frozen(self, vmid: int) -> bool:
        """Whether lxc-freeze stopped the container."""
        return (self.files.read(f"/sys/fs/cgroup/lxc/{vmid}/cgroup.freeze") or "0").strip() == "1"

    def start_container(self, vmid: int, init: str = "systemd") -> int:
        """Monitor and init come up; the host pid of init. ``init`` says how it reacts to signals (:meth:`reaction`)."""
        files = self.files
        monitor = self.start_process("lxc-start", 1, f"/lxc.monitor/{vmid}")
        pid = self.start_process("init" if init != "systemd" else "systemd", monitor, f"/lxc/{vmid}/ns")
        files.write(f"/proc/{monitor}/cmdline", f"/usr/bin/lxc-start\0-F\0-n\0{vmid}\0")
        files.write(f"/proc/{monitor}/task/{monitor}/children", f"{pid} ")
        files.write(f"/sys/fs/cgroup/lxc.monitor/{vmid}/cgroup.procs", f"{monitor}\n")
        files.write(f"/sys/fs/cgroup/lxc/{vmid}/cgroup.freeze", "0\n")
        files.write(f"/sys/fs/cgroup/lxc/{vmid}/ns/cgroup.procs", f"{pid}\n")
        files.write(f"/sys/fs/cgroup/lxc/{vmid}/ns/cgroup.events", "populated 1\nfrozen 0\n")
        files.write(f"{SIM}/init/{vmid}", init)
        from nexcage.testing._model.gates import stand
        from nexcage.testing._model.inside import show

        show(self, vmid, pid)
        self.sockets_changed()
        self.effect("process", str(vmid), f"started {pid}")
        stand(self, vmid, pid)
        return pid

    def end_container(self, vmid: int) -> None:
        """Init and monitor are gone."""
        pids = [pid for pid in (self.init_pid(vmid), self.monitor_pid(vmid)) if pid is not None]
        for pid in pids:
            self.end_process(pid)
        files = self.files
        files.remove(f"/sys/fs/cgroup/lxc/{vmid}")
        files.remove(f"/sys/fs/cgroup/lxc.monitor/{vmid}")
        files.remove(f"{SIM}/init/{vmid}")
        files.remove(f"{SIM}/gate/{vmid}")
        self.sockets_changed()
        if pids:
            self.effect("process", str(vmid), f"ended {pids[0]}")

    def freeze(self, vmid: int, frozen: bool) -> None:
        """What lxc-freeze and lxc-unfreeze write."""
        if self.is_frozen(vmid) == frozen:
            return
        self.files.write(f"/sys/fs/cgroup/lxc/{vmid}/cgroup.freeze", f"{int(frozen)}\n")
        self.files.write(f"/sys/fs/cgroup/lxc/{vmid}/ns/cgroup.events", f"populated 1\nfrozen {int(frozen)}\n")
        self.effect("process", str(vmid), "frozen" if frozen else "thawed")

    def asked_to_halt(self, vmid: int) -> bool:
        """Ask a real init to halt; False where the model is to do it."""
        return False

    def delivered(self, pid: int, number: int) -> bool:
        """Send a signal to a real process; False where the model is to do it."""
        return False

    def attach(self, vmid: int, words: tuple[str, ...], keep_env: bool) -> None:
        """Become ``words`` inside a real container; returns where there is none."""

    def sockets_changed(self) -> None:
        """Containers have begun or ended to run."""
        self.files.stale("/proc/net/unix")

    def _sockets(self) -> str:
        lines = [_UNIX]
        for vmid in self.running():
            inode = 900000 + vmid * 2
            head = "0000000000000000: 00000002 00000000 00010000 0001 01"
            lines.append(f"{head} {inode} @/var/lib/lxc/{vmid}/command\n")
        return "".join(lines)

    # --- things that happen by themselves -----------------------------------------------------------------------------

    def later(self, seconds: float, what: str, vmid: int, pid: int) -> None:
        """``what`` happens to the container when the time has come: ``halt`` and ``reboot`` only while ``pid`` is its init."""
        due = json.loads(self.files.read(DUE) or "[]")
        due.append(
            [self.steady() + seconds, what, vmid, pid, self._cause if self.current is None else self.current.seq]
        )
        self.files.write(DUE, json.dumps(due))

    def next_due(self) -> float | None:
        """When something happens by itself next."""
        text = self.files.read(DUE)
        return min((entry[0] for entry in json.loads(text)), default=None) if text else None

    def settle(self) -> None:
        """Let everything happen whose time has come. Drivers call it before each step."""
        text = self.files.read(DUE)
        if text is None:
            return
        due = json.loads(text)
        now = self.steady()
        left = [entry for entry in due if entry[0] > now]
        if len(left) == len(due):
            return
        if left:
            self.files.write(DUE, json.dumps(left))
        else:
            self.files.remove(DUE)
        outer, self.current = self.current, None
        try:
            for _, what, vmid, pid, cause in sorted((entry for entry in due if entry[0] <= now), key=_when):
                self._cause = cause
                self._happen(what, vmid, pid)
        finally:
            self.current, self._cause = outer, None

    def _happen(self, what: str, vmid: int, pid: int) -> None:
        if what.startswith("ha-"):
            self._managed(what, vmid)
            return
        if what == "vm-halt":
            from nexcage.testing._model import vms

            vms.ended(self, vmid, pid)
            return
        if what.startswith("oci-end "):
            from nexcage.testing._model.oci.containers import ended

            ended(self, what.partition(" ")[2], pid)
            return
        if what in ("quorum", "storage-free"):
            from nexcage.testing._model.others import act

            act(self, what, vmid, {})
            return
        if self.init_pid(vmid) != pid:
            return
        if self.is_frozen(vmid):  # a frozen process acts on the signal once it is thawed
            self.later(1.0, what, vmid, pid)
            return
        init = self.files.read(f"{SIM}/init/{vmid}") or "systemd"
        self.end_container(vmid)
        if what == "reboot":
            self.start_container(vmid, init)

    def _managed(self, what: str, vmid: int) -> None:
        """The HA manager has come round: ``ha-start INIT``, ``ha-stop`` or ``ha-migrate NODE``."""
        kind, _, init = what.partition(" ")
        if kind == "ha-migrate":
            from nexcage.testing._model.others import relocate

            relocate(self, vmid, init)
            return
        if self.config(vmid) is None or self.is_running(vmid) == (kind == "ha-start"):
            return
        if kind == "ha-start":
            self.start_container(vmid, init)
        else:
            self.end_container(vmid)

    # --- tasks --------------------------------------------------------------------------------------------------------

    def begin_task(self, kind: str, vmid: int | str) -> Task:
        """Fork a worker: a process, a line in ``active``, an empty log."""
        pid = self.start_process("task " + kind)
        now = self.now()
        start = f"{int((self.steady() - self.booted) * _TICKS):08X}"
        if self.current is not None:
            self.current.pids.add(pid)
        task = Task(pid, f"UPID:{self.name}:{pid:08X}:{start}:{int(now):08X}:{kind}:{vmid}:root@pam:")
        active = self.files.read("/var/log/pve/tasks/active") or ""
        self.files.write("/var/log/pve/tasks/active", f"{task.upid} 0\n{active}")
        self.files.write(task.log, "")
        return task

    def end_task(self, task: Task, status: str) -> None:
        """The worker ends: last line of its log, out of ``active``, into ``index``."""
        files = self.files
        files.append(task.log, f"TASK {status if status == 'OK' else 'ERROR: ' + status}\n")
        active = (files.read("/var/log/pve/tasks/active") or "").splitlines(keepends=True)
        files.write("/var/log/pve/tasks/active", "".join(line for line in active if not line.startswith(task.upid)))
        files.append("/var/log/pve/tasks/index", f"{task.upid} {int(self.now()):08X} {status}\n")
        self.end_process(task.pid)
        if self.current is not None:
            self.current.pids.discard(task.pid)
        files.remove(f"{SIM}/abort/{task.pid}")

    def abandon(self, ctx: Ctx) -> None:
        """The call is gone: its workers end soon after, without a word in their logs."""
        for pid in ctx.pids:
            self.end_process(pid)
        ctx.pids.clear()

    def abort_task(self, upid: str) -> None:
        """Ask a running worker to end."""
        self.files.write(f"{SIM}/abort/{int(upid.split(':')[2], 16)}", upid)

    def aborted(self, task: Task) -> bool:
        """Whether somebody asked this worker to end."""
        return self.files.exists(f"{SIM}/abort/{task.pid}")

    def tasks(self, kind: str, vmid: int) -> list[str]:
        """The UPIDs of live workers of this kind on this container."""
        found: list[str] = []
        for line in (self.files.read("/var/log/pve/tasks/active") or "").splitlines():
            upid = line.split(" ")[0]
            parts = upid.split(":")
            if parts[5] == kind and parts[6] == str(vmid) and self.alive(int(parts[2], 16)):
                found.append(upid)
        return found

    # --- configs ------------------------------------------------------------------------------------------------------

    def config_path(self, vmid: int) -> str:
        """The config file of a container on this node."""
        return f"/etc/pve/nodes/{self.name}/lxc/{vmid}.conf"

    def config(self, vmid: int) -> str | None:
        """The text of its config file, or None."""
        return self.files.read(self.config_path(vmid))

    def write_config(self, vmid: int, text: str) -> None:
        """Write the file as pmxcfs does, recorded."""
        path = self.config_path(vmid)
        before = self.files.read(path)
        self.files.write(path, text)
        if before != text:
            self.effect("config", str(vmid), "created" if before is None else "changed")

    def remove_config(self, vmid: int) -> None:
        """The container is no longer defined."""
        self.files.remove(self.config_path(vmid))
        self.effect("config", str(vmid), "removed")

    def containers(self) -> list[int]:
        """The VMIDs of this node's containers, sorted."""
        names = self.files.names(f"/etc/pve/nodes/{self.name}/lxc")
        return sorted(int(name[:-5]) for name in names if name.endswith(".conf") and name[:-5].isdigit())

    def guest_node(self, vmid: int) -> tuple[str, str] | None:
        """Where in the cluster the VMID is used: (``CT`` or ``VM``, node name)."""
        found = self.files.guest(vmid)
        return None if found is None else ("CT" if found[0] == "lxc" else "VM", found[1])


def _when(entry: list[Any]) -> float:  # Any: JSON
    return float(entry[0])


def _caller(ctx: Ctx) -> dict[str, object]:
    step = ctx.env.get("NEXCAGE_STEP", "")
    epoch = ctx.env.get("NEXCAGE_EPOCH")
    return {
        "op_id": ctx.env.get("NEXCAGE_OP_ID") or None,
        "step": int(step) if step.isdigit() else None,
        "epoch": int(epoch) if epoch is not None and epoch.isdigit() else epoch,
        "claim": ctx.claim or None,
        "argv": list(ctx.argv),
    }
