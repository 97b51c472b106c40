"""The twin of the script that removes what a killed clone left."""

from __future__ import annotations

from nexcage.testing._model import TOOLS
from nexcage.testing._model.node import Node
from nexcage.testing._model.tool import Ctx, Steps
from nexcage.tools.mend_clone import MEND

__all__ = ["MENDING_CLONES"]


def _mend(ctx: Ctx) -> Steps:
    vmid, source, mark, at = ctx.argv[1:]
    read, place = ctx.node.files.read, f"/etc/pve/nodes/{ctx.node.name}/lxc"
    why = _busy(ctx.node, vmid, source, int(at))
    if not why:
        main = (read(f"{place}/{source}.conf") or "").split("\n[")[0].split("\n")
        if f"#{mark}" in main and "lock: disk" in main:
            status = yield from TOOLS["pct"](_call(ctx, "pct", "unlock", source))
            if status:
                return status
        text = read(f"{place}/{vmid}.conf")
        if text is None:
            return 0
        if text.rstrip("\n") not in ("lock: create", ""):
            why = "its config has more than a lock"
    if why:
        ctx.err(f"nexcage: {vmid} is not provably ours: {why}\n")
        return 9
    if (read(f"{place}/{vmid}.conf") or "").strip():
        status = yield from TOOLS["pct"](_call(ctx, "pct", "unlock", vmid))
        if status:
            return status
    return (yield from TOOLS["pct"](_call(ctx, "pct", "destroy", vmid, "--destroy-unreferenced-disks", "1")))


def _call(ctx: Ctx, *argv: str) -> Ctx:
    ctx.argv = argv
    return ctx


def _busy(node: Node, vmid: str, source: str, at: int) -> str:
    logs = [node.files.read(f"/var/log/pve/tasks/{name}") or "" for name in ("active", "index")]
    for upid in sorted({line.split(" ")[0] for log in logs for line in log.splitlines() if line.startswith("UPID:")}):
        parts = upid.split(":")
        if parts[6] not in (vmid, source):
            continue
        if node.alive(int(parts[2], 16)):
            return "a task works on it"
        if parts[6] == vmid and int(parts[4], 16) >= at - 1 and parts[5] in ("vzcreate", "vzrestore"):
            return "somebody has made another one since"
    return ""


MENDING_CLONES = {MEND: _mend}
