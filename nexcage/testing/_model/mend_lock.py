"""The twin of the script that takes away the lock of a migration that has failed."""

from __future__ import annotations

from nexcage.testing._model import TOOLS
from nexcage.testing._model.node import Node
from nexcage.testing._model.tool import Ctx, Steps
from nexcage.tools.mend_lock import MEND

__all__ = ["MENDING_LOCKS"]


def _mend(ctx: Ctx) -> Steps:
    mark, vmid, at, start, end = ctx.argv[1:]
    text = ctx.node.files.read(f"/etc/pve/nodes/{ctx.node.name}/lxc/{vmid}.conf")
    main = [] if text is None else ("\n" + text).split("\n[")[0].split("\n")
    if not any(line.startswith("lock: ") for line in main):
        return 0
    if f"#{mark}" not in main:
        why = "it does not carry our mark"
    elif "lock: migrate" not in main:
        why = "it is another one"
    else:
        why = _not_ours(ctx.node, vmid, int(at), range(int(start), int(end) + 1))
    if why:
        ctx.err(f"nexcage: the lock of {vmid} is not provably ours: {why}\n")
        return 9
    ctx.argv = ("pct", "unlock", vmid)
    return (yield from TOOLS["pct"](ctx))


def _not_ours(node: Node, vmid: str, at: int, ticks: range) -> str:
    own = 0
    logs = [node.files.read(f"/var/log/pve/tasks/{name}") or "" for name in ("active", "index")]
    for upid in sorted({line.split(" ")[0] for text in logs for line in text.splitlines() if line.startswith("UPID:")}):
        parts = upid.split(":")
        if parts[6] != vmid:
            continue
        if node.alive(int(parts[2], 16)):
            return "a task works on it"
        start = int(parts[3], 16)
        if parts[5] != "vzmigrate" or (int(parts[4], 16) < at - 1 and start < ticks.start):
            continue
        if start not in ticks:
            return "another migration came after ours"
        own += 1
    return "" if own == 1 else f"{own} migrations began since ours"


MENDING_LOCKS = {MEND: _mend}
