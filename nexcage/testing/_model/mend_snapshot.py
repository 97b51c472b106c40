"""The twin of the script that removes what a killed snapshot left."""

from __future__ import annotations

import re

from nexcage.testing._model import TOOLS
from nexcage.testing._model.node import Node
from nexcage.testing._model.tool import Ctx, Steps
from nexcage.tools.mend_snapshot import MEND

__all__ = ["MENDING_SNAPSHOTS"]


def _mend(ctx: Ctx) -> Steps:
    mark, vmid, name, want, op, tool = (*ctx.argv[1:], "pct")[:6]
    place = "qemu-server" if tool == "qm" else "lxc"
    text = ctx.node.files.read(f"/etc/pve/nodes/{ctx.node.name}/{place}/{vmid}.conf")
    if text is None:
        return 0
    main = text.split("\n[")[0].split("\n")
    part = _section(text, name)
    lock = next((line[6:] for line in main if line.startswith("lock: ")), "")
    why = "" if f"#{mark}" in main else "it does not carry our mark"
    why = why or _busy(ctx.node, vmid) or (_not_ours(part, op) if want == "snapshot" and part else "")
    if not why and lock not in ("", want):
        why = f"its lock is {lock}"
    if why:
        ctx.err(f"nexcage: {vmid} is not provably ours: {why}\n")
        return 9
    if lock:
        ctx.argv = (tool, "unlock", vmid)
        status = yield from TOOLS[tool](ctx)
        if status:
            return status
    if not part:
        return 0
    ctx.argv = (tool, "delsnapshot", vmid, name, "--force", "1")
    return (yield from TOOLS[tool](ctx))


def _section(text: str, name: str) -> list[str]:
    found = re.search(rf"^\[{re.escape(name)}\](?:\n(?!\[).*)*", text, re.MULTILINE)
    return found[0].split("\n") if found else []


def _busy(node: Node, vmid: str) -> str:
    for line in (node.files.read("/var/log/pve/tasks/active") or "").splitlines():
        parts = line.split(" ")[0].split(":")
        if len(parts) > 6 and parts[6] == vmid and node.alive(int(parts[2], 16)):
            return "a task works on it"
    return ""


def _not_ours(part: list[str], op: str) -> str:
    if "snapstate: prepare" not in part:
        return "the snapshot is whole"
    return "" if f"#nexcage op={op}" in part else "the snapshot is of another operation"


MENDING_SNAPSHOTS = {MEND: _mend}
