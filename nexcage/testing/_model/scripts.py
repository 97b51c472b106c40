"""Twins of the library's own shell scripts, for nodes in memory, where no shell runs.

A transport in memory is handed ``sh -c SCRIPT NAME ARGS...`` like any other; the twin is found by the script's exact text.
It gets a :class:`Ctx` whose ``argv`` is ``(NAME, *ARGS)``. What a twin prints is what the script prints on a node on disk; a test
compares them.
"""

from __future__ import annotations

import re

from nexcage.testing._model import TOOLS, find_tool, gates, vms
from nexcage.testing._model.agent import AGENTS
from nexcage.testing._model.bundling import BUNDLING
from nexcage.testing._model.claims import CLAIMING
from nexcage.testing._model.contents import CONTENTS
from nexcage.testing._model.gate_scripts import GATES
from nexcage.testing._model.insight import INSIDE
from nexcage.testing._model.kept import KEEPING
from nexcage.testing._model.lease import LEASE
from nexcage.testing._model.mend_clone import MENDING_CLONES
from nexcage.testing._model.mend_lock import MENDING_LOCKS
from nexcage.testing._model.mend_snapshot import MENDING_SNAPSHOTS
from nexcage.testing._model.mending import MENDING
from nexcage.testing._model.node import Node
from nexcage.testing._model.oci.scripts import RUNTIMES
from nexcage.testing._model.shelf import SHELVES
from nexcage.testing._model.tool import Ctx, Steps, Tool
from nexcage.testing._model.zfs_scripts import ON_ZFS
from nexcage.tools import kvm, lxc

__all__ = ["SCRIPTS"]

_UPID_PID = re.compile(r"UPID:[^:]*:([0-9A-F]+):")


def _look(ctx: Ctx) -> Steps:
    node = ctx.node
    read = node.files.read
    parts = [
        "@nexcage boot\n", read("/proc/sys/kernel/random/boot_id") or "",
        "@nexcage uptime\n", read("/proc/uptime") or "",
        "@nexcage name\n", f"{node.name}\n" if read("/etc/pve/.members") else "",
        "@nexcage memory\n", *re.findall(r"^MemAvailable: *(.*\n)", read("/proc/meminfo") or "", re.MULTILINE),
        "@nexcage lrm\n", (read(f"/etc/pve/nodes/{node.name}/lrm_status") or "").partition("\n")[0], "\n",
        "@nexcage members\n", read("/etc/pve/.members") or "", "\n",
        "@nexcage vmlist\n", read("/etc/pve/.vmlist") or "", "\n",
        "@nexcage running\n", *_running(node),
        "@nexcage waiting\n", " ".join(str(vmid) for vmid in node.running() if gates.waits(node, vmid)), "\n",
        "@nexcage frozen\n", *(f"{vmid}/cgroup.freeze\n" for vmid in node.running() if node.is_frozen(vmid)),
        "@nexcage tasks\n", *_tasks(node),
        "@nexcage ops\n", *_ops(node, ctx.argv[1:]),
        "@nexcage configs\n",
    ]  # fmt: skip
    directory = f"/etc/pve/nodes/{node.name}/lxc"
    names = node.files.names(directory)
    parts += [f"{name}\n" for name in names]
    parts.append("@nexcage texts\n")
    for name in names:
        text = read(f"{directory}/{name}") or ""
        if text:
            parts.append(f"{name}:" + text.removesuffix("\n").replace("\n", f"\n{name}:") + "\n")
    parts += _vms(node)
    parts.append("@nexcage end\n")
    ctx.out("".join(parts))
    return 0
    yield


def _vms(node: Node) -> list[str]:
    read, known = node.files.read, vms.machines(node)
    pids = {vmid: pid for vmid in known if (pid := vms.pid_of(node, vmid)) is not None}
    stats = {vmid: (read(f"/proc/{pid}/stat") or "").rpartition(") ")[2].strip() for vmid, pid in pids.items()}
    parts = ["@nexcage vms\n", *(f"{vmid} {pid} {stats[vmid]}\n" for vmid, pid in pids.items())]
    names = {vmid: f"{vmid}.conf" for vmid in known}
    parts += ["@nexcage vmconfigs\n", *(f"{name}\n" for name in names.values() or ("*.conf",)), "@nexcage vmtexts\n"]
    if not known:
        return parts
    texts = {vmid: vms.config(node, vmid) or "" for vmid in known}
    for vmid, text in texts.items():
        if text:
            parts.append(f"{vmid}.conf:" + text.removesuffix("\n").replace("\n", f"\n{vmid}.conf:") + "\n")
    parts.append("@nexcage vmstates\n")
    marked = (vmid for vmid in pids if "\n#nexcage fleet=" in f"\n{texts[vmid]}")
    return parts + [f"{vmid} {vms.status(node, vmid)}\n" for vmid in marked]


def _running(node: Node) -> list[str]:
    lines: list[str] = []
    for vmid in node.running():
        pid = node.init_pid(vmid) or 0
        stat = (node.files.read(f"/proc/{pid}/stat") or "").rpartition(") ")[2].strip()
        lines.append(f"{vmid} {pid} {stat}\n")
    return lines


def _tasks(node: Node) -> list[str]:
    lines: list[str] = []
    for line in (node.files.read("/var/log/pve/tasks/active") or "").splitlines():
        words = line.split()
        match = _UPID_PID.match(line)
        if len(words) == 2 and match and node.alive(int(match[1], 16)):
            lines.append(f"{words[0]}\n")
    return lines


def _ops(node: Node, ops: tuple[str, ...]) -> list[str]:
    if not ops:
        return []
    living = {node.files.read(f"/proc/{name}/environ") for name in node.files.names("/proc") if name.isdigit()}
    return [f"{op}\n" for op in ops if f"NEXCAGE_OP_ID={op}\0" in living]


def _carries(ctx: Ctx, mark: str, vmid: str) -> bool:
    text = _config(ctx, vmid)
    return text is not None and f"#{mark}" in text.split("\n[")[0].split("\n")


def _config(ctx: Ctx, vmid: str) -> str | None:
    text = ctx.node.files.read(f"/etc/pve/nodes/{ctx.node.name}/lxc/{vmid}.conf")
    return vms.config(ctx.node, int(vmid)) if text is None else text


def _guard(ctx: Ctx) -> Steps:
    mark, vmid, *words = ctx.argv[1:]
    if _config(ctx, vmid) is not None and not _carries(ctx, mark, vmid):
        ctx.err("nexcage: the container does not carry our mark\n")
        return 9
    ctx.argv = tuple(words)
    tool = find_tool(ctx.node, words[0])
    if tool is None:
        ctx.err(f"sh: 1: exec: {words[0]}: not found\n")
        return 127
    return (yield from tool(ctx))


def _signal(ctx: Ctx) -> Steps:
    mark, vmid, number = ctx.argv[1:]
    if not _carries(ctx, mark, vmid):
        ctx.err("nexcage: the container does not carry our mark\n")
        return 9
    pid = ctx.node.init_pid(int(vmid))
    if pid is None:
        ctx.err(f"nexcage: container {vmid} has no init process\n")
        return 8
    ctx.argv = ("kill", f"-{number}", str(pid))
    status = yield from TOOLS["kill"](ctx)
    if status == 0:
        ctx.out(f"{pid}\n")
    return status


def _power(ctx: Ctx) -> Steps:
    mark, vmid = ctx.argv[1:]
    if not _carries(ctx, mark, vmid):
        ctx.err("nexcage: the container does not carry our mark\n")
        return 9
    pid = vms.pid_of(ctx.node, int(vmid))
    if pid is None:
        ctx.err(f"nexcage: virtual machine {vmid} has no process\n")
        return 8
    ctx.argv = ("kill", "-9", str(pid))
    status = yield from TOOLS["kill"](ctx)
    if status == 0:
        ctx.out(f"{pid}\n")
    return status


SCRIPTS: dict[str, Tool] = {
    lxc.LOOK: _look,
    lxc.GUARD: _guard,
    lxc.SIGNAL: _signal,
    kvm.POWER: _power,
    **AGENTS,
    **BUNDLING,
    **CLAIMING,
    **CONTENTS,
    **GATES,
    **INSIDE,
    **MENDING,
    **MENDING_SNAPSHOTS,
    **MENDING_CLONES,
    **MENDING_LOCKS,
    **KEEPING,
    **LEASE,
    **ON_ZFS,
    **RUNTIMES,
    **SHELVES,
}
"""Script text to its twin."""
