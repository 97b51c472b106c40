"""The twin of the script that removes what is half made or half deleted."""

from __future__ import annotations

from nexcage.testing._model import TOOLS
from nexcage.testing._model.node import Node
from nexcage.testing._model.tool import Ctx, Steps
from nexcage.tools.mending import MEND

__all__ = ["MENDING"]


def _mend(ctx: Ctx) -> Steps:
    vmid, lock, kind, at, started, mark, making = (*ctx.argv[1:], "", "")[:7]
    place = "qemu-server" if kind.startswith("qm") else "lxc"
    text = ctx.node.files.read(f"/etc/pve/nodes/{ctx.node.name}/{place}/{vmid}.conf")
    if text is None:
        return 0
    main = text.split("\n[")[0].split("\n")
    marked = mark != "" and f"#{mark}" in main and f"lock: {lock}" in text.split("\n")
    said = f"lock: {lock}" if marked else text.rstrip("\n")
    sure = bool(making) and text.strip() != f"lock: {lock}"
    why = _not_ours(ctx.node, said, vmid, lock, kind, int(at), int(started), sure=sure)
    if why:
        ctx.err(f"nexcage: {vmid} is not provably ours: {why}\n")
        return 9
    if place == "qemu-server":
        words = ("qm", "destroy", vmid, "--skiplock", "1", "--destroy-unreferenced-disks", "1")
        return (yield from TOOLS["qm"](_call(ctx, *words)))
    if making and text.strip() not in ("", f"lock: {lock}"):
        ctx.node.write_config(int(vmid), f"lock: {lock}\n")
    if text.strip():
        status = yield from TOOLS["pct"](_call(ctx, "pct", "unlock", vmid))
        if status:
            return status
    force = ("--force", "1") if making else ()
    return (yield from TOOLS["pct"](_call(ctx, "pct", "destroy", vmid, *force, "--destroy-unreferenced-disks", "1")))


def _call(ctx: Ctx, *argv: str) -> Ctx:
    ctx.argv = argv
    return ctx


def _not_ours(node: Node, text: str, vmid: str, lock: str, kind: str, at: int, started: int, *, sure: bool) -> str:
    if text not in (f"lock: {lock}", ""):
        return "its config has more than a lock"
    own = 0
    logs = [node.files.read(f"/var/log/pve/tasks/{name}") or "" for name in ("active", "index")]
    for upid in sorted({line.split(" ")[0] for log in logs for line in log.splitlines() if line.startswith("UPID:")}):
        parts = upid.split(":")
        if parts[6] != vmid:
            continue
        if node.alive(int(parts[2], 16)):
            return "a task works on it"
        same = parts[5] == kind or (kind, parts[5]) == ("vzcreate", "vzrestore")
        if same and (int(parts[4], 16) >= at - 1 or int(parts[3], 16) >= started):
            own += 1
    return "another task of that kind came after ours" if own > 1 and not sure else ""


MENDING = {MEND: _mend}
