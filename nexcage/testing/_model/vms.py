"""Virtual machines of a node: their configs, their ``kvm`` processes, and what their QEMU says.

The pid file is there while the machine runs, as on a real node; the QMP socket is a plain file with the answer to ``query-status``.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nexcage.testing._model.node import Node

__all__ = [
    "agent",
    "config",
    "config_path",
    "ended",
    "machines",
    "pause",
    "pid_of",
    "press_power",
    "remove_config",
    "signalled",
    "start",
    "status",
    "stop",
    "write_config",
]

RUN = "/run/qemu-server"
HALTS = "halts"
"""How a guest takes its power button unless the settings say ``ignores`` (``vm`` of the cluster's settings, by VMID or name)."""
MUTE = "mute"
"""A guest without the QEMU guest agent."""


def config_path(node: Node, vmid: int) -> str:
    """The config file of a virtual machine on this node."""
    return f"/etc/pve/nodes/{node.name}/qemu-server/{vmid}.conf"


def config(node: Node, vmid: int) -> str | None:
    """Its text, or None."""
    return node.files.read(config_path(node, vmid))


def write_config(node: Node, vmid: int, text: str) -> None:
    """Write it, recorded."""
    before = config(node, vmid)
    node.files.write(config_path(node, vmid), text)
    if before != text:
        node.effect("config", str(vmid), "created" if before is None else "changed")


def remove_config(node: Node, vmid: int) -> None:
    """The virtual machine is no longer defined."""
    node.files.remove(config_path(node, vmid))
    node.effect("config", str(vmid), "removed")


def machines(node: Node) -> list[int]:
    """The VMIDs of this node's virtual machines, sorted."""
    names = node.files.names(f"/etc/pve/nodes/{node.name}/qemu-server")
    return sorted(int(name[:-5]) for name in names if name.endswith(".conf") and name[:-5].isdigit())


# --- processes --------------------------------------------------------------------------------------------------------


def pid_of(node: Node, vmid: int) -> int | None:
    """The pid of its kvm process while that lives."""
    text = (node.files.read(f"{RUN}/{vmid}.pid") or "").strip()
    return int(text) if text.isdigit() and node.alive(int(text)) else None


def status(node: Node, vmid: int) -> str:
    """``stopped``, or what its QEMU says: ``running``, ``paused``, ``prelaunch``."""
    if pid_of(node, vmid) is None:
        return "stopped"
    answer = json.loads(node.files.read(f"{RUN}/{vmid}.qmp") or "{}")
    return str(answer.get("return", {}).get("status", "running"))


def start(node: Node, vmid: int, *, said: str = "running") -> int:
    """Its kvm process comes up; the pid."""
    pid = node.start_process("kvm", 1, f"/qemu.slice/{vmid}.scope")
    words = ("/usr/bin/kvm", "-id", str(vmid), "-pidfile", f"/var/run/qemu-server/{vmid}.pid", "-daemonize")
    node.files.write(f"/proc/{pid}/cmdline", "\0".join(words) + "\0")
    node.files.write(f"{RUN}/{vmid}.pid", f"{pid}\n")
    _say(node, vmid, said)
    node.effect("process", str(vmid), f"started {pid}")
    return pid


def _say(node: Node, vmid: int, said: str) -> None:
    answer = {"return": {"status": said, "singlestep": False, "running": said == "running"}}
    node.files.write(f"{RUN}/{vmid}.qmp", json.dumps(answer) + "\n")


def pause(node: Node, vmid: int, paused: bool) -> None:
    """QMP's ``stop`` and ``cont``."""
    if (status(node, vmid) == "paused") != paused:
        _say(node, vmid, "paused" if paused else "running")
        node.effect("process", str(vmid), "frozen" if paused else "thawed")


def stop(node: Node, vmid: int) -> None:
    """Its kvm process is gone, and what PVE cleans up behind it."""
    pid = pid_of(node, vmid)
    if pid is not None:
        node.end_process(pid)
        node.effect("process", str(vmid), f"ended {pid}")
    for ending in ("pid", "qmp"):
        node.files.remove(f"{RUN}/{vmid}.{ending}")


def agent(node: Node, vmid: int) -> bool:
    """Whether its guest agent answers."""
    return status(node, vmid) == "running" and _kind(node, vmid) != MUTE


def _kind(node: Node, vmid: int) -> str:
    named = re.search(r"(?m)^name: (.*)$", config(node, vmid) or "")
    chosen = node.settings.get("vm", {})
    return str(chosen.get(str(vmid)) or chosen.get(named[1] if named else "") or chosen.get("default", HALTS))


def press_power(node: Node, vmid: int) -> None:
    """The guest is asked to power down: it does so by itself after a while, unless it does not listen."""
    pid = pid_of(node, vmid)
    node.effect("signal", str(vmid), "power")
    if pid is not None and _kind(node, vmid) in (HALTS, MUTE):
        node.later((1.0 + 2.0 * node.random.random()) * node.pace, "vm-halt", vmid, pid)


def ended(node: Node, vmid: int, pid: int) -> None:
    """The time of a guest that powers down has come; one that is paused acts on it once it runs again."""
    if pid_of(node, vmid) != pid:
        return
    if status(node, vmid) == "paused":
        node.later(1.0, "vm-halt", vmid, pid)
        return
    stop(node, vmid)


_SCOPE = re.compile(r"/qemu\.slice/([0-9]+)\.scope")


def signalled(node: Node, pid: int, number: int, name: str) -> bool:
    """A signal arrives at a kvm process: TERM, INT, HUP and KILL end it at once. False when it is none."""
    found = _SCOPE.search(node.files.read(f"/proc/{pid}/cgroup") or "")
    if found is None:
        return False
    node.effect("signal", found[1], name)
    if number in (1, 2, 9, 15):
        stop(node, int(found[1]))
    return True
